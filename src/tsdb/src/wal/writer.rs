//! Writing the log: one positional write per batch, a new segment when the current one is full.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::{HEADER_BYTES, Kind, header, segment_path};
use super::syncer::{Shared, WalSyncer};
use crate::disk::{Disk, DiskFile};
use crate::error::TsdbError;
use crate::types::Lsn;

/// The writing end of a shard's log.
pub(crate) struct Wal {
    shard: u16,
    dir: PathBuf,
    shared: Arc<Shared>,
    file: Arc<dyn DiskFile>,
    segment: u64,
    offset: u64,
    segment_bytes: u64,
    /// Bytes of a failed write may stand behind `offset`; they must go before anything else is written.
    leftovers: bool,
}

impl Wal {
    /// Begins segment `segment`, whose file must not exist.
    ///
    /// # Errors
    /// `TsdbError::Unavailable`.
    pub(crate) fn start(
        shard: u16,
        dir: &Path,
        disk: Arc<dyn Disk>,
        segment: u64,
        segment_bytes: u64,
    ) -> Result<Self, TsdbError> {
        let shared = Arc::new(Shared::new(dir.to_path_buf(), disk));
        let file = create(shard, &shared, dir, segment)?;
        let wal = Self {
            shard,
            dir: dir.to_path_buf(),
            shared,
            file,
            segment,
            offset: HEADER_BYTES as u64,
            segment_bytes,
            leftovers: false,
        };
        wal.shared.set_written(wal.lsn());
        Ok(wal)
    }

    pub(crate) fn lsn(&self) -> Lsn {
        Lsn::new(self.segment, self.offset)
    }

    pub(crate) fn segment(&self) -> u64 {
        self.segment
    }

    pub(crate) fn syncer(&self) -> WalSyncer {
        WalSyncer(self.shared.clone())
    }

    /// Begins a new segment when the current one is full. To be called before a batch is encoded, because the
    /// encoding of values begins anew with each segment.
    ///
    /// # Errors
    /// `TsdbError::Unavailable`, `Poisoned`.
    pub(crate) fn prepare(&mut self) -> Result<(), TsdbError> {
        self.shared.check()?;
        self.cut_leftovers()?;
        if self.offset < self.segment_bytes { Ok(()) } else { self.rotate() }
    }

    /// Begins a new segment.
    ///
    /// # Errors
    /// `TsdbError::Unavailable`, `Poisoned`; the old segment then stays the current one.
    pub(crate) fn rotate(&mut self) -> Result<(), TsdbError> {
        self.shared.check()?;
        self.cut_leftovers()?;
        let next = self.segment + 1;
        self.file = create(self.shard, &self.shared, &self.dir, next)?;
        self.segment = next;
        self.offset = HEADER_BYTES as u64;
        self.shared.set_written(self.lsn());
        Ok(())
    }

    /// Removes what a failed write left. Tried again before every later write: on a file system that became
    /// read-only it works once it can be written again.
    fn cut_leftovers(&mut self) -> Result<(), TsdbError> {
        if self.leftovers {
            let cut = self.file.set_len(self.offset);
            cut.map_err(|source| TsdbError::Unavailable { shard: self.shard, source })?;
            self.leftovers = false;
        }
        Ok(())
    }

    /// Goes on in a new segment with a log that has not failed. What the old segments hold is unknown and must
    /// be written again.
    ///
    /// # Errors
    /// `TsdbError::Unavailable`; nothing has changed then.
    pub(crate) fn abandon(&self) -> Result<Self, TsdbError> {
        let disk = self.shared.disk.clone();
        Self::start(self.shard, &self.dir, disk, self.segment + 1, self.segment_bytes)
    }

    /// Appends frames. Either all of them are in the file or none counts: what a failed write left is removed, at
    /// the latest before the next one.
    ///
    /// # Errors
    /// `TsdbError::Unavailable` when nothing was written, `Poisoned` after a failed sync.
    pub(crate) fn write(&mut self, frames: &[u8]) -> Result<Lsn, TsdbError> {
        self.shared.check()?;
        self.cut_leftovers()?;
        if let Err(source) = self.file.write_at(frames, self.offset) {
            self.leftovers = true;
            if let Err(e) = self.cut_leftovers() {
                tracing::warn!(shard = self.shard, error = %e, "a failed write cannot be undone yet");
            }
            return Err(TsdbError::Unavailable { shard: self.shard, source });
        }
        self.offset += frames.len() as u64;
        let lsn = self.lsn();
        self.shared.set_written(lsn);
        Ok(lsn)
    }
}

/// Creates a segment with its header and makes it the one that syncs cover.
fn create(shard: u16, shared: &Shared, dir: &Path, number: u64) -> Result<Arc<dyn DiskFile>, TsdbError> {
    let path = segment_path(dir, number);
    let unavailable = |source| TsdbError::Unavailable { shard, source };
    let file = shared.disk.create(&path).map_err(unavailable)?;
    if let Err(e) = file.write_at(&header(Kind::Log, number), 0) {
        // The name must be free for the next attempt.
        let _ = std::fs::remove_file(&path);
        return Err(unavailable(e));
    }
    let mut files = shared.files.lock();
    if let Some(full) = files.current.replace(file.clone()) {
        files.retired.push(full);
    }
    files.new_names = true;
    Ok(file)
}
