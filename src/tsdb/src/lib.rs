//! The storage engine of one core: a head shard in memory, its write-ahead log, and the way into blocks.
//!
//! Owns: series and their open chunks (`head`), the log with its checkpoints (`wal`), appending, replay and
//! truncation (`shard`), cutting a block out of one or more shards (`cut`), and taking over the data directory of a
//! Prometheus (`foreign`). Refuses: threads, timers,
//! network, and any clock but the one handed in; grouping commits and deciding when to cut belong to the actor
//! that owns a shard.
//!
//! Invariants: a sample is in the log before it can be read; a batch becomes readable as a whole; readers never
//! wait for an append or a sync; what was truncated does not come back after a restart; a log that failed to
//! sync takes no more writes until it is opened again.
//!
//! Samples that are older than the newest of their series are taken within a window and put between the others
//! (`head/late`). Exemplars live in a ring of their own (`head/exemplars`). Deleting takes samples out of
//! memory at once and is logged (`shard/delete`).

mod cut;
mod disk;
mod error;
pub mod foreign;
mod head;
mod options;
mod shard;
mod types;
mod wal;

pub use cut::{cut_block, next_cut_range};
pub use disk::{Disk, DiskFile, OsDisk};
pub use error::TsdbError;
pub use head::{Cardinality, HeadStats, HeadView};
pub use options::{ShardOptions, SyncMode, WalOptions};
pub use shard::{CheckpointJob, CheckpointReport, Damage, DeleteReport, ReplayReport, Shard, TruncateReport};
pub use types::{
    AppendBatch, Appended, Entry, ExemplarEntry, ExemplarReject, ExemplarStats, ExemplarsAppended, Lsn,
    Reject, SeriesExemplars, SeriesKey, SeriesRef, Value,
};
pub use wal::{LogFile, LogFileKind, WalSyncer, segment_numbers};

pub use koios_chunk::SeriesChunks;
