//! The log as files: what of it is durable, its bytes, and where a copy of it belongs.
//!
//! For whoever keeps a copy of the log elsewhere. Owns the listing and the names; refuses to read past what a sync
//! has confirmed. A copy that has, for each file, a prefix of its bytes is opened with `Shard::open` like any log
//! after a crash. A checkpoint counts only when it is whole: a part of one must not be put beside the segments.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::segment::{checkpoint_path, list, segment_path};
use super::syncer::WalSyncer;
use crate::error::TsdbError;
use crate::shard::WAL_DIR;
use crate::types::Lsn;

/// What a file of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogFileKind {
    /// Records as they came.
    Segment,
    /// The whole head at one moment; replaces all segments with a smaller number.
    Checkpoint,
}

/// One file of a shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogFile {
    /// What it is.
    pub kind: LogFileKind,
    /// Its number: of a checkpoint, the first segment that is still needed beside it.
    pub number: u64,
    /// Durable bytes.
    pub bytes: u64,
    /// Whether nothing is written to it any more.
    pub closed: bool,
}

impl LogFileKind {
    /// Where a file of this kind lies in a shard's directory.
    pub fn in_shard(self, shard_dir: &Path, number: u64) -> PathBuf {
        self.path(&shard_dir.join(WAL_DIR), number)
    }

    fn path(self, wal_dir: &Path, number: u64) -> PathBuf {
        match self {
            LogFileKind::Segment => segment_path(wal_dir, number),
            LogFileKind::Checkpoint => checkpoint_path(wal_dir, number),
        }
    }
}

impl WalSyncer {
    /// Makes the log durable and lists it: the newest checkpoint, then the segments it does not replace, ascending.
    /// Blocks for the disk.
    ///
    /// # Errors
    /// `TsdbError::Poisoned`; `Io` when the directory cannot be read.
    pub fn durable_files(&self) -> Result<Vec<LogFile>, TsdbError> {
        let Lsn(durable) = self.sync()?;
        let (current, offset) = (durable >> 32, durable & u64::from(u32::MAX));
        let dir = &self.0.dir;
        let (segments, checkpoints) = list(dir).map_err(TsdbError::io("list", dir))?;
        let newest = checkpoints.last().copied();
        let mut files = Vec::new();
        let sized = |kind: LogFileKind, number| match std::fs::metadata(kind.path(dir, number)) {
            Ok(m) => Ok(Some(m.len())),
            // A checkpoint took its place since the listing; the next listing has that one.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(TsdbError::io("stat", dir)(e)),
        };
        if let Some(number) = newest
            && let Some(bytes) = sized(LogFileKind::Checkpoint, number)?
        {
            files.push(LogFile { kind: LogFileKind::Checkpoint, number, bytes, closed: true });
        }
        for number in segments.into_iter().filter(|n| newest.is_none_or(|c| *n >= c) && *n <= current) {
            let closed = number < current;
            let bytes = if closed { sized(LogFileKind::Segment, number)? } else { Some(offset) };
            if let Some(bytes) = bytes {
                files.push(LogFile { kind: LogFileKind::Segment, number, bytes, closed });
            }
        }
        Ok(files)
    }

    /// Bytes `[from, from + len)` of a file of the log; `None` when a checkpoint has taken its place.
    ///
    /// # Errors
    /// `TsdbError::Io`, also when the file is shorter.
    pub fn read_file(
        &self,
        kind: LogFileKind,
        number: u64,
        from: u64,
        len: usize,
    ) -> Result<Option<Vec<u8>>, TsdbError> {
        let path = kind.path(&self.0.dir, number);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(TsdbError::io("open", &path)(e)),
        };
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, from).map_err(TsdbError::io("read", &path))?;
        Ok(Some(bytes))
    }
}
