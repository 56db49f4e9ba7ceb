//! A block that is open for reading.
//!
//! Owns the mapped files of one block directory and answers selections with whole chunks, deleted ranges taken
//! out. Invariant: everything that leaves here has passed its checksum; nothing is ever written.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use koios_chunk::{Chunk, Encoding, SeriesChunks};
use koios_model::{Columns, Labels, Matcher, Slot};

use crate::error::BlockError;
use crate::extents::Present;
use crate::index::{ChunkRef, INDEX_FILE, IndexReader, LastLabels};
use crate::meta::BlockMeta;
use crate::mmap::map_file;
use crate::postings::PostingsSource as _;
use crate::segment::SegmentReader;
use crate::tombstones::{Interval, Tombstones};

/// An open block.
#[derive(Debug)]
pub struct Block {
    dir: PathBuf,
    meta: BlockMeta,
    index: IndexReader,
    segments: SegmentReader,
    tombstones: Tombstones,
    slot: Slot,
}

/// What `Block::verify` counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Series read.
    pub series: u64,
    /// Chunks whose checksum and samples were read.
    pub chunks: u64,
    /// Samples counted by chunk headers.
    pub samples: u64,
    /// Chunks whose encoding is not decoded yet: checksum only.
    pub opaque_chunks: u64,
}

/// By label: how many series have it, and the sum of their numbers.
type Wanted = HashMap<(String, String), (u64, u64)>;

impl Block {
    /// Opens a block directory: meta, table of contents, symbols, postings table, segment headers, tombstones.
    ///
    /// # Errors
    /// `BlockError`.
    pub fn open(dir: &Path) -> Result<Self, BlockError> {
        let meta = BlockMeta::read(dir)?;
        let index = IndexReader::open(map_file(&dir.join(INDEX_FILE))?)?;
        Self::over(dir, meta, index, SegmentReader::open(dir)?)
    }

    /// Opens a block directory of whose files only a part is here: of the index at least the parts that `index_parts` names, of
    /// each segment whatever its `Present` says. The files have their full length.
    ///
    /// # Errors
    /// `BlockError`.
    pub fn open_sparse(
        dir: &Path,
        index: Arc<Present>,
        segments: Vec<Arc<Present>>,
    ) -> Result<Self, BlockError> {
        let meta = BlockMeta::read(dir)?;
        let read = IndexReader::open(map_file(&dir.join(INDEX_FILE))?)?.with_present(index);
        Self::over(dir, meta, read, SegmentReader::open_sparse(dir, segments)?)
    }

    fn over(
        dir: &Path,
        meta: BlockMeta,
        index: IndexReader,
        segments: SegmentReader,
    ) -> Result<Self, BlockError> {
        let tombstones = Tombstones::read(dir)?;
        let slot = meta.slot();
        Ok(Self { dir: dir.to_path_buf(), meta, index, segments, tombstones, slot })
    }

    /// The same block, its series reported under another slot than the label `replica` says.
    #[must_use]
    pub fn with_slot(mut self, slot: Slot) -> Self {
        self.slot = slot;
        self
    }

    /// The block's description.
    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its index.
    pub fn index(&self) -> &IndexReader {
        &self.index
    }

    /// Series that satisfy all matchers and have a chunk overlapping `mint..=maxt`, in label order, with those
    /// chunks whole. Aggregate chunks come as they are stored.
    ///
    /// # Errors
    /// `BlockError` for the first damage met.
    pub fn select(
        &self,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
    ) -> Result<Vec<SeriesChunks>, BlockError> {
        let mut out = Vec::new();
        if !self.meta.overlaps(mint, maxt) {
            return Ok(out);
        }
        let (mut refs, mut last) = (Vec::new(), LastLabels::default());
        for number in self.index.select(matchers)? {
            let found = self.index.series_in_range(number, mint, maxt, &mut refs, &mut last)?;
            let Some(labels) = found else { continue };
            let chunks = self.read_chunks(number, &refs)?;
            let chunks: Vec<Chunk> = chunks.into_iter().filter(|c| c.overlaps(mint, maxt)).collect();
            if !chunks.is_empty() {
                out.push(SeriesChunks { labels, slot: self.slot, chunks });
            }
        }
        Ok(out)
    }

    /// One series whole: its labels and its chunks in time order, deleted ranges taken out. A chunk that is not
    /// touched by a deletion is a slice of the file.
    ///
    /// # Errors
    /// `BlockError` for the first damage met.
    pub fn series_chunks(&self, number: u32) -> Result<(Labels, Vec<Chunk>), BlockError> {
        let entry = self.index.series(number)?;
        let chunks = self.read_chunks(number, &entry.chunks)?;
        Ok((entry.labels, chunks))
    }

    /// The same for whoever goes through a block series by series: `last` is what the call before left there, `None` for a
    /// series without chunks.
    ///
    /// # Errors
    /// `BlockError` for the first damage met.
    pub fn next_series_chunks<'a>(
        &'a self,
        number: u32,
        last: &mut LastLabels<'a>,
    ) -> Result<Option<(Labels, Vec<Chunk>)>, BlockError> {
        let mut refs = Vec::new();
        let found = self.index.series_in_range(number, i64::MIN, i64::MAX, &mut refs, last)?;
        let Some(labels) = found else { return Ok(None) };
        Ok(Some((labels, self.read_chunks(number, &refs)?)))
    }

    /// What is deleted in it.
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// Bytes of its index and chunk segments.
    pub fn bytes(&self) -> u64 {
        self.index.byte_len() + self.segments.total_bytes()
    }

    pub(crate) fn segments(&self) -> &SegmentReader {
        &self.segments
    }

    /// The slot that its series are reported under.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    pub(crate) fn read_chunks(&self, number: u32, refs: &[ChunkRef]) -> Result<Vec<Chunk>, BlockError> {
        let deleted = self.tombstones.get(u64::from(number));
        let mut chunks = Vec::with_capacity(refs.len());
        for at in refs {
            let covering = |i: &Interval| i.mint <= at.min_time && at.max_time <= i.maxt;
            if deleted.iter().any(covering) {
                continue;
            }
            let chunk = self.segments.chunk(at)?;
            let touched = deleted.iter().any(|i| chunk.overlaps(i.mint, i.maxt));
            if !touched {
                chunks.push(chunk);
                continue;
            }
            let left = chunk.retain(|t| !deleted.iter().any(|i| i.contains(t)));
            chunks.extend(left.map_err(|source| BlockError::Chunk { reference: at.reference, source })?);
        }
        Ok(chunks)
    }

    /// Label names of the series that satisfy the matchers and have data in `mint..=maxt`, sorted.
    ///
    /// # Errors
    /// `BlockError`.
    pub fn label_names(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<String>, BlockError> {
        if !self.meta.overlaps(mint, maxt) {
            return Ok(Vec::new());
        }
        if matchers.is_empty() {
            return Ok(self.index.label_names());
        }
        let mut names = BTreeSet::new();
        for labels in self.series_labels(matchers)? {
            for (name, _) in &labels {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Values of a label among the series that satisfy the matchers, sorted.
    ///
    /// # Errors
    /// `BlockError`.
    pub fn label_values(&self, name: &str, matchers: &[Matcher]) -> Result<Vec<String>, BlockError> {
        if matchers.is_empty() {
            return self.index.label_values(name);
        }
        let mut values = BTreeSet::new();
        for labels in self.series_labels(matchers)? {
            if let Some(v) = labels.get(name) {
                values.insert(v.to_owned());
            }
        }
        Ok(values.into_iter().collect())
    }

    /// Whether any series satisfies the matchers.
    ///
    /// # Errors
    /// `BlockError`.
    pub fn has_series(&self, matchers: &[Matcher]) -> Result<bool, BlockError> {
        match matchers.is_empty() {
            true => Ok(!self.index.label_names().is_empty()),
            false => Ok(!self.index.select(matchers)?.is_empty()),
        }
    }

    /// Labels of the series that satisfy the matchers, sorted.
    ///
    /// # Errors
    /// `BlockError`.
    pub fn series_labels(&self, matchers: &[Matcher]) -> Result<Vec<Labels>, BlockError> {
        self.index.select(matchers)?.into_iter().map(|n| Ok(self.index.series(n)?.labels)).collect()
    }

    /// Reads everything: every series, every chunk, every sample of an encoding that is decoded; compares with the meta file.
    ///
    /// # Errors
    /// `BlockError` for the first thing that is not as it must be.
    pub fn verify(&self) -> Result<VerifyReport, BlockError> {
        let mut wanted: Wanted = HashMap::new();
        let report = self.verify_series(Some(&mut wanted))?;
        self.verify_postings(wanted)?;
        Ok(report)
    }

    /// Reads every series and every chunk for its checksum, and decodes nothing.
    ///
    /// # Errors
    /// `BlockError` for the first that does not match.
    pub fn verify_checksums(&self) -> Result<(), BlockError> {
        for number in self.index.select(&[])? {
            self.series_chunks(number)?;
        }
        Ok(())
    }

    /// As `verify`, without the comparison of postings with series: memory does not grow with the number of labels.
    ///
    /// # Errors
    /// `BlockError` for the first thing that is not as it must be.
    pub fn verify_samples(&self) -> Result<VerifyReport, BlockError> {
        self.verify_series(None)
    }

    fn verify_series(&self, mut wanted: Option<&mut Wanted>) -> Result<VerifyReport, BlockError> {
        let mut report = VerifyReport::default();
        let mut last: Option<Labels> = None;
        let mut columns = Columns::default();
        for number in self.index.select(&[])? {
            let entry = self.index.series(number)?;
            if last.as_ref().is_some_and(|l| *l >= entry.labels) {
                return Err(self.bad(number, "series is not sorted after the one before it"));
            }
            if let Some(wanted) = &mut wanted {
                for (name, value) in &entry.labels {
                    let seen = wanted.entry((name.to_owned(), value.to_owned())).or_default();
                    *seen = (seen.0 + 1, seen.1 + u64::from(number));
                }
            }
            for at in &entry.chunks {
                self.verify_chunk(number, at, &mut columns, &mut report)?;
            }
            report.series += 1;
            last = Some(entry.labels);
        }
        if report.series != self.meta.stats.num_series || report.chunks != self.meta.stats.num_chunks {
            let detail = format!(
                "stats name {} series and {} chunks, the block has {} and {}",
                self.meta.stats.num_series, self.meta.stats.num_chunks, report.series, report.chunks
            );
            return Err(BlockError::Meta { path: self.dir.join(crate::meta::META_FILE), detail });
        }
        Ok(report)
    }

    /// Every label's list must have as many series as carry the label, with the same sum of numbers.
    fn verify_postings(&self, mut wanted: Wanted) -> Result<(), BlockError> {
        for name in self.index.label_names() {
            for value in self.index.label_values(&name)? {
                let list = self.index.equal(&name, &value)?;
                let found = (list.len() as u64, list.iter().map(|&n| u64::from(n)).sum());
                if wanted.remove(&(name.clone(), value)) != Some(found) {
                    return Err(
                        self.bad(list.first().copied().unwrap_or(0), "postings do not agree with the series")
                    );
                }
            }
        }
        if wanted.is_empty() { Ok(()) } else { Err(self.bad(0, "a label of a series has no postings")) }
    }

    fn verify_chunk(
        &self,
        number: u32,
        at: &ChunkRef,
        columns: &mut Columns,
        report: &mut VerifyReport,
    ) -> Result<(), BlockError> {
        let chunk = self.segments.chunk(at)?;
        report.chunks += 1;
        report.samples += chunk.sample_count().unwrap_or(0) as u64;
        if at.min_time < self.meta.min_time || at.max_time >= self.meta.max_time {
            return Err(self.bad(number, "a chunk lies outside of the block's time range"));
        }
        if !matches!(chunk.encoding, Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram) {
            report.opaque_chunks += 1;
            return Ok(());
        }
        columns.clear();
        chunk
            .read(i64::MIN, i64::MAX, columns)
            .map_err(|source| BlockError::Chunk { reference: at.reference, source })?;
        let bounds = columns.times.first().zip(columns.times.last());
        if bounds != Some((&at.min_time, &at.max_time)) {
            return Err(self.bad(number, "a chunk's samples do not span the times the index says"));
        }
        Ok(())
    }

    fn bad(&self, number: u32, what: &'static str) -> BlockError {
        crate::dec::damaged(INDEX_FILE, self.index.offset(number), what)
    }
}
