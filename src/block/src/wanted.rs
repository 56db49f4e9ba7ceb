//! Which bytes of a block a question needs, told before they are here.
//!
//! Owns the way from matchers and a time range to ranges of the block's files, in the order in which they can be known: lists
//! of postings from the table, entries of series from lists, chunks from entries. Where a part ends is told by its own first
//! bytes, so a piece is a guess first (the start of the next one, or the usual length) and exact when it was read. Refuses to
//! fetch. Invariant: a piece whose bytes are here and right passes `check`.

use std::ops::Range;

use koios_model::{Labels, Matcher};

use crate::block::Block;
use crate::dec::damaged;
use crate::error::BlockError;
use crate::index::{HEADER_BYTES, INDEX_FILE, LastLabels, TOC_BYTES, Toc};

/// Length prefix, encoding byte and checksum of a chunk.
const CHUNK_FRAME_BYTES: u64 = 7;

/// Least length that is guessed.
const GUESS_BYTES_MIN: u64 = 16;

/// A part of a file that has its own checksum, and where it lies as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A list of postings in the index.
    List(Range<u64>),
    /// An entry of a series in the index, by number.
    Series(u32, Range<u64>),
    /// A chunk in a segment, by reference.
    Chunk(u64, Range<u64>),
}

impl Piece {
    /// Which file: `None` is the index, else the segment, counted from 0.
    pub fn segment(&self) -> Option<usize> {
        match self {
            Self::Chunk(reference, _) => Some((*reference >> 32) as usize),
            _ => None,
        }
    }

    /// Where it lies in its file.
    pub fn range(&self) -> &Range<u64> {
        match self {
            Self::List(range) | Self::Series(_, range) | Self::Chunk(_, range) => range,
        }
    }

    fn range_mut(&mut self) -> &mut Range<u64> {
        match self {
            Self::List(range) | Self::Series(_, range) | Self::Chunk(_, range) => range,
        }
    }
}

/// The parts of an index of `file_bytes` bytes that opening reads, given its last bytes: symbols with the header, and the
/// table of lists with the table of contents.
///
/// # Errors
/// `BlockError::Damaged` when these are not the last bytes of an index.
pub fn index_parts(tail: &[u8], file_bytes: u64) -> Result<[Range<u64>; 2], BlockError> {
    let toc = Toc::read_tail(tail, file_bytes)?;
    if toc.symbols < HEADER_BYTES {
        return Err(damaged(INDEX_FILE, file_bytes - TOC_BYTES as u64, "symbols begin inside the header"));
    }
    Ok([0..toc.section_end(toc.symbols, file_bytes), toc.postings_table..file_bytes])
}

impl Block {
    /// The lists that a selection reads.
    ///
    /// # Errors
    /// `BlockError` for a damaged table.
    pub fn lists_wanted(&self, matchers: &[Matcher]) -> Result<Vec<Piece>, BlockError> {
        let mut lists = self.index().lists_of(matchers)?;
        lists.sort_by_key(|l| (l.start, l.end));
        lists.dedup_by_key(|l| l.start);
        Ok(lists.into_iter().map(Piece::List).collect())
    }

    /// The entries of some series, whose numbers ascend.
    pub fn series_wanted(&self, numbers: &[u32]) -> Vec<Piece> {
        let section = self.index().series_section();
        let usual = (section.end - section.start).div_ceil(self.meta().stats.num_series.max(1));
        let guess = usual + usual / 4;
        let start = |n: u32| self.index().offset(n);
        let piece = |(i, &n): (usize, &u32)| {
            let next = numbers.get(i + 1).map_or(section.end, |&n| start(n));
            Piece::Series(n, start(n)..likely_end(start(n), next, guess))
        };
        numbers.iter().enumerate().map(piece).collect()
    }

    /// The chunks of some series that overlap the inclusive range, of those series that `keep` keeps by their labels.
    /// Their entries must be here. The number of series that have any, and the bytes of data there are at the least.
    ///
    /// # Errors
    /// `BlockError` for the first damage met.
    pub fn chunks_wanted(
        &self,
        numbers: &[u32],
        range: (i64, i64),
        keep: Option<&dyn Fn(&Labels) -> bool>,
        out: &mut Vec<Piece>,
    ) -> Result<(u64, u64), BlockError> {
        let chunks = self.meta().stats.num_chunks.max(1);
        let usual = self.segments().total_bytes().div_ceil(chunks);
        let mut last = LastLabels::default();
        let from = out.len();
        let mut series = 0;
        for &number in numbers {
            let before = out.len();
            let labels = self.index().chunk_refs(number, range, |reference, next| {
                let start = reference & 0xffff_ffff;
                let next = next.filter(|n| n >> 32 == reference >> 32 && *n > reference);
                out.push(Piece::Chunk(reference, start..next.map_or(start, |n| n & 0xffff_ffff)));
            })?;
            if out.len() > before
                && let Some(keep) = keep
                && !keep(&self.index().labels_at(labels, &mut last)?)
            {
                out.truncate(before);
            }
            series += u64::from(out.len() > before);
        }
        let new = &mut out[from..];
        new.sort_unstable_by_key(|p| (p.segment(), p.range().start));
        let sure = new.iter().map(|p| p.range()).map(|r| (r.end - r.start).saturating_sub(CHUNK_FRAME_BYTES));
        let bytes = sure.sum();
        for i in 0..new.len() {
            if new[i].range().is_empty() {
                let segment = new[i].segment();
                let end = self.segments().segment_bytes(segment.unwrap_or(0));
                let next = new.get(i + 1).filter(|n| n.segment() == segment).map_or(end, |n| n.range().start);
                let range = new[i].range_mut();
                range.end = likely_end(range.start, next, usual + usual / 4);
            }
        }
        Ok((series, bytes))
    }

    /// Where a piece really lies, when its first bytes are here.
    ///
    /// # Errors
    /// `BlockError::Damaged` when it would end behind the file.
    pub fn exact(&self, piece: &Piece) -> Result<Range<u64>, BlockError> {
        match piece {
            Piece::List(range) => self.index().list_range(range.start),
            Piece::Series(number, _) => self.index().entry_range(*number),
            Piece::Chunk(reference, _) => self.segments().range(*reference),
        }
    }

    /// Whether the bytes of a piece are what was written.
    ///
    /// # Errors
    /// `BlockError::Damaged` when they are not, `Absent` when they are not here.
    pub fn check(&self, piece: &Piece) -> Result<(), BlockError> {
        match piece {
            Piece::List(range) => self.index().check_list(range.start),
            Piece::Series(number, _) => self.index().check_entry(*number),
            Piece::Chunk(reference, _) => self.segments().check(*reference),
        }
    }
}

/// What begins at `start` ends at `next` when that is near, else after the usual length.
fn likely_end(start: u64, next: u64, guess: u64) -> u64 {
    match next > start && next - start <= guess.saturating_mul(2) {
        true => next,
        false => start.saturating_add(guess.max(GUESS_BYTES_MIN)).min(next.max(start + 1)),
    }
}
