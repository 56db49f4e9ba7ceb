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

/// Makes the names in a directory durable.
///
/// # Errors
/// `BlockError::Io`.
pub fn sync_dir(dir: &Path) -> Result<(), BlockError> {
    koios_model::failpoint::pass("block directory sync");
    File::open(dir).and_then(|d| d.sync_all()).map_err(BlockError::io("sync", dir))
}
