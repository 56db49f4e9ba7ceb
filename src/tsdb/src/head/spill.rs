//! Closed chunks on disk instead of in memory: files that have no name and are mapped.
//!
//! A file is mapped whole when it is made and loses its name at once; chunks are appended by ordinary writes, and what
//! is handed out are slices of the map, so readers see bytes as ever while the system may drop the pages. The last
//! slice that goes takes the file with it. Nothing here is read again after a restart: the log and its checkpoint
//! have everything. Refuses nothing: where the disk does, chunks stay in memory.
//!
//! The one place of this crate that is `unsafe`: a mapping is sound only while nobody shortens the file or writes
//! where somebody reads. Nobody else can name the file, and a byte that was handed out is never written again.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::closed::Stretch;

/// Size of a file; its disk space is used as it fills.
const FILE_BYTES: u64 = 16 << 20;
/// Name of a file during the moment in which it has one.
const NAME: &str = "spill.tmp";

struct Current {
    file: File,
    map: Arc<Bytes>,
    used: u64,
}

/// Where a shard's closed chunks go.
pub(crate) struct Spill {
    dir: PathBuf,
    on: bool,
    current: Option<Current>,
    /// The last attempt failed; said once.
    failing: bool,
}

impl Current {
    fn create(dir: &Path, bytes: u64) -> io::Result<Self> {
        let path = dir.join(NAME);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let made = file.set_len(bytes);
        fs::remove_file(&path)?;
        made?;
        // SAFETY: see the module's essay: the file has its full length and no name, and `write` only writes behind
        // what was handed out.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        Ok(Self { file, map: Arc::new(Bytes::from_owner(map)), used: 0 })
    }
}

impl Spill {
    /// Files come and go in `dir`, unless `on` is false.
    pub(crate) fn new(dir: &Path, on: bool) -> Self {
        Self { dir: dir.to_owned(), on, current: None, failing: false }
    }

    /// Whether there is any use in calling `write`.
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Writes bytes and answers where they are in a map; nothing where the disk refuses.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Option<Stretch> {
        match self.try_write(bytes) {
            Ok(slice) => {
                self.failing = false;
                Some(slice)
            }
            Err(e) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(dir = %self.dir.display(), error = %e, "closed chunks stay in memory");
                }
                None
            }
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<Stretch> {
        let len = bytes.len() as u64;
        let current = match &mut self.current {
            Some(current) if current.used + len <= current.map.len() as u64 => current,
            place => place.insert(Current::create(&self.dir, FILE_BYTES.max(len))?),
        };
        let at = u32::try_from(current.used).map_err(io::Error::other)?;
        // What a failed write left behind is behind `used`, so nobody has it.
        current.file.write_all_at(bytes, current.used)?;
        current.used += len;
        Ok(Stretch { whole: current.map.clone(), at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(s: &Stretch, len: usize) -> &[u8] {
        &s.whole[s.at as usize..][..len]
    }

    #[test]
    fn what_is_written_is_read_and_outlives_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path(), true);
        let parts: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; 1 << 20]).collect();
        let written: Vec<Stretch> = parts.iter().map(|p| spill.write(p).unwrap()).collect();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "a file still has its name");
        drop((spill, dir));
        assert!(written.iter().zip(&parts).all(|(s, p)| bytes(s, p.len()) == p));
    }

    #[test]
    fn larger_than_a_file_and_nothing_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path(), true);
        let large = vec![7; FILE_BYTES as usize + 1];
        assert_eq!(bytes(&spill.write(b"").unwrap(), 0), b"");
        assert_eq!(bytes(&spill.write(&large).unwrap(), large.len()), large);
        assert_eq!(bytes(&spill.write(b"more").unwrap(), 4), b"more");
    }

    #[test]
    fn a_disk_that_refuses_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let away = dir.path().join("away");
        let mut spill = Spill::new(&away, true);
        assert!(spill.write(b"x").is_none() && spill.failing);
        fs::create_dir(&away).unwrap();
        assert_eq!(bytes(&spill.write(b"x").unwrap(), 1), b"x");
        assert!(!spill.failing);
    }
}
