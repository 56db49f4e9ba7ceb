//! What was asked of the bucket to serve blocks, and what of it was needed.
//!
//! Counts only go up. `touched` is what questions read, wherever it came from; `fetched` is what the bucket sent, gaps between
//! wanted ranges and wrong guesses of lengths included.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Symbols and the table of postings lists.
    Header,
    /// Postings lists.
    Postings,
    /// Entries of series.
    Series,
    /// Chunks.
    Chunks,
}

impl Data {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Header, Self::Postings, Self::Series, Self::Chunks];

    /// As Thanos' metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Postings => "postings",
            Self::Series => "series",
            Self::Chunks => "chunks",
        }
    }
}

/// Counts of one part.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests for ranges.
    pub requests: AtomicU64,
    /// Bytes that came.
    pub fetched_bytes: AtomicU64,
    /// Lists, entries and chunks that questions read.
    pub touched: AtomicU64,
    /// Their bytes.
    pub touched_bytes: AtomicU64,
}

/// Counts of all parts.
#[derive(Debug, Default)]
pub struct StoreCounts([Counts; 4]);

impl StoreCounts {
    /// Those of one part.
    pub fn of(&self, data: Data) -> &Counts {
        &self.0[data as usize]
    }

    /// Bytes fetched, and bytes of what questions read, of all parts.
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |f: fn(&Counts) -> &AtomicU64| self.0.iter().map(|c| f(c).load(Ordering::Relaxed)).sum();
        (sum(|c| &c.fetched_bytes), sum(|c| &c.touched_bytes))
    }

    pub(crate) fn fetched(&self, data: Data, bytes: u64) {
        let counts = self.of(data);
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn touched(&self, data: Data, items: u64, bytes: u64) {
        let counts = self.of(data);
        counts.touched.fetch_add(items, Ordering::Relaxed);
        counts.touched_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
