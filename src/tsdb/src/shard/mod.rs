//! A head shard: the one writer of its head and its log.
//!
//! Owned by one actor or thread at a time (`&mut self`); everything readable is published through `HeadView`.
//! Invariant: memory changes only after the log took the record that explains the change.

mod append;
mod checkpoint;
mod delete;
mod exemplars;
mod floats;
mod late;
mod metadata;
mod recover;
mod replay;
mod restore;
mod spilling;
mod sweep;
mod table;
mod truncate;

pub use checkpoint::{CheckpointJob, CheckpointReport};
pub use delete::DeleteReport;
pub use replay::{Damage, ReplayReport};
pub use truncate::TruncateReport;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use koios_model::{Clock, Slot};

use crate::disk::{Disk, OsDisk};
use crate::error::TsdbError;
use crate::head::HeadView;
use crate::head::series::ChunkRule;
use crate::head::spill::Spill;
use crate::options::{ShardOptions, SyncMode};
use crate::types::Lsn;
use crate::wal::samples::SampleColumns;
use crate::wal::{Wal, WalSyncer};
use append::Staged;
use sweep::Sweep;
use table::SeriesTable;

/// One slice of the head with its log.
pub struct Shard {
    opts: ShardOptions,
    clock: Arc<dyn Clock>,
    view: Arc<HeadView>,
    wal: Wal,
    table: SeriesTable,
    /// Reference of the next new series.
    next_id: u64,
    /// Samples before this were truncated: a block has them. Remembered over a restart.
    min_valid: i64,
    /// Samples before this are refused because a block is being cut. Forgotten at a restart.
    refused_before: i64,
    /// Newest sample, `i64::MIN` when there never was one.
    max_time: i64,
    columns: SampleColumns,
    staged: Staged,
    frames: Vec<u8>,
    /// Records of the batch's samples while it is staged.
    body: Vec<u8>,
    /// The log is being rewritten after a failure: nothing is taken.
    sealed: bool,
    spill: Spill,
    /// A truncation that is under way.
    sweep: Option<Sweep>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shard({}, {:?})", self.opts.shard, self.view)
    }
}

impl Shard {
    /// Opens a shard in its directory, replaying what is there. A shard that was never there is created.
    ///
    /// # Errors
    /// `TsdbError` for options out of bounds and for directories that cannot be read or written. Damage in the
    /// log is not an error but part of the report.
    pub fn open(opts: ShardOptions, clock: Arc<dyn Clock>) -> Result<(Self, ReplayReport), TsdbError> {
        Self::open_on(opts, clock, Arc::new(OsDisk))
    }

    /// As `open`, with segments on another disk than the operating system's: for tests with faults.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_on(
        opts: ShardOptions,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Result<(Self, ReplayReport), TsdbError> {
        replay::open(opts, clock, disk)
    }

    /// The readable side. Cheap; keep it as long as you like.
    pub fn view(&self) -> Arc<HeadView> {
        self.view.clone()
    }

    /// The handle that makes the log durable.
    pub fn syncer(&self) -> WalSyncer {
        self.wal.syncer()
    }

    /// When an append counts as durable, for whoever answers it.
    pub fn sync_mode(&self) -> SyncMode {
        self.opts.wal.sync
    }

    /// Up to where the log is written.
    pub fn lsn(&self) -> Lsn {
        self.wal.lsn()
    }

    /// Slots that have series, ascending.
    pub fn slots_present(&self) -> Vec<Slot> {
        self.view.slots_present()
    }

    /// Oldest time that an append can have now; `i64::MIN` while everything goes. Half a block range before the
    /// newest sample, or the out-of-order window when that is longer.
    pub fn append_floor(&self) -> i64 {
        let newest = self.max_time.saturating_sub(self.opts.block_range_ms / 2).min(self.late_floor());
        self.min_valid.max(self.refused_before).max(newest)
    }

    /// Refuses samples before `t` from now on, without forgetting any: to be called on every shard before a block
    /// that ends at `t` is cut, so that nothing can arrive behind the cut. Not remembered over a restart.
    pub fn refuse_before(&mut self, t: i64) {
        self.refused_before = self.refused_before.max(t);
    }

    fn wal_dir(&self) -> PathBuf {
        self.opts.dir.join(WAL_DIR)
    }

    fn rule(&self) -> ChunkRule {
        self.view.rule
    }

    fn note_samples(&mut self, min: i64, max: i64, samples: u64, chunks: u64) {
        let c = &self.view.counters;
        self.max_time = self.max_time.max(max);
        if let Some(sweep) = &mut self.sweep {
            sweep.min_time = sweep.min_time.min(min);
        }
        c.samples_appended.fetch_add(samples, Relaxed);
        c.chunks.fetch_add(chunks, Relaxed);
        c.min_time.fetch_min(min, Relaxed);
        c.max_time.fetch_max(max, Relaxed);
    }
}

/// Directory of the log inside the shard's.
pub(crate) const WAL_DIR: &str = "wal";
