//! Settings of a shard, with the bounds they are held to.

use std::path::PathBuf;

use crate::error::TsdbError;

/// Longest range of one block, milliseconds: a head chunk never spans more, and its length is kept in 32 bits.
pub(crate) const BLOCK_RANGE_MAX_MS: i64 = 31 * 86_400_000;
/// Most entries of one batch.
pub(crate) const BATCH_ENTRIES_MAX: usize = 1 << 20;

/// When a write counts as durable. The shard only writes; whoever owns it syncs and answers accordingly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// Answer after the sync that covers the batch.
    #[default]
    Batch,
    /// Answer after the write; sync every so often.
    Interval,
    /// Answer after the write; leave syncing to the operating system.
    Os,
}

/// Settings of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// When to answer.
    pub sync: SyncMode,
    /// A new segment begins once the current one has this many bytes.
    pub segment_bytes: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { sync: SyncMode::Batch, segment_bytes: 64 << 20 }
    }
}

/// Settings of a head shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardOptions {
    /// Directory of this shard alone.
    pub dir: PathBuf,
    /// Number of the shard, for messages.
    pub shard: u16,
    /// Range of a block, and of what a chunk may span; milliseconds.
    pub block_range_ms: i64,
    /// Samples a chunk aims for.
    pub samples_per_chunk: u16,
    /// How far ahead of the clock a sample may be, milliseconds.
    pub future_limit_ms: i64,
    /// How far behind the newest sample of the shard an out-of-order sample may be, milliseconds; 0 takes none.
    pub out_of_order_window_ms: i64,
    /// Most series at a time.
    pub series_max: u32,
    /// Most exemplars of this shard; 0 takes none.
    pub exemplars_max: u32,
    /// Whether closed chunks go to unnamed files in `dir`, so that they need not stay in memory.
    pub spill: bool,
    /// The log.
    pub wal: WalOptions,
}

impl ShardOptions {
    /// Defaults: two-hour blocks, 120 samples a chunk, 10 minutes ahead, 30 minutes behind, 10 million series,
    /// 100,000 exemplars, closed chunks on disk.
    pub fn new(dir: impl Into<PathBuf>, shard: u16) -> Self {
        Self {
            dir: dir.into(),
            shard,
            block_range_ms: 2 * 3_600_000,
            samples_per_chunk: 120,
            future_limit_ms: 600_000,
            out_of_order_window_ms: 1_800_000,
            series_max: 10_000_000,
            exemplars_max: 100_000,
            spill: true,
            wal: WalOptions::default(),
        }
    }

    /// # Errors
    /// `TsdbError::Options` for a value outside of its bounds.
    pub(crate) fn check(&self) -> Result<(), TsdbError> {
        let bad = |what: String| Err(TsdbError::Options(what));
        if !(1..=BLOCK_RANGE_MAX_MS).contains(&self.block_range_ms) {
            return bad(format!(
                "block range {} ms is not within 1..={BLOCK_RANGE_MAX_MS}",
                self.block_range_ms
            ));
        }
        if !(4..=8192).contains(&self.samples_per_chunk) {
            return bad(format!("{} samples per chunk is not within 4..=8192", self.samples_per_chunk));
        }
        if !(1024..=(1 << 30)).contains(&self.wal.segment_bytes) {
            return bad(format!("segments of {} bytes are not within 1 KiB..=1 GiB", self.wal.segment_bytes));
        }
        if self.future_limit_ms < 0 {
            return bad(format!("future limit {} ms is negative", self.future_limit_ms));
        }
        if !(0..=BLOCK_RANGE_MAX_MS).contains(&self.out_of_order_window_ms) {
            return bad(format!(
                "out-of-order window {} ms is not within 0..={BLOCK_RANGE_MAX_MS}",
                self.out_of_order_window_ms
            ));
        }
        Ok(())
    }
}
