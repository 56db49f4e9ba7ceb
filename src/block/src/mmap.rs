//! Files as shared bytes, without reading them first.
//!
//! The one place of this crate that is `unsafe`: mapping a file is sound only while nobody truncates or
//! rewrites it. Blocks, and checkpoints of a head, are written under another name, renamed when complete, and never
//! changed again; deletion by unlink keeps the mapping alive. Of blocks that are fetched piece by piece, holes are filled through
//! the file while it is mapped: nobody reads a range before it is in `Extents`, and it is there only after it was written.
//! Every consumer of the bytes checks bounds and checksums.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use bytes::Bytes;

use crate::error::BlockError;

/// Maps a whole file read-only, one that nobody changes.
///
/// # Errors
/// `BlockError::Io` when it cannot be opened or mapped.
pub fn map_file(path: &Path) -> Result<Bytes, BlockError> {
    let file = File::open(path).map_err(BlockError::io("open", path))?;
    let len = file.metadata().map_err(BlockError::io("stat", path))?.len();
    if len == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: see the module's essay: such files are immutable once they carry their final name.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(BlockError::io("map", path))?;
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_outlives_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"hello").unwrap();
        let bytes = map_file(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&bytes.slice(1..3)[..], b"el");
        assert!(map_file(&path).unwrap_err().to_string().starts_with("open "));
        std::fs::write(&path, b"").unwrap();
        assert!(map_file(&path).unwrap().is_empty());
    }
}
