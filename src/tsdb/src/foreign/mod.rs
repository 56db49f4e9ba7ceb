//! Prometheus' own data directory: reading all of it, and moving in.
//!
//! `pages` walks over segments, `records` decodes what is in them, `head_chunks` reads mapped head chunks, `scan`
//! brings the directory's log together, `adopt` takes blocks over, `moving` puts all of it into shards and blocks
//! of ours. Layouts are Prometheus' (`tsdb/docs/format/{wal,head_chunks,tombstones}.md`, `tsdb/record`).
//!
//! Invariants: nothing in the directory is ever changed, so Prometheus can be started on it again; damage costs
//! what it covers and is reported; no file makes a reader panic or allocate more than a multiple of its size.
//! Records with start timestamps (types 11 to 13, an experimental flag of Prometheus) are not decoded: meeting one
//! is an error before anything was taken over, not a gap.

mod adopt;
mod head_chunks;
mod moving;
mod pages;
mod records;
mod scan;

use std::path::{Path, PathBuf};

pub use adopt::{DamagedBlock, adopt_block, blocks_to_adopt};
pub use head_chunks::{HeadChunk, read_head_chunks};
pub use moving::{Late, MoveReport, Moving};
pub use records::{Record, decode_record};
pub use scan::{Log, LogReport, Visit};

/// Whether the directory holds data of a Prometheus: a log, or blocks.
pub fn is_prometheus_dir(dir: &Path) -> bool {
    let has_blocks = || koios_block::list_blocks(dir).is_ok_and(|b| !b.is_empty());
    log_dir(dir).is_dir() || has_blocks()
}

fn log_dir(dir: &Path) -> PathBuf {
    dir.join("wal")
}
