//! Compaction: fewer and larger blocks out of many small ones, and what else is done to finished blocks.
//!
//! Owns the planner (metas in, plan out), the rules between several compactors, the streaming merge of blocks, retention,
//! deletion by tombstones, and what `koios tsdb` shows of blocks. Refuses schedules, object storage, the clock and the
//! catalogue: the caller says when and where, and takes sources away after the output is served.
//!
//! Invariants: a merge holds every sample of its sources that is not deleted, each instant once, chosen by a rule that
//! looks at the samples alone, the one that queries use; blocks of different external labels never meet; memory is
//! bounded by one series' chunks and the output's index, not by the blocks.

pub mod bucket;
mod coarse_histograms;
mod dedup;
mod delete;
pub mod disk;
pub mod downsample;
mod error;
pub mod lead;
mod merge;
mod plan;
pub mod retention;
mod series;
pub mod show;
mod texts;
mod walk;

pub use dedup::dedup_series;
pub use delete::delete_from_block;
pub use error::CompactError;
pub use merge::{How, Merge, downsample_block, merge_blocks};
pub use plan::{Plan, Reason, level_ranges, plan};
pub use series::merge_series;
pub use walk::{Found, Walk};
