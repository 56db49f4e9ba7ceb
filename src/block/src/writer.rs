//! Writing a block: series in label order in, a durable directory out.
//!
//! Works in `<parent>/<ULID>.tmp-for-creation`; the directory gets its final name only after every file and
//! the directory itself are synced. Dropped unfinished, it removes what it wrote.

use std::fs;
use std::path::{Path, PathBuf};

use koios_chunk::{Chunk, Encoding};
use koios_model::{BlockId, Labels, failpoint};

use crate::dir::{CREATING, sync_dir};
use crate::error::BlockError;
use crate::index::{ChunkRef, IndexWriter};
use crate::meta::{BlockMeta, BlockMetaExtras, BlockStats, Compaction, FileEntry, META_FILE};
use crate::segment::SegmentWriter;
use crate::tombstones::Tombstones;

/// A block that is being written.
pub struct BlockWriter {
    id: BlockId,
    parent: PathBuf,
    tmp: TmpDir,
    segments: SegmentWriter,
    index: IndexWriter,
    stats: BlockStats,
    refs: Vec<ChunkRef>,
}

impl BlockWriter {
    /// Starts block `id` below `parent`, which must exist.
    ///
    /// # Errors
    /// `BlockError::Io`.
    pub fn create(parent: &Path, id: BlockId) -> Result<Self, BlockError> {
        Self::with_segment_limit(parent, id, None)
    }

    /// As `create`, with a limit on the bytes of one chunk segment other than 512 MiB.
    ///
    /// # Errors
    /// `BlockError::Io`.
    pub fn with_segment_limit(parent: &Path, id: BlockId, limit: Option<u64>) -> Result<Self, BlockError> {
        let tmp = parent.join(format!("{id}{CREATING}"));
        if tmp.exists() {
            fs::remove_dir_all(&tmp).map_err(BlockError::io("remove", &tmp))?;
        }
        let tmp = TmpDir { path: tmp, finished: false };
        let chunks = tmp.path.join("chunks");
        fs::create_dir_all(&chunks).map_err(BlockError::io("create", &chunks))?;
        Ok(Self {
            id,
            parent: parent.to_path_buf(),
            segments: SegmentWriter::new(&tmp.path, limit),
            index: IndexWriter::create(&tmp.path)?,
            tmp,
            stats: BlockStats::default(),
            refs: Vec::new(),
        })
    }

    /// Adds the next series in label order, its chunks in time order and without overlap.
    ///
    /// # Errors
    /// `BlockError::Write` when an order is broken, `Io`.
    pub fn add_series(&mut self, labels: &Labels, chunks: &[Chunk]) -> Result<(), BlockError> {
        self.refs.clear();
        for chunk in chunks {
            self.refs.push(self.segments.add(chunk)?);
            self.count(chunk);
        }
        self.index.add_series(labels, &self.refs)?;
        self.stats.num_series += 1;
        Ok(())
    }

    fn count(&mut self, chunk: &Chunk) {
        let samples = chunk.sample_count().unwrap_or(0) as u64;
        self.stats.num_chunks += 1;
        self.stats.num_samples += samples;
        match chunk.encoding {
            Encoding::Xor | Encoding::Xor2 => self.stats.num_float_samples += samples,
            Encoding::Aggregate => {}
            _ => self.stats.num_histogram_samples += samples,
        }
    }

    /// Bytes of the index so far, without symbols and postings.
    pub fn index_bytes(&self) -> u64 {
        self.index.series_bytes()
    }

    /// Number of series so far.
    pub fn series(&self) -> u64 {
        self.stats.num_series
    }

    /// Completes the block for the range `[min_time, max_time)` and gives it its name.
    ///
    /// # Errors
    /// `BlockError::Io`, `Write`. The temporary directory is then removed.
    pub fn finish(
        mut self,
        min_time: i64,
        max_time: i64,
        extras: BlockMetaExtras,
    ) -> Result<BlockMeta, BlockError> {
        let tmp = self.tmp.path.clone();
        let mut files = self.segments.finish()?;
        let index_bytes = self.index.finish()?;
        write_synced(&tmp.join("tombstones"), &Tombstones::default().encode())?;

        let sources = if extras.sources.is_empty() { vec![self.id] } else { extras.sources };
        let mut thanos = extras.thanos;
        if let Some(t) = &mut thanos {
            t.segment_files =
                files.iter().filter_map(|f| f.rel_path.strip_prefix("chunks/").map(str::to_owned)).collect();
            files.push(FileEntry { rel_path: "index".into(), size_bytes: index_bytes, ..Default::default() });
            files.push(FileEntry { rel_path: META_FILE.into(), ..Default::default() });
            t.files = files;
        }
        let mut meta = BlockMeta {
            ulid: self.id,
            min_time,
            max_time,
            stats: self.stats,
            compaction: Compaction {
                level: extras.level.max(1),
                sources,
                parents: extras.parents,
                hints: extras.hints,
                ..Compaction::default()
            },
            version: 1,
            thanos,
            other: Default::default(),
        };
        if let Some((number, count)) = extras.part {
            meta.set_part(number, count);
        }
        meta.write(&tmp)?;
        let path = self.parent.join(self.id.to_string());
        failpoint::pass("block rename");
        fs::rename(&tmp, &path).map_err(BlockError::io("rename", &tmp))?;
        self.tmp.finished = true;
        sync_dir(&self.parent)?;
        Ok(meta)
    }
}

/// The directory under its temporary name.
struct TmpDir {
    path: PathBuf,
    /// Renamed: nothing left to remove.
    finished: bool,
}

impl Drop for TmpDir {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: what stays behind is removed at the next start by `remove_leftovers`.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), BlockError> {
    failpoint::write("tombstones write", bytes, |part| fs::write(path, part))
        .map_err(BlockError::io("write", path))?;
    failpoint::pass("tombstones sync");
    fs::File::open(path).and_then(|f| f.sync_all()).map_err(BlockError::io("sync", path))
}
