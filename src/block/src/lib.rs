//! Blocks: immutable directories of samples, laid out byte for byte as Prometheus lays them out.
//!
//! Owns `meta.json` (with the `thanos` section), the index (writes version 2, reads 1 to 3), chunk
//! segments, tombstones, and the evaluation of label matchers over sorted postings, which the head shares.
//! Refuses the head, retention, compaction planning, object storage and time.
//!
//! Invariants: a directory named by a ULID is complete, because it is written under a temporary name, synced
//! and renamed; every read is bounds-checked and checksummed, so hostile bytes give a `BlockError` and never a
//! panic; a block that opened is never written to.
//!
//! Formats are drawn in `docs/formats/{index,chunk,block}.md`.

mod block;
mod crc;
mod cursor;
mod dec;
mod dir;
mod error;
mod extents;
mod index;
mod mmap;
mod postings;
mod segment;
mod tombstones;
mod wanted;
mod writer;

pub mod meta;

pub use block::{Block, VerifyReport};
pub use crc::crc32c;
pub use cursor::Cursor;
pub use dir::{BlockEntry, link_block, list_blocks, remove_block, remove_leftovers, sync_dir};
pub use error::BlockError;
pub use extents::{Extents, Present};
pub use index::{ChunkRef, IndexReader, IndexWriter, LastLabels, SeriesEntry, SortedIndexWriter};
pub use meta::{BlockMeta, BlockMetaExtras};
pub use mmap::map_file;
pub use postings::{PostingsSource, ValueTest, intersect, select_postings, subtract, union};
pub use segment::{SegmentReader, SegmentWriter};
pub use tombstones::{Interval, Tombstones};
pub use wanted::{Piece, index_parts};
pub use writer::BlockWriter;
