//! Reading the head, beside its writer.
//!
//! A `HeadView` may be kept as long as one likes and asked from any thread. A selection looks at a few hundred
//! series at a time, so that a new series never waits long for it. Invariant: what a call answers is the state
//! between two batches, never half of one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;

use koios_block::select_postings;
use koios_chunk::{Chunk, SeriesChunks};
use koios_model::metadata::MetricMetadata;
use koios_model::{Labels, Matcher, Slot};
use parking_lot::{Mutex, RwLock};

use super::exemplars::ExemplarRing;
use super::index::{GAP, Index};
use super::isolation::Isolation;
use super::series::ChunkRule;
use super::stats::{Cardinality, Counters, HeadStats, cardinality};
use crate::error::TsdbError;
use crate::options::ShardOptions;
use crate::types::{ExemplarStats, SeriesExemplars};

/// Series looked at under one hold of the index lock.
const PIECE: usize = 512;

/// The readable side of a shard.
pub struct HeadView {
    shard: u16,
    pub(crate) rule: ChunkRule,
    late_window_ms: i64,
    pub(crate) exemplars: RwLock<ExemplarRing>,
    pub(crate) metadata: RwLock<BTreeMap<String, MetricMetadata>>,
    /// How many deletions there were: a checkpoint must not reach over one.
    pub(crate) deletions: AtomicU64,
    /// Held while a checkpoint is written: two would share the temporary name.
    pub(crate) checkpointing: Mutex<()>,
    pub(crate) index: RwLock<Index>,
    pub(crate) isolation: Isolation,
    pub(crate) counters: Counters,
}

impl std::fmt::Debug for HeadView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeadView(shard {}, {:?})", self.shard, self.stats())
    }
}

/// A selection was overtaken by the removal of series and starts again.
struct Renumbered;

impl HeadView {
    pub(crate) fn new(opts: &ShardOptions) -> Self {
        let (index, isolation, counters) = Default::default();
        Self {
            shard: opts.shard,
            rule: ChunkRule { range_ms: opts.block_range_ms, samples: opts.samples_per_chunk },
            late_window_ms: opts.out_of_order_window_ms,
            exemplars: RwLock::new(ExemplarRing::new(opts.exemplars_max as usize)),
            metadata: RwLock::default(),
            deletions: AtomicU64::new(0),
            checkpointing: Mutex::default(),
            index,
            isolation,
            counters,
        }
    }

    /// Number of the shard this shows.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Series that satisfy all matchers and have samples in `mint..=maxt`, in no particular order, with the
    /// chunks that overlap the range, in time order and without overlap.
    ///
    /// # Errors
    /// `TsdbError::Chunk` when a chunk in memory does not decode.
    pub fn select(&self, matchers: &[Matcher], mint: i64, maxt: i64) -> Result<Vec<SeriesChunks>, TsdbError> {
        self.select_if(matchers, mint, maxt, &|_| true)
    }

    /// As `select`, but only series that `keep` wants; chunks are read of these alone.
    ///
    /// # Errors
    /// As `select`.
    pub fn select_if(
        &self,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
        keep: &dyn Fn(&Labels) -> bool,
    ) -> Result<Vec<SeriesChunks>, TsdbError> {
        loop {
            let reader = self.isolation.read();
            let mut out = Vec::new();
            let mut chunks = Vec::new();
            let done = self.scan(matchers, &mut |index, ordinal| {
                let series = &index.series[ordinal as usize];
                let labels = index.labels(series);
                if !keep(&labels) {
                    return Ok(());
                }
                if let Some(cell) = index.cell(series.cell) {
                    cell.lock().read(mint, maxt, reader.upto, self.rule, &mut chunks)?;
                }
                if !chunks.is_empty() {
                    let chunks: Vec<Chunk> = std::mem::take(&mut chunks);
                    out.push(SeriesChunks { labels, slot: series.slot, chunks });
                }
                Ok(())
            })?;
            if done.is_ok() {
                return Ok(out);
            }
        }
    }

    /// Labels and slots of the series that satisfy all matchers and have samples in `mint..=maxt`.
    ///
    /// # Errors
    /// `TsdbError::Chunk` when a chunk in memory does not decode.
    pub fn series(
        &self,
        matchers: &[Matcher],
        mint: i64,
        maxt: i64,
    ) -> Result<Vec<(Slot, Labels)>, TsdbError> {
        let found = self.select(matchers, mint, maxt)?;
        Ok(found.into_iter().map(|s| (s.slot, s.labels)).collect())
    }

    /// Label names of the series that satisfy all matchers, sorted.
    pub fn label_names(&self, matchers: &[Matcher]) -> Vec<String> {
        if matchers.is_empty() {
            return self.index.read().names().map(str::to_owned).collect();
        }
        self.collect(matchers, |index, ordinal, out| {
            for &p in index.pairs_of(&index.series[ordinal as usize]) {
                let name = &*index.pairs[p as usize].name;
                if !out.contains(name) {
                    out.insert(name.to_owned());
                }
            }
        })
    }

    /// Values of a label among the series that satisfy all matchers, sorted.
    pub fn label_values(&self, name: &str, matchers: &[Matcher]) -> Vec<String> {
        if matchers.is_empty() {
            return self.index.read().values(name).map(str::to_owned).collect();
        }
        self.collect(matchers, |index, ordinal, out| {
            let pairs = index.pairs_of(&index.series[ordinal as usize]);
            let mut pairs = pairs.iter().map(|&p| &index.pairs[p as usize]);
            if let Some(pair) = pairs.find(|p| &*p.name == name)
                && !out.contains(&*pair.value)
            {
                out.insert((*pair.value).to_owned());
            }
        })
    }

    /// Slots that have series, ascending.
    pub fn slots_present(&self) -> Vec<Slot> {
        let index = self.index.read();
        let there = index.series.iter().filter(|s| s.cell != GAP);
        there.map(|s| s.slot).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Exemplars with `start <= t <= end` of the series that satisfy all matchers of any set, by labels and slot.
    /// Series that left the head keep theirs until newer ones take the room.
    pub fn exemplars(&self, sets: &[Vec<Matcher>], start: i64, end: i64) -> Vec<SeriesExemplars> {
        self.exemplars.read().select(sets, start, end)
    }

    /// Counts of exemplars.
    pub fn exemplar_stats(&self) -> ExemplarStats {
        self.exemplars.read().stats()
    }

    /// Counts.
    pub fn stats(&self) -> HeadStats {
        let pairs = self.index.read().pair_counts().count() as u64;
        self.counters.snapshot(pairs, self.late_window_ms)
    }

    /// The `limit` largest contributors of each kind.
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        cardinality(&self.index.read(), limit)
    }

    /// Bytes that samples take in memory; walks all series.
    pub fn sample_bytes(&self) -> usize {
        let index = self.index.read();
        index.series.iter().filter_map(|s| index.cell(s.cell)).map(|c| c.lock().heap_bytes()).sum()
    }

    fn collect(
        &self,
        matchers: &[Matcher],
        visit: impl Fn(&Index, u32, &mut BTreeSet<String>),
    ) -> Vec<String> {
        loop {
            let mut out = BTreeSet::new();
            let done = self.scan(matchers, &mut |index, ordinal| {
                visit(index, ordinal, &mut out);
                Ok(())
            });
            if matches!(done, Ok(Ok(()))) {
                return out.into_iter().collect();
            }
        }
    }

    /// Visits the series that satisfy the matchers, letting go of the index now and then.
    fn scan(
        &self,
        matchers: &[Matcher],
        visit: &mut dyn FnMut(&Index, u32) -> Result<(), TsdbError>,
    ) -> Result<Result<(), Renumbered>, TsdbError> {
        let (epoch, found) = {
            let index = self.index.read();
            let Ok(found) = select_postings(&*index, matchers);
            (index.epoch, found)
        };
        for piece in found.chunks(PIECE) {
            let index = self.index.read();
            if index.epoch != epoch {
                return Ok(Err(Renumbered));
            }
            let there = piece.iter().filter(|o| index.series[**o as usize].cell != GAP);
            there.copied().try_for_each(|ordinal| visit(&index, ordinal))?;
        }
        Ok(Ok(()))
    }

    /// Visits all series in the order of their references; now and then lets go of the index and calls `between`.
    /// Series that come or go meanwhile may or may not be seen.
    pub(crate) fn walk(
        &self,
        visit: &mut dyn FnMut(&Index, usize) -> Result<(), TsdbError>,
        between: &mut dyn FnMut() -> Result<(), TsdbError>,
    ) -> Result<(), TsdbError> {
        let mut seen = 0;
        loop {
            {
                let index = self.index.read();
                let from = index.after(seen);
                let to = (from + PIECE).min(index.series.len());
                if from == to {
                    return Ok(());
                }
                for ordinal in from..to {
                    visit(&index, ordinal)?;
                    seen = index.series[ordinal].id;
                }
            }
            between()?;
        }
    }
}
