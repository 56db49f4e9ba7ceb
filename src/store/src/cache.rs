//! Fetched blocks on disk.
//!
//! Owns the cache directory of a bucket that is none of this machine's own: which blocks lie there, their bytes, and which go
//! when there are too many: those unused longest. Refuses to fetch or open. What an answer reads stays; a mapped file
//! outlives its name anyway. Bound: `bytes_max`, beside what answers read and the block that came last.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use koios_model::BlockId;
use koios_objstore::{ObjstoreError, transfer};
use parking_lot::Mutex;

struct Held {
    bytes: u64,
    used: u64,
}

/// The directory.
pub(crate) struct Cache {
    dir: PathBuf,
    pub(crate) bytes_max: u64,
    /// `None` until somebody looked.
    held: Mutex<Option<BTreeMap<BlockId, Held>>>,
}

impl Cache {
    pub(crate) fn new(dir: PathBuf, bytes_max: u64) -> Self {
        Self { dir, bytes_max, held: Mutex::default() }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn make_dir(&self) -> Result<(), ObjstoreError> {
        std::fs::create_dir_all(&self.dir).map_err(|e| ObjstoreError::Local {
            op: "create",
            path: self.dir.display().to_string(),
            detail: e.to_string(),
        })
    }

    /// Where the block lies, which counts as a use.
    pub(crate) fn holds(&self, id: BlockId, tick: u64) -> Option<PathBuf> {
        self.with(|held| {
            held.get_mut(&id)?.used = tick;
            Some(self.dir.join(id.to_string()))
        })
    }

    /// Bytes of all blocks.
    pub(crate) fn bytes(&self) -> u64 {
        self.with(|held| held.values().map(|h| h.bytes).sum())
    }

    /// A block came; others go as far as `let_go` allows, those unused longest first. `last_use` is newer than the
    /// last opening where a block has stayed open.
    pub(crate) fn add(
        &self,
        id: BlockId,
        tick: u64,
        last_use: impl Fn(BlockId) -> Option<u64>,
        let_go: impl Fn(BlockId) -> bool,
    ) {
        let bytes = size(&self.dir.join(id.to_string()));
        self.with(|held| {
            held.insert(id, Held { bytes, used: tick });
            let mut sum: u64 = held.values().map(|h| h.bytes).sum();
            let used = |(id, h): (&BlockId, &Held)| (h.used.max(last_use(*id).unwrap_or(0)), *id);
            let mut oldest: Vec<(u64, BlockId)> = held.iter().map(used).filter(|(_, o)| *o != id).collect();
            oldest.sort_unstable();
            for (_, other) in oldest {
                if sum <= self.bytes_max {
                    break;
                }
                if let_go(other) {
                    sum -= held.remove(&other).map_or(0, |h| h.bytes);
                    self.clear(other);
                }
            }
        });
    }

    /// Removes a block.
    pub(crate) fn remove(&self, id: BlockId) {
        self.with(|held| held.remove(&id));
        self.clear(id);
    }

    /// Removes the others.
    pub(crate) fn retain(&self, keep: impl Fn(BlockId) -> bool) {
        let gone: Vec<BlockId> = self.with(|held| held.keys().copied().filter(|id| !keep(*id)).collect());
        gone.into_iter().for_each(|id| self.remove(id));
    }

    /// Renamed first: half a block never has a block's name.
    fn clear(&self, id: BlockId) {
        let (dir, away) = (self.dir.join(id.to_string()), self.dir.join(format!("{id}.removed.tmp")));
        let _ = std::fs::remove_dir_all(&away);
        if std::fs::rename(&dir, &away).is_ok() {
            let _ = std::fs::remove_dir_all(&away);
        }
    }

    fn with<T>(&self, use_of: impl FnOnce(&mut BTreeMap<BlockId, Held>) -> T) -> T {
        use_of(self.held.lock().get_or_insert_with(|| self.read()))
    }

    /// What an earlier run left; what it did not finish goes.
    fn read(&self) -> BTreeMap<BlockId, Held> {
        let mut held = BTreeMap::new();
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            match name.parse::<BlockId>() {
                Ok(id) if path.join(transfer::META).exists() => {
                    held.insert(id, Held { bytes: size(&path), used: 0 });
                }
                Ok(_) => drop(std::fs::remove_dir_all(&path)),
                Err(_) if name.ends_with(".tmp") => drop(std::fs::remove_dir_all(&path)),
                Err(_) => {}
            }
        }
        held
    }
}

/// Bytes of the files in a block directory and one level below.
fn size(dir: &Path) -> u64 {
    let files = |d: &Path| std::fs::read_dir(d).into_iter().flatten().flatten().collect::<Vec<_>>();
    // What it takes, not how long it is: a hole takes nothing.
    let bytes =
        |e: &std::fs::DirEntry| e.metadata().map_or(0, |m| if m.is_file() { m.blocks() * 512 } else { 0 });
    let inner = |e: &std::fs::DirEntry| match e.path().is_dir() {
        true => files(&e.path()).iter().map(bytes).sum(),
        false => bytes(e),
    };
    files(dir).iter().map(inner).sum()
}
