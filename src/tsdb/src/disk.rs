//! The disk as the log sees it, so that a test can make it full or broken.
//!
//! Only what must survive faults goes through here: creating segments, writing, syncing and cutting them.
//! Invariant: writes are positional, so a failed write never moves where the next one goes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use koios_model::failpoint;

/// An open segment.
pub trait DiskFile: Send + Sync {
    /// Writes all bytes at a position.
    ///
    /// # Errors
    /// The system's; some of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable, the size included.
    ///
    /// # Errors
    /// The system's; whether earlier writes are durable is then unknown.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// The system's.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Where segments are created.
pub trait Disk: Send + Sync {
    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The operating system's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

/// A file, and what a test calls writing and syncing it.
struct OsFile {
    file: File,
    write: &'static str,
    sync: &'static str,
}

impl Disk for OsDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        failpoint::pass("log create");
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let checkpoint = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("checkpoint"));
        let (write, sync) =
            if checkpoint { ("checkpoint write", "checkpoint sync") } else { ("log write", "log sync") };
        Ok(Arc::new(OsFile { file, write, sync }))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        failpoint::pass("log directory sync");
        File::open(dir)?.sync_all()
    }
}

impl DiskFile for OsFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        failpoint::write(self.write, bytes, |part| self.file.write_all_at(part, offset))
    }

    fn sync(&self) -> io::Result<()> {
        failpoint::pass(self.sync);
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        failpoint::pass("log cut");
        self.file.set_len(len)
    }
}
