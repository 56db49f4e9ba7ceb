//! The two tables of an open index: symbols by number, postings lists by label.
//!
//! Both keep the file's bytes and every 32nd position only, as Prometheus' reader does; a look-up scans at most
//! 32 entries. Version 1 of the file names symbols by their position and does not sort the table, which is then
//! held whole. Invariant: both were checked as a whole (checksum, order of names and values) when opened.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::INDEX_FILE;
use crate::dec::{Dec, damaged};
use crate::error::BlockError;

/// Symbols between two remembered positions: a series looks up some ten of them.
const SYMBOL_STRIDE: usize = 8;
/// Entries between two remembered positions of the postings table.
const STRIDE: usize = 32;
/// Length, count and checksum of a list.
const LIST_BYTES_MIN: u64 = 12;

/// Texts by number.
#[derive(Debug)]
pub(crate) struct Symbols {
    bytes: Bytes,
    count: u32,
    /// Positions in the file of symbol 0, 8, 16, …
    samples: Vec<u64>,
    /// Where the section's texts lie, when series name symbols by position in the file (version 1).
    by_position: Option<std::ops::Range<u64>>,
}

impl Symbols {
    pub(crate) fn open(bytes: &Bytes, offset: u64, version: u8) -> Result<Self, BlockError> {
        let mut d = Dec::framed_u32(bytes, INDEX_FILE, offset)?;
        let count = d.be32()?;
        let texts = d.offset()..d.offset() + d.remaining() as u64;
        let by_position = (version == 1).then_some(texts);
        let mut samples = Vec::new();
        for i in 0..count {
            if (i as usize).is_multiple_of(SYMBOL_STRIDE) {
                samples.push(d.offset());
            }
            d.text()?;
        }
        Ok(Self { bytes: bytes.clone(), count, samples, by_position })
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// All texts in order, unless they are named by position.
    pub(crate) fn iter(&self) -> Option<impl Iterator<Item = Result<&str, BlockError>>> {
        if self.by_position.is_some() {
            return None;
        }
        let first = self.samples.first().copied().unwrap_or_default();
        let mut d = Dec::at(&self.bytes, INDEX_FILE, first).ok();
        Some((0..self.count).map_while(move |_| Some(d.as_mut()?.text())))
    }

    /// The text with this number.
    pub(crate) fn get(&self, n: u64) -> Result<&str, BlockError> {
        if let Some(texts) = &self.by_position {
            if !texts.contains(&n) {
                return Err(damaged(INDEX_FILE, n, "a series names a symbol outside of the symbols"));
            }
            return Dec::at(&self.bytes, INDEX_FILE, n)?.text();
        }
        let sample = usize::try_from(n).ok().filter(|_| n < u64::from(self.count));
        let Some(n) = sample else {
            return Err(damaged(INDEX_FILE, 0, "a series names a symbol that does not exist"));
        };
        let mut d = Dec::at(&self.bytes, INDEX_FILE, self.samples[n / SYMBOL_STRIDE])?;
        for _ in 0..n % SYMBOL_STRIDE {
            let len = d.uvarint()?;
            d.take(len as usize)?;
        }
        d.text()
    }
}

/// Where one label name's values lie in the table.
#[derive(Debug)]
struct NameRange {
    name: Box<str>,
    count: usize,
    /// Positions in the file of value 0, 32, 64, … of this name.
    samples: Vec<u64>,
}

/// Offsets of postings lists by label.
#[derive(Debug)]
pub(crate) struct PostingsTable {
    bytes: Bytes,
    names: Vec<NameRange>,
    all: Option<u64>,
    /// Where the section of lists ends.
    lists_end: u64,
    /// Version 1: everything, sorted here, and `names` stays empty.
    whole: Option<Whole>,
}

/// Values and offsets of their lists, by name.
type Whole = BTreeMap<Box<str>, Vec<(Box<str>, u64)>>;

/// One entry: value and offset of its list.
type Entry<'a> = (&'a str, u64);

impl PostingsTable {
    pub(crate) fn open(bytes: &Bytes, offset: u64, lists_end: u64, version: u8) -> Result<Self, BlockError> {
        let mut table = Self { bytes: bytes.clone(), names: Vec::new(), all: None, lists_end, whole: None };
        if version == 1 {
            table.load_whole(offset)?;
            return Ok(table);
        }
        let mut d = Dec::framed_u32(bytes, INDEX_FILE, offset)?;
        let count = d.be32()?;
        let mut last_value = "";
        for _ in 0..count {
            let at = d.offset();
            let (name, (value, list)) = read_entry(&mut d)?;
            if name.is_empty() && value.is_empty() {
                table.all = Some(list);
                continue;
            }
            let same = table.names.last().map(|n| n.name.as_ref().cmp(name));
            match same {
                Some(std::cmp::Ordering::Equal) if last_value < value => {}
                None | Some(std::cmp::Ordering::Less) => {
                    table.names.push(NameRange { name: name.into(), count: 0, samples: Vec::new() });
                }
                _ => return Err(damaged(INDEX_FILE, at, "postings table is not sorted")),
            }
            last_value = value;
            if let Some(n) = table.names.last_mut() {
                if n.count.is_multiple_of(STRIDE) {
                    n.samples.push(at);
                }
                n.count += 1;
            }
        }
        Ok(table)
    }

    fn load_whole(&mut self, offset: u64) -> Result<(), BlockError> {
        let mut d = Dec::framed_u32(&self.bytes, INDEX_FILE, offset)?;
        let mut whole = Whole::new();
        for _ in 0..d.be32()? {
            let (name, (value, list)) = read_entry(&mut d)?;
            if name.is_empty() && value.is_empty() {
                self.all = Some(list);
                continue;
            }
            whole.entry(name.into()).or_default().push((value.into(), list));
        }
        whole.values_mut().for_each(|values| values.sort());
        if whole.values().any(|values| values.windows(2).any(|w| w[0].0 == w[1].0)) {
            return Err(damaged(INDEX_FILE, offset, "postings table names a label twice"));
        }
        self.whole = Some(whole);
        Ok(())
    }

    /// The list of all series.
    pub(crate) fn all(&self) -> Result<Option<Range<u64>>, BlockError> {
        let Some(offset) = self.all else { return Ok(None) };
        Ok(Some(self.span(offset, self.after(None)?)))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let whole = self.whole.iter().flat_map(|w| w.keys()).map(|n| &**n);
        self.names.iter().map(|n| &*n.name).chain(whole)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.names.binary_search_by(|n| (*n.name).cmp(name)).ok()
    }

    /// Where the first list of the next name begins, or the section ends.
    fn after(&self, name: Option<usize>) -> Result<u64, BlockError> {
        let next = self.names.get(name.map_or(0, |i| i + 1));
        let Some(&at) = next.and_then(|n| n.samples.first()) else { return Ok(self.lists_end) };
        let mut d = Dec::at(&self.bytes, INDEX_FILE, at)?;
        Ok(read_entry(&mut d)?.1.1)
    }

    /// Where a list lies, if lists lie in the order of the table, which nothing demands; its length at the least.
    fn span(&self, offset: u64, next: u64) -> Range<u64> {
        let least = offset.saturating_add(LIST_BYTES_MIN);
        offset..if next > offset { next } else { least }
    }

    /// The list of one label.
    pub(crate) fn find(&self, name: &str, value: &str) -> Result<Option<Range<u64>>, BlockError> {
        let mut found = None;
        self.scan(name, value, |v, list| {
            if v == value {
                found = Some(list);
            }
            v < value
        })?;
        Ok(found)
    }

    /// Calls `visit` with every value of `name` from `start` on, in order, and where its list begins and probably ends, until
    /// it answers false.
    pub(crate) fn scan<'a>(
        &'a self,
        name: &str,
        start: &str,
        mut visit: impl FnMut(&'a str, Range<u64>) -> bool,
    ) -> Result<(), BlockError> {
        if let Some(values) = self.whole.as_ref().and_then(|w| w.get(name)) {
            let from = values.partition_point(|(v, _)| **v < *start);
            values[from..].iter().all(|(value, offset)| visit(value, self.span(*offset, 0)));
            return Ok(());
        }
        let Some(at) = self.position(name) else { return Ok(()) };
        let range = &self.names[at];
        // The last sampled value that is not after `start`.
        let (mut low, mut high) = (0, range.samples.len());
        while high - low > 1 {
            let mid = (low + high) / 2;
            let mut d = Dec::at(&self.bytes, INDEX_FILE, range.samples[mid])?;
            let (_, (value, _)) = read_entry(&mut d)?;
            if value <= start { low = mid } else { high = mid }
        }
        let mut d = Dec::at(&self.bytes, INDEX_FILE, range.samples[low])?;
        let (_, mut entry) = read_entry(&mut d)?;
        for i in low * STRIDE..range.count {
            let next = match i + 1 < range.count {
                true => read_entry(&mut d)?.1,
                false => ("", self.after(Some(at))?),
            };
            if entry.0 >= start && !visit(entry.0, self.span(entry.1, next.1)) {
                break;
            }
            entry = next;
        }
        Ok(())
    }
}

fn read_entry<'a>(d: &mut Dec<'a>) -> Result<(&'a str, Entry<'a>), BlockError> {
    if d.u8()? != 2 {
        return Err(d.damaged("postings table entry does not have two texts"));
    }
    Ok((d.text()?, (d.text()?, d.uvarint()?)))
}
