//! Writing a block: series in label order in, a durable directory out.
//!
//! Works in `<parent>/<ULID>.tmp-for-creation`; the directory gets its final name only after every file and
//! the directory itself are synced. Dropped unfinished, it removes what it wrote.

use std::fs;
use std::path::{Path, PathBuf};

use koios_chunk::{Chunk, Encoding};
use koios_model::{BlockId, Labels, failpoint};
use serde_json::json;

use crate::dir::{CREATING, sync_dir};
use crate::error::BlockError;
use crate::index::{ChunkRef, IndexWriter, SortedIndexWriter};
use crate::meta::{BlockMeta, BlockMetaExtras, BlockStats, Compaction, FileEntry, META_FILE};
use crate::segment::SegmentWriter;
use crate::tombstones::Tombstones;

/// Most bytes that a chunk takes in a segment beside its data: length, encoding, checksum.
const CHUNK_FRAME_BYTES: u64 = 5 + 1 + 4;

/// A block that is being written.
pub struct BlockWriter {
    id: BlockId,
    parent: PathBuf,
    tmp: TmpDir,
    segments: SegmentWriter,
    index: Index,
    chunk_max: u64,
    stats: BlockStats,
    refs: Vec<ChunkRef>,
}

/// How the index comes to be.
enum Index {
    /// Texts are learned from series.
    Learning(Box<IndexWriter>),
    /// All texts were known.
    Sorted(Box<SortedIndexWriter>),
}

impl BlockWriter {
    /// As `create`, for a block whose label names and values are known beforehand and come in order: memory then does not
    /// grow with them, and the meta file says how large series and chunks get.
    ///
    /// # Errors
    /// `BlockError::Io`, `Write` when texts are not in order, and what `texts` says.
    pub fn create_sorted<'a>(
        parent: &Path,
        id: BlockId,
        texts: impl Iterator<Item = Result<&'a str, BlockError>>,
    ) -> Result<Self, BlockError> {
        let tmp = TmpDir::create(parent, id)?;
        let index = Index::Sorted(Box::new(SortedIndexWriter::create(&tmp.path, texts)?));
        Ok(Self::over(parent, id, tmp, None, index))
    }

    fn over(parent: &Path, id: BlockId, tmp: TmpDir, limit: Option<u64>, index: Index) -> Self {
        Self {
            id,
            parent: parent.to_path_buf(),
            segments: SegmentWriter::new(&tmp.path, limit),
            index,
            chunk_max: 0,
            tmp,
            stats: BlockStats::default(),
            refs: Vec::new(),
        }
    }

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
        let tmp = TmpDir::create(parent, id)?;
        let index = Index::Learning(Box::new(IndexWriter::create(&tmp.path)?));
        Ok(Self::over(parent, id, tmp, limit, index))
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
        match &mut self.index {
            Index::Learning(index) => index.add_series(labels, &self.refs)?,
            Index::Sorted(index) => index.add_series(labels, &self.refs)?,
        }
        self.stats.num_series += 1;
        Ok(())
    }

    fn count(&mut self, chunk: &Chunk) {
        let samples = chunk.sample_count().unwrap_or(0) as u64;
        self.chunk_max = self.chunk_max.max(chunk.data.len() as u64 + CHUNK_FRAME_BYTES);
        self.stats.num_chunks += 1;
        self.stats.num_samples += samples;
        match chunk.encoding {
            Encoding::Xor | Encoding::Xor2 => self.stats.num_float_samples += samples,
            Encoding::Aggregate => {}
            _ => self.stats.num_histogram_samples += samples,
        }
    }

    /// Bytes of the index so far, without postings.
    pub fn index_bytes(&self) -> u64 {
        match &self.index {
            Index::Learning(index) => index.series_bytes(),
            Index::Sorted(index) => index.bytes(),
        }
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
        let (index_bytes, series_max) = match self.index {
            Index::Learning(index) => (index.finish()?, None),
            Index::Sorted(index) => {
                let series_max = index.series_max();
                (index.finish()?, Some(series_max))
            }
        };
        write_synced(&tmp.join("tombstones"), &Tombstones::default().encode())?;

        let sources = if extras.sources.is_empty() { vec![self.id] } else { extras.sources };
        let mut thanos = extras.thanos;
        if let Some(t) = &mut thanos {
            t.segment_files =
                files.iter().filter_map(|f| f.rel_path.strip_prefix("chunks/").map(str::to_owned)).collect();
            files.push(FileEntry { rel_path: "index".into(), size_bytes: index_bytes, ..Default::default() });
            files.push(FileEntry { rel_path: META_FILE.into(), ..Default::default() });
            t.files = files;
            if let Some(series_max) = series_max {
                let sizes = json!({"series_max_size": series_max, "chunk_max_size": self.chunk_max});
                t.other.insert("index_stats".to_owned(), sizes);
            }
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

impl TmpDir {
    /// Makes it, with a directory for chunks; what an earlier try left is removed.
    fn create(parent: &Path, id: BlockId) -> Result<Self, BlockError> {
        let path = parent.join(format!("{id}{CREATING}"));
        if path.exists() {
            fs::remove_dir_all(&path).map_err(BlockError::io("remove", &path))?;
        }
        let tmp = Self { path, finished: false };
        let chunks = tmp.path.join("chunks");
        fs::create_dir_all(&chunks).map_err(BlockError::io("create", &chunks))?;
        Ok(tmp)
    }
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
