//! The index of a block: which series there are, where their chunks lie, which label leads to which series.
//!
//! Owns writing version 2 and reading versions 1 to 3 of the file (drawn in `docs/formats/index.md`, after Prometheus' `tsdb/docs/format/index.md`
//! and the section order its current writer emits: no label indices). Invariants: series are sorted by labels
//! and 16-byte aligned; a series number is its offset divided by 16 (version 1: its offset, unaligned); postings
//! are big-endian and ascending.

mod reader;
mod sorted;
mod table;
mod writer;

pub(crate) use reader::LabelsAt;
pub use reader::{IndexReader, LastLabels, SeriesEntry};
pub use sorted::SortedIndexWriter;
pub use writer::IndexWriter;

use crate::crc::crc32c;
use crate::dec::{Dec, damaged};
use crate::error::BlockError;

/// File name in a block directory.
pub(crate) const INDEX_FILE: &str = "index";
pub(crate) const MAGIC: u32 = 0xbaaa_d700;
pub(crate) const VERSION: u8 = 2;
/// Magic and version.
pub(crate) const HEADER_BYTES: u64 = 5;
/// Series start at multiples of this, and their number is offset / this.
pub(crate) const SERIES_ALIGN: u64 = 16;
/// Six offsets and a checksum.
pub(crate) const TOC_BYTES: usize = 6 * 8 + 4;

/// A chunk as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Time of the first sample.
    pub min_time: i64,
    /// Time of the last sample, inclusive.
    pub max_time: i64,
    /// Segment in the upper 32 bits, byte offset in the lower.
    pub reference: u64,
}

/// Where the sections begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Toc {
    pub(crate) symbols: u64,
    pub(crate) series: u64,
    pub(crate) label_indices: u64,
    pub(crate) label_indices_table: u64,
    pub(crate) postings: u64,
    pub(crate) postings_table: u64,
}

impl Toc {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let parts = [
            self.symbols,
            self.series,
            self.label_indices,
            self.label_indices_table,
            self.postings,
            self.postings_table,
        ];
        let mut out: Vec<u8> = parts.iter().flat_map(|p| p.to_be_bytes()).collect();
        let crc = crc32c(&out);
        out.extend(crc.to_be_bytes());
        out
    }

    pub(crate) fn read(file: &[u8]) -> Result<Self, BlockError> {
        Self::read_tail(file, file.len() as u64)
    }

    /// From the last bytes of a file of `file_bytes` bytes.
    pub(crate) fn read_tail(tail: &[u8], file_bytes: u64) -> Result<Self, BlockError> {
        let Some(begin) = tail.len().checked_sub(TOC_BYTES).filter(|_| tail.len() as u64 <= file_bytes)
        else {
            return Err(damaged(INDEX_FILE, file_bytes, "too short for a table of contents"));
        };
        let at = file_bytes - TOC_BYTES as u64;
        let mut d = Dec::at(tail, INDEX_FILE, begin as u64)?;
        if crc32c(&tail[begin..begin + TOC_BYTES - 4])
            != u32::from_be_bytes(*tail.last_chunk::<4>().unwrap_or(&[0; 4]))
        {
            return Err(damaged(INDEX_FILE, at, "checksum of the table of contents does not match"));
        }
        let toc = Self {
            symbols: d.be64()?,
            series: d.be64()?,
            label_indices: d.be64()?,
            label_indices_table: d.be64()?,
            postings: d.be64()?,
            postings_table: d.be64()?,
        };
        let ends = [toc.symbols, toc.series, toc.postings, toc.postings_table];
        if ends.iter().any(|&e| e > at) || toc.series < toc.symbols || toc.postings < toc.series {
            return Err(damaged(INDEX_FILE, at, "table of contents points outside of the file"));
        }
        Ok(toc)
    }

    /// Where the section that begins at `start` ends: where the next one begins.
    pub(crate) fn section_end(&self, start: u64, file_bytes: u64) -> u64 {
        let starts = [
            self.series,
            self.label_indices,
            self.label_indices_table,
            self.postings,
            self.postings_table,
            file_bytes.saturating_sub(TOC_BYTES as u64),
        ];
        starts.into_iter().filter(|s| *s > start).min().unwrap_or(start)
    }
}

#[cfg(test)]
mod tests;
