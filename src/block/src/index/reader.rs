//! Reading an index file from bytes, usually mapped.
//!
//! `open` checks table of contents, symbols and postings table; series and postings lists are checked when
//! they are read. Implements `PostingsSource`, so matchers are answered without looking at series.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use koios_model::{Labels, Matcher};

use super::table::{PostingsTable, Symbols};
use super::{ChunkRef, HEADER_BYTES, INDEX_FILE, MAGIC, SERIES_ALIGN, TOC_BYTES, Toc};
use crate::dec::{Dec, damaged};
use crate::error::BlockError;
use crate::extents::Present;
use crate::postings::{PostingsSource, ValueTest, select_postings, touch_postings, union};

/// A series as the index stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesEntry {
    /// Who it is.
    pub labels: Labels,
    /// Its chunks in time order.
    pub chunks: Vec<ChunkRef>,
}

/// Labels of the series that was read last, with the numbers of their texts. Series that lie beside each other share
/// most labels, and a text that is the same again is not looked up. Only for series of one index.
#[derive(Debug, Default)]
pub struct LastLabels<'a> {
    known: Vec<Known<'a>>,
    /// The only names whose values are read; `None` means all.
    wanted: Option<&'a [String]>,
}

/// One label of the series that was read last.
#[derive(Clone, Copy, Debug)]
struct Known<'a> {
    name: (u64, &'a str),
    /// `NOT_READ` where nobody asked.
    value: (u64, &'a str),
    wanted: bool,
}

/// Stands for the number of a value that nobody asked for.
const NOT_READ: u64 = u64::MAX;

impl<'a> LastLabels<'a> {
    /// None yet; only labels of these names are read, or all.
    pub(crate) fn only(wanted: Option<&'a [String]>) -> Self {
        Self { known: Vec::new(), wanted }
    }
}

/// Where the labels of a series lie.
#[derive(Clone, Copy)]
pub(crate) struct LabelsAt<'a>(Dec<'a>);

/// An open index.
#[derive(Debug)]
pub struct IndexReader {
    bytes: Bytes,
    toc: Toc,
    /// What a series number is multiplied with to get its offset.
    align: u64,
    symbols: Symbols,
    table: PostingsTable,
    /// What is here of the file; `None` means all.
    present: Option<Arc<Present>>,
}

impl IndexReader {
    /// Opens an index over its whole file.
    ///
    /// # Errors
    /// `BlockError::Damaged`, or `Version` for any version but 1, 2 and 3 (3 is read as 2).
    pub fn open(bytes: Bytes) -> Result<Self, BlockError> {
        let mut d = Dec::at(&bytes, INDEX_FILE, 0)?;
        if d.be32()? != MAGIC {
            return Err(damaged(INDEX_FILE, 0, "magic number is not that of an index"));
        }
        let version = d.u8()?;
        if !matches!(version, 1..=3) {
            return Err(BlockError::Version { file: INDEX_FILE, version });
        }
        let toc = Toc::read(&bytes)?;
        if toc.symbols < HEADER_BYTES {
            return Err(damaged(
                INDEX_FILE,
                (bytes.len() - TOC_BYTES) as u64,
                "symbols begin inside the header",
            ));
        }
        let symbols = Symbols::open(&bytes, toc.symbols, version)?;
        let lists_end = toc.section_end(toc.postings, bytes.len() as u64);
        let table = PostingsTable::open(&bytes, toc.postings_table, lists_end, version)?;
        let align = if version == 1 { 1 } else { SERIES_ALIGN };
        Ok(Self { bytes, toc, align, symbols, table, present: None })
    }

    /// The same index over a file of which only `present` is here, at least the parts that `open` reads.
    #[must_use]
    pub(crate) fn with_present(mut self, present: Arc<Present>) -> Self {
        self.present = Some(present);
        self
    }

    /// What went wrong, or that the bytes are not here.
    fn blame(&self, e: BlockError, part: impl FnOnce() -> Result<Range<u64>, BlockError>) -> BlockError {
        let Some(present) = &self.present else { return e };
        match part() {
            Ok(range) if present.covers(range.clone()) => e,
            Ok(range) => BlockError::Absent { file: INDEX_FILE.to_owned(), offset: range.start },
            Err(e) => e,
        }
    }

    /// Where a series lies, as its first bytes say.
    pub(crate) fn entry_range(&self, number: u32) -> Result<Range<u64>, BlockError> {
        let start = self.offset(number);
        let mut d = Dec::at(&self.bytes, INDEX_FILE, start)?;
        let len = d.uvarint()?;
        self.inside(start, d.offset().saturating_add(len).saturating_add(4))
    }

    /// Where a list lies, as its first bytes say.
    pub(crate) fn list_range(&self, start: u64) -> Result<Range<u64>, BlockError> {
        let len = Dec::at(&self.bytes, INDEX_FILE, start)?.be32()?;
        self.inside(start, start.saturating_add(8).saturating_add(u64::from(len)))
    }

    fn inside(&self, start: u64, end: u64) -> Result<Range<u64>, BlockError> {
        match end <= self.bytes.len() as u64 {
            true => Ok(start..end),
            false => Err(damaged(INDEX_FILE, start, "ends too early")),
        }
    }

    /// Where the section of series begins and ends.
    pub(crate) fn series_section(&self) -> Range<u64> {
        self.toc.series..self.toc.section_end(self.toc.series, self.bytes.len() as u64)
    }

    /// Where the lists lie that `select` reads, each as far as can be told before it is read.
    pub(crate) fn lists_of(&self, matchers: &[Matcher]) -> Result<Vec<Range<u64>>, BlockError> {
        let touched = Touched { index: self, lists: RefCell::default() };
        touch_postings(&touched, matchers)?;
        Ok(touched.lists.into_inner())
    }

    /// Checks a list as reading it does.
    pub(crate) fn check_list(&self, start: u64) -> Result<(), BlockError> {
        Dec::framed_u32(&self.bytes, INDEX_FILE, start).map(drop)
    }

    /// Checks a series as reading it does.
    pub(crate) fn check_entry(&self, number: u32) -> Result<(), BlockError> {
        self.entry(number).map(drop)
    }

    /// Calls `visit` with the chunks of a series that overlap the inclusive range and the reference of the chunk after each.
    /// Answers where its labels lie.
    pub(crate) fn chunk_refs(
        &self,
        number: u32,
        (mint, maxt): (i64, i64),
        mut visit: impl FnMut(u64, Option<u64>),
    ) -> Result<LabelsAt<'_>, BlockError> {
        let entry = self.entry(number)?;
        let mut d = entry;
        let pairs = d.uvarint()?;
        d.skip_uvarints(pairs.saturating_mul(2))?;
        let mut before = None;
        read_chunks(&mut d, |c| {
            if let Some(reference) = before {
                visit(reference, Some(c.reference));
            }
            before = (c.min_time <= maxt && mint <= c.max_time).then_some(c.reference);
        })?;
        if let Some(reference) = before {
            visit(reference, None);
        }
        Ok(LabelsAt(entry))
    }

    /// All texts in order, for whoever merges indices; `None` of version 1, which does not sort them.
    pub fn texts(&self) -> Option<impl Iterator<Item = Result<&str, BlockError>>> {
        self.symbols.iter()
    }

    /// Reads a series by number.
    ///
    /// # Errors
    /// `BlockError::Damaged`.
    pub fn series(&self, number: u32) -> Result<SeriesEntry, BlockError> {
        let mut d = self.entry(number)?;
        let labels = self.read_labels(&mut d, &mut LastLabels::default())?;
        let mut chunks = Vec::new();
        read_chunks(&mut d, |c| chunks.push(c))?;
        Ok(SeriesEntry { labels, chunks })
    }

    /// Reads the chunks of a series into `out` and its labels only when a chunk overlaps the inclusive range. `last` is
    /// what earlier calls on this index left there.
    ///
    /// # Errors
    /// `BlockError::Damaged`.
    pub fn series_in_range<'a>(
        &'a self,
        number: u32,
        mint: i64,
        maxt: i64,
        out: &mut Vec<ChunkRef>,
        last: &mut LastLabels<'a>,
    ) -> Result<Option<Labels>, BlockError> {
        let labels = self.chunks_in_range(number, (mint, maxt), out)?;
        if out.is_empty() {
            return Ok(None);
        }
        self.labels_at(labels, last).map(Some)
    }

    /// Reads the chunks of a series that overlap the inclusive range into `out`. Answers where its labels lie.
    pub(crate) fn chunks_in_range(
        &self,
        number: u32,
        (mint, maxt): (i64, i64),
        out: &mut Vec<ChunkRef>,
    ) -> Result<LabelsAt<'_>, BlockError> {
        out.clear();
        let entry = self.entry(number)?;
        let mut d = entry;
        let pairs = d.uvarint()?;
        d.skip_uvarints(pairs.saturating_mul(2))?;
        read_chunks(&mut d, |c| {
            if c.min_time <= maxt && mint <= c.max_time {
                out.push(c);
            }
        })?;
        Ok(LabelsAt(entry))
    }

    /// The labels of a series, of those that `last` wants.
    pub(crate) fn labels_at<'a>(
        &'a self,
        at: LabelsAt<'_>,
        last: &mut LastLabels<'a>,
    ) -> Result<Labels, BlockError> {
        let mut d = at.0;
        self.read_labels(&mut d, last)
    }

    /// Where a series lies in the file.
    pub(crate) fn offset(&self, number: u32) -> u64 {
        u64::from(number) * self.align
    }

    fn entry(&self, number: u32) -> Result<Dec<'_>, BlockError> {
        let offset = self.offset(number);
        if offset < self.toc.series || offset >= self.toc.postings_table {
            return Err(damaged(INDEX_FILE, offset, "series number points outside of the series section"));
        }
        let entry = Dec::framed_uvarint(&self.bytes, INDEX_FILE, offset);
        // A hole is a run of zeros, which frame an entry of no bytes.
        let entry = match entry {
            Ok(d) if d.remaining() == 0 => Err(d.damaged("series has no bytes")),
            other => other,
        };
        entry.map_err(|e| self.blame(e, || self.entry_range(number)))
    }

    fn read_labels<'a>(&'a self, d: &mut Dec<'_>, last: &mut LastLabels<'a>) -> Result<Labels, BlockError> {
        let at = d.offset();
        let count = d.uvarint()? as usize;
        // While names are those of the series before, they are in order and it is known who is wanted.
        let mut as_before = true;
        let mut before = "";
        // Given back only when all is well: what a damaged series left would count as checked.
        let mut known = std::mem::take(&mut last.known);
        for i in 0..count {
            let (name, value) = (d.uvarint()?, d.uvarint()?);
            let mut now = match known.get(i) {
                Some(same) if same.name.0 == name => *same,
                _ => {
                    let text = self.symbols.get(name)?;
                    let wanted = last.wanted.is_none_or(|list| list.iter().any(|w| w == text));
                    as_before = false;
                    Known { name: (name, text), value: (NOT_READ, ""), wanted }
                }
            };
            if now.wanted && now.value.0 != value {
                now.value = (value, self.symbols.get(value)?);
            }
            if (now.wanted && now.value.1.is_empty()) || (!as_before && i > 0 && before >= now.name.1) {
                return Err(damaged(
                    INDEX_FILE,
                    at,
                    "labels of a series are not sorted or have an empty value",
                ));
            }
            before = now.name.1;
            match known.get_mut(i) {
                Some(place) => *place = now,
                None => known.push(now),
            }
        }
        known.truncate(count);
        let wanted = known.iter().filter(|k| k.wanted);
        let labels = Labels::from_sorted(wanted.map(|k| (k.name.1, k.value.1)));
        last.known = known;
        Ok(labels)
    }

    /// Numbers of the series that satisfy all matchers, ascending, which is label order.
    ///
    /// # Errors
    /// `BlockError::Damaged`.
    pub fn select(&self, matchers: &[Matcher]) -> Result<Vec<u32>, BlockError> {
        select_postings(self, matchers)
    }

    /// All label names, sorted.
    pub fn label_names(&self) -> Vec<String> {
        self.table.names().map(str::to_owned).collect()
    }

    /// All values of a label, sorted.
    ///
    /// # Errors
    /// `BlockError::Damaged`.
    pub fn label_values(&self, name: &str) -> Result<Vec<String>, BlockError> {
        let mut out = Vec::new();
        self.table.scan(name, "", |v, _| {
            out.push(v.to_owned());
            true
        })?;
        Ok(out)
    }

    /// Length of the file.
    pub(crate) fn byte_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Number of distinct label texts.
    pub fn symbol_count(&self) -> u32 {
        self.symbols.len()
    }

    fn list(&self, offset: u64) -> Result<Vec<u32>, BlockError> {
        self.read_list(offset).map_err(|e| self.blame(e, || self.list_range(offset)))
    }

    fn read_list(&self, offset: u64) -> Result<Vec<u32>, BlockError> {
        let mut d = Dec::framed_u32(&self.bytes, INDEX_FILE, offset)?;
        let count = d.be32()? as usize;
        let body = d.rest();
        if body.len() != count.saturating_mul(4) {
            return Err(d.damaged("postings list has another length than it says"));
        }
        let (words, _) = body.as_chunks::<4>();
        let list: Vec<u32> = words.iter().map(|w| u32::from_be_bytes(*w)).collect();
        if list.windows(2).any(|w| w[0] >= w[1]) {
            return Err(d.damaged("postings list is not ascending"));
        }
        Ok(list)
    }

    /// Where the lists of the values lie that pass the test.
    fn lists(&self, name: &str, test: &ValueTest<'_>) -> Result<Vec<Range<u64>>, BlockError> {
        let mut lists = Vec::new();
        match test {
            ValueTest::Set(values) => {
                for value in *values {
                    lists.extend(self.table.find(name, value)?);
                }
            }
            ValueTest::Prefix(prefix, fits) => self.table.scan(name, prefix, |v, list| {
                let inside = v.starts_with(prefix);
                if inside && fits(v) {
                    lists.push(list);
                }
                inside
            })?,
            ValueTest::Any(fits) => self.table.scan(name, "", |v, list| {
                if fits(v) {
                    lists.push(list);
                }
                true
            })?,
        }
        Ok(lists)
    }
}

impl PostingsSource for IndexReader {
    type Error = BlockError;

    fn all(&self) -> Result<Vec<u32>, BlockError> {
        self.table.all()?.map_or(Ok(Vec::new()), |l| self.list(l.start))
    }

    fn equal(&self, name: &str, value: &str) -> Result<Vec<u32>, BlockError> {
        self.table.find(name, value)?.map_or(Ok(Vec::new()), |l| self.list(l.start))
    }

    fn any_of(&self, name: &str, test: &ValueTest<'_>) -> Result<Vec<u32>, BlockError> {
        let lists = self.lists(name, test)?;
        Ok(union(lists.iter().map(|l| self.list(l.start)).collect::<Result<_, _>>()?))
    }
}

/// Notes which lists are asked for; a list that is there has one series.
struct Touched<'a> {
    index: &'a IndexReader,
    lists: RefCell<Vec<Range<u64>>>,
}

impl Touched<'_> {
    fn note(&self, lists: impl IntoIterator<Item = Range<u64>>) -> Vec<u32> {
        let mut noted = self.lists.borrow_mut();
        let before = noted.len();
        noted.extend(lists);
        vec![0; usize::from(noted.len() > before)]
    }
}

impl PostingsSource for Touched<'_> {
    type Error = BlockError;

    fn all(&self) -> Result<Vec<u32>, BlockError> {
        Ok(self.note(self.index.table.all()?))
    }

    fn equal(&self, name: &str, value: &str) -> Result<Vec<u32>, BlockError> {
        Ok(self.note(self.index.table.find(name, value)?))
    }

    fn any_of(&self, name: &str, test: &ValueTest<'_>) -> Result<Vec<u32>, BlockError> {
        Ok(self.note(self.index.lists(name, test)?))
    }
}

#[inline]
fn read_chunks(d: &mut Dec<'_>, mut visit: impl FnMut(ChunkRef)) -> Result<(), BlockError> {
    let count = d.uvarint()?;
    let mut before: Option<ChunkRef> = None;
    for _ in 0..count {
        let (min_time, reference);
        let length;
        match before {
            None => {
                min_time = d.varint()?;
                length = d.uvarint()?;
                reference = d.uvarint()?;
            }
            Some(b) => {
                min_time = b.max_time.wrapping_add(d.uvarint()? as i64);
                length = d.uvarint()?;
                reference = b.reference.wrapping_add(d.varint()? as u64);
            }
        }
        let chunk = ChunkRef { min_time, max_time: min_time.wrapping_add(length as i64), reference };
        if chunk.max_time < chunk.min_time {
            return Err(d.damaged("chunk ends before it starts"));
        }
        visit(chunk);
        before = Some(chunk);
    }
    Ok(())
}
