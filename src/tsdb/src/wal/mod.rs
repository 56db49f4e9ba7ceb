//! The write-ahead log of one shard: segments, the records in them, writing and syncing.
//!
//! Owns the files `NNNNNNNN.wal` and the framing (`docs/formats/wal.md`). Writing and syncing are split: the
//! shard writes a batch with one call, a `WalSyncer` on another thread makes everything written so far durable.
//! Invariants: what a failed write left is cut off before anything else is written; a failed sync closes the log;
//! a closed log never takes or confirms anything again: a new one takes its place (`Wal::abandon`).

pub(crate) mod exemplars;
mod files;
pub(crate) mod histograms;
pub(crate) mod metadata;
pub(crate) mod owners;
pub(crate) mod record;
pub(crate) mod samples;
pub(crate) mod segment;
mod syncer;
pub(crate) mod tombstones;
mod writer;

pub use files::{LogFile, LogFileKind};
pub use segment::segment_numbers;
pub use syncer::WalSyncer;
pub(crate) use writer::Wal;
