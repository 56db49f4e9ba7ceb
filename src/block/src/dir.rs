//! Directories of blocks: listing, leftovers of writers that died, durable directory entries.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use koios_model::BlockId;

use crate::error::BlockError;

/// Suffix of a directory that a writer has not finished.
pub(crate) const CREATING: &str = ".tmp-for-creation";
/// Suffix of a directory that is being removed.
pub(crate) const DELETING: &str = ".tmp-for-deletion";

/// A directory that is named like a block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockEntry {
    /// The ULID in its name.
    pub id: BlockId,
    /// Where it is.
    pub path: PathBuf,
}

/// The finished blocks in `dir`, oldest id first. Anything else in the directory is passed over.
///
/// # Errors
/// `BlockError::Io` when the directory cannot be read.
pub fn list_blocks(dir: &Path) -> Result<Vec<BlockEntry>, BlockError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(BlockError::io("list", dir))? {
        let entry = entry.map_err(BlockError::io("list", dir))?;
        let Some(id) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if entry.path().is_dir() {
            found.push(BlockEntry { id, path: entry.path() });
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what unfinished writers and deleters left in `dir`; answers how many directories that were.
///
/// # Errors
/// `BlockError::Io` when listing or removing fails.
pub fn remove_leftovers(dir: &Path) -> Result<usize, BlockError> {
    let mut removed = 0;
    for entry in fs::read_dir(dir).map_err(BlockError::io("list", dir))? {
        let entry = entry.map_err(BlockError::io("list", dir))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let stem = name.strip_suffix(CREATING).or_else(|| name.strip_suffix(DELETING));
        if stem.is_some_and(|s| s.parse::<BlockId>().is_ok()) {
            fs::remove_dir_all(entry.path()).map_err(BlockError::io("remove", &entry.path()))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes a finished block: it gives up its name first, so that it is there whole or not at all. A missing one is fine.
///
/// # Errors
/// `BlockError::Io`; what is left under the other name is removed by `remove_leftovers`.
pub fn remove_block(dir: &Path, id: BlockId) -> Result<(), BlockError> {
    let (path, dying) = (dir.join(id.to_string()), dir.join(format!("{id}{DELETING}")));
    if dying.exists() {
        fs::remove_dir_all(&dying).map_err(BlockError::io("remove", &dying))?;
    }
    koios_model::failpoint::pass("block removal");
    match fs::rename(&path, &dying) {
        Ok(()) => sync_dir(dir)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(BlockError::io("rename", &path)(e)),
    }
    koios_model::failpoint::pass("removed block clearing");
    fs::remove_dir_all(&dying).map_err(BlockError::io("remove", &dying))
}

/// Makes the block `block` appear below `into` too, as hard links or, across file systems, copies. It is there whole or
/// not at all; one that is there already stays.
///
/// # Errors
/// `BlockError::Io`.
pub fn link_block(block: &BlockEntry, into: &Path) -> Result<PathBuf, BlockError> {
    let (target, tmp) = (into.join(block.id.to_string()), into.join(format!("{}{CREATING}", block.id)));
    if target.exists() {
        return Ok(target);
    }
    if tmp.exists() {
        fs::remove_dir_all(&tmp).map_err(BlockError::io("remove", &tmp))?;
    }
    let chunks = tmp.join("chunks");
    fs::create_dir_all(&chunks).map_err(BlockError::io("create", &chunks))?;
    let segments = block.path.join("chunks");
    for entry in fs::read_dir(&segments).map_err(BlockError::io("list", &segments))? {
        let entry = entry.map_err(BlockError::io("list", &segments))?;
        link_file(&entry.path(), &chunks.join(entry.file_name()))?;
    }
    for name in ["index", "tombstones", crate::meta::META_FILE] {
        let from = block.path.join(name);
        if name != "tombstones" || from.exists() {
            link_file(&from, &tmp.join(name))?;
        }
    }
    sync_dir(&chunks)?;
    sync_dir(&tmp)?;
    koios_model::failpoint::pass("linked block rename");
    fs::rename(&tmp, &target).map_err(BlockError::io("rename", &tmp))?;
    sync_dir(into)?;
    Ok(target)
}

fn link_file(from: &Path, to: &Path) -> Result<(), BlockError> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map_err(BlockError::io("copy", from))?;
    File::open(to).and_then(|f| f.sync_all()).map_err(BlockError::io("sync", to))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// `BlockError::Io`.
pub fn sync_dir(dir: &Path) -> Result<(), BlockError> {
    koios_model::failpoint::pass("block directory sync");
    File::open(dir).and_then(|d| d.sync_all()).map_err(BlockError::io("sync", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_linked_and_removed_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (from, into) = (dir.path().join("from"), dir.path().join("into"));
        fs::create_dir_all(&into).unwrap();
        let id = BlockId::from_parts(1, 1);
        let path = from.join(id.to_string());
        fs::create_dir_all(path.join("chunks")).unwrap();
        for file in ["index", "meta.json", "chunks/000001"] {
            fs::write(path.join(file), file).unwrap();
        }
        fs::create_dir_all(into.join(format!("{id}{CREATING}/rubbish"))).unwrap();
        let block = list_blocks(&from).unwrap().remove(0);
        for _ in 0..2 {
            let linked = link_block(&block, &into).unwrap();
            assert_eq!(fs::read(linked.join("chunks/000001")).unwrap(), b"chunks/000001");
            assert!(!linked.join("rubbish").exists() && !linked.join("tombstones").exists());
        }
        fs::create_dir_all(into.join(format!("{id}{DELETING}"))).unwrap();
        remove_block(&into, id).unwrap();
        remove_block(&into, id).unwrap();
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
        assert!(path.join("index").exists(), "the other name is not touched");
    }
}
