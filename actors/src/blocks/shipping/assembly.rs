//! The files of a lost node's logs, put together again from shipped objects.
//!
//! Objects come in the order of their numbers. Invariants: a file has a prefix of the bytes it had on its node; a
//! checkpoint that did not come whole is removed, so that replay never meets half of one. Bound: a file never grows
//! beyond `FILE_BYTES_MAX`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::FileKey;
use super::bundle::{self, Part};

/// Largest file of a log.
const FILE_BYTES_MAX: u64 = 1 << 40;

struct Growing {
    file: File,
    bytes: u64,
    whole: bool,
}

/// The files so far.
pub struct Assembly {
    dir: PathBuf,
    files: BTreeMap<FileKey, Growing>,
    /// External labels of the lost node, as its last object says them.
    pub external: BTreeMap<String, String>,
    /// What the objects hold is all that the node acknowledged of times before this.
    pub settled: Option<i64>,
}

impl Assembly {
    /// In a directory, which is emptied first.
    ///
    /// # Errors
    /// What the disk says.
    pub fn new(dir: &Path) -> Result<Self, String> {
        let _ = std::fs::remove_dir_all(dir);
        std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), files: BTreeMap::new(), external: BTreeMap::new(), settled: None })
    }

    /// Takes the next object.
    ///
    /// # Errors
    /// What is wrong with it, or what the disk says.
    pub fn add(&mut self, object: &[u8]) -> Result<(), String> {
        let (index, stretches) = bundle::read(object)?;
        for (part, bytes) in index.parts.iter().zip(stretches) {
            self.put(part, bytes)?;
        }
        self.external = index.external;
        self.settled = self.settled.max(index.settled);
        Ok(())
    }

    fn put(&mut self, part: &Part, bytes: &[u8]) -> Result<(), String> {
        let path = part.file.kind().in_shard(&self.shard_dir(part.file.shard), part.file.number);
        let failed = |e: std::io::Error| format!("{}: {e}", path.display());
        if !self.files.contains_key(&part.file) {
            std::fs::create_dir_all(path.parent().unwrap_or(&self.dir)).map_err(failed)?;
            let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
            self.files.insert(part.file, Growing { file, bytes: 0, whole: false });
        }
        let Some(growing) = self.files.get_mut(&part.file) else { return Ok(()) };
        // An object between was removed because a block or a checkpoint has what it held.
        if part.offset > growing.bytes || part.end() > FILE_BYTES_MAX {
            return Ok(());
        }
        growing.file.write_all_at(bytes, part.offset).map_err(failed)?;
        growing.bytes = growing.bytes.max(part.end());
        growing.whole |= part.last;
        Ok(())
    }

    fn shard_dir(&self, shard: u16) -> PathBuf {
        self.dir.join(format!("shard-{shard}"))
    }

    /// The shards that can be opened: number and directory.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(self) -> Result<Vec<(u16, PathBuf)>, String> {
        let mut shards = Vec::new();
        for (key, growing) in &self.files {
            let dir = self.shard_dir(key.shard);
            if key.checkpoint && !growing.whole {
                let path = key.kind().in_shard(&dir, key.number);
                std::fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            if !shards.contains(&(key.shard, dir.clone())) {
                shards.push((key.shard, dir));
            }
        }
        Ok(shards)
    }
}
