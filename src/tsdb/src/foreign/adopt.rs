//! Taking a foreign block over: the same files under our meta file.
//!
//! Files are linked, not copied, where the file system can; they are never written again by either side. The
//! block keeps its id and lineage and gets a `thanos` section, without which it has no place in a bucket.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use koios_block::meta::{FileEntry, ThanosMeta};
use koios_block::{Block, BlockEntry, BlockError, BlockMeta, list_blocks, sync_dir};

use crate::error::TsdbError;

/// A block that does not open, and why.
pub type DamagedBlock = (BlockEntry, BlockError);

/// Blocks of a data directory that open, and those that do not.
///
/// # Errors
/// `TsdbError::Block` when the directory cannot be listed.
pub fn blocks_to_adopt(dir: &Path) -> Result<(Vec<BlockEntry>, Vec<DamagedBlock>), TsdbError> {
    let (mut sound, mut damaged) = (Vec::new(), Vec::new());
    for entry in list_blocks(dir)? {
        match Block::open(&entry.path) {
            Ok(_) => sound.push(entry),
            Err(e) => damaged.push((entry, e)),
        }
    }
    Ok((sound, damaged))
}

/// Builds the block again below `into`, with the `thanos` section filled in; the directory of that name appears
/// complete or not at all. An older one of the same name is replaced.
///
/// # Errors
/// `TsdbError::Io`, `Block`. Nothing is left behind under the block's name.
pub fn adopt_block(block: &BlockEntry, into: &Path, thanos: &ThanosMeta) -> Result<PathBuf, TsdbError> {
    let target = into.join(block.id.to_string());
    let tmp = into.join(format!("{}.tmp-for-creation", block.id));
    for old in [&tmp, &target] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(TsdbError::io("remove", old))?;
        }
    }
    let chunks = tmp.join("chunks");
    fs::create_dir_all(&chunks).map_err(TsdbError::io("create", &chunks))?;
    let mut files = Vec::new();
    let segments = block.path.join("chunks");
    for entry in fs::read_dir(&segments).map_err(TsdbError::io("list", &segments))? {
        let name = entry.map_err(TsdbError::io("list", &segments))?.file_name();
        files.push(format!("chunks/{}", name.to_string_lossy()));
    }
    files.sort();
    files.push("index".to_owned());
    if block.path.join("tombstones").exists() {
        files.push("tombstones".to_owned());
    }
    let mut entries = Vec::new();
    for name in &files {
        let (from, to) = (block.path.join(name), tmp.join(name));
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).map_err(TsdbError::io("copy", &from))?;
            File::open(&to).and_then(|f| f.sync_all()).map_err(TsdbError::io("sync", &to))?;
        }
        let size_bytes = fs::metadata(&to).map_err(TsdbError::io("stat", &to))?.len();
        if name != "tombstones" {
            entries.push(FileEntry { rel_path: name.clone(), size_bytes, ..FileEntry::default() });
        }
    }
    let mut meta = BlockMeta::read(&block.path)?;
    if meta.thanos.is_none() {
        entries.push(FileEntry { rel_path: "meta.json".to_owned(), ..FileEntry::default() });
        let segment_files = files.iter().filter_map(|f| f.strip_prefix("chunks/")).map(str::to_owned);
        meta.thanos =
            Some(ThanosMeta { segment_files: segment_files.collect(), files: entries, ..thanos.clone() });
    }
    sync_dir(&chunks)?;
    meta.write(&tmp)?;
    fs::rename(&tmp, &target).map_err(TsdbError::io("rename", &tmp))?;
    sync_dir(into)?;
    Ok(target)
}
