//! Letting go of old samples and of series without any, a little at a time.
//!
//! When every series of a large head ends at once, doing all of it in one go would hold up appends for seconds. So
//! it is done in steps of a few milliseconds, between which the owner appends: first chunks, then the series
//! themselves, then their traces in the postings. Between steps readers may see series without samples and label
//! values without series, never wrong samples. Invariant: a series that gets a sample meanwhile stays.

use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::truncate::TruncateReport;
use crate::error::TsdbError;
use crate::head::index::PairId;
use crate::head::series::PAGE;

/// Cells looked at in one step.
const CELLS: usize = 2048;
/// Series taken out in one step.
const SERIES: usize = 512;
/// Entries of postings looked at in one step.
const POSTINGS: usize = 50_000;
/// What forgetting a label pair costs beside, in entries.
const PAIR_COST: usize = 50;

/// Pairs, each once: sorting those of a million series would take longer than a step may.
#[derive(Default)]
pub(super) struct PairSet {
    list: Vec<PairId>,
    /// A bit for each pair in the list.
    bits: Vec<u64>,
}

impl PairSet {
    pub(super) fn add(&mut self, pair: PairId) {
        let (word, bit) = (pair as usize / 64, 1 << (pair % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit == 0 {
            self.bits[word] |= bit;
            self.list.push(pair);
        }
    }
}

/// Where a sweep is.
pub(super) struct Sweep {
    before: i64,
    cell: usize,
    /// Cells when it began; later series have nothing to let go of.
    cells: usize,
    /// Cells that had no samples left when they were looked at.
    dead: Vec<u32>,
    /// Pairs of series that were taken out.
    pairs: PairSet,
    /// Oldest time met or appended since.
    pub(super) min_time: i64,
    report: TruncateReport,
}

impl Shard {
    /// Begins to let go of what is before `before`. Nothing before it is taken or counted from now on.
    pub(super) fn begin_sweep(&mut self, before: i64) {
        self.min_valid = self.min_valid.max(before);
        self.view.counters.min_time.fetch_max(before, Relaxed);
        self.sweep = Some(Sweep {
            before,
            cell: 0,
            cells: self.table.hot.len(),
            dead: Vec::new(),
            pairs: PairSet::default(),
            min_time: i64::MAX,
            report: TruncateReport::default(),
        });
    }

    /// One step; the report when it was the last one, also when nothing was begun.
    pub(super) fn sweep_step(&mut self) -> Result<Option<TruncateReport>, TsdbError> {
        let Some(mut sweep) = self.sweep.take() else { return Ok(Some(TruncateReport::default())) };
        let mut outcome = Ok(());
        if sweep.cell < sweep.cells {
            outcome = self.sweep_cells(&mut sweep);
        } else if !sweep.dead.is_empty() {
            self.sweep_series(&mut sweep);
        } else if !sweep.pairs.list.is_empty() {
            self.sweep_pairs(&mut sweep);
        } else {
            self.end_sweep(&sweep);
            return Ok(Some(sweep.report));
        }
        self.sweep = Some(sweep);
        outcome.map(|()| None)
    }

    fn sweep_cells(&mut self, sweep: &mut Sweep) -> Result<(), TsdbError> {
        let (from, rule) = (sweep.cell, self.rule());
        let to = (from + CELLS).min(sweep.cells);
        sweep.cell = to;
        let (mut gone, mut outcome) = (0u64, Ok(()));
        for cell in (from..to).filter(|c| self.table.hot[*c].id != 0) {
            let mut series = self.table.pages[cell / PAGE].cell(cell).lock();
            debug_assert_eq!(series.id, self.table.hot[cell].id, "BUG: a cell belongs to another series");
            let had = series.chunk_count();
            match series.truncate(sweep.before, rule) {
                Ok(true) => sweep.min_time = sweep.min_time.min(series.first_time().unwrap_or(i64::MAX)),
                Ok(false) => sweep.dead.push(cell as u32),
                Err(e) => outcome = Err(e.into()),
            }
            gone += (had - series.chunk_count()) as u64;
        }
        sweep.report.chunks_removed += gone;
        self.view.counters.chunks.fetch_sub(gone, Relaxed);
        outcome
    }

    fn sweep_series(&mut self, sweep: &mut Sweep) {
        let from = sweep.dead.len().saturating_sub(SERIES);
        let dead: Vec<u32> = sweep.dead.drain(from..).collect();
        let before = self.table.len();
        self.table.remove(&self.view, &dead, &mut sweep.pairs);
        sweep.report.series_removed += (before - self.table.len()) as u64;
        self.view.counters.series.store(self.table.len() as u64, Relaxed);
    }

    fn sweep_pairs(&mut self, sweep: &mut Sweep) {
        let mut index = self.view.index.write();
        let mut cost = 0;
        while cost < POSTINGS {
            let Some(pair) = sweep.pairs.list.pop() else { break };
            cost += index.sweep_pair(pair) + PAIR_COST;
        }
    }

    fn end_sweep(&mut self, sweep: &Sweep) {
        self.table.renumber(&self.view);
        let counters = &self.view.counters;
        counters.min_time.store(sweep.min_time, Relaxed);
        if sweep.min_time == i64::MAX {
            counters.max_time.store(i64::MIN, Relaxed);
        }
    }

    /// The whole of it at once.
    pub(super) fn forget(&mut self, before: i64) -> Result<TruncateReport, TsdbError> {
        self.begin_sweep(before);
        self.finish_sweep()
    }

    pub(super) fn finish_sweep(&mut self) -> Result<TruncateReport, TsdbError> {
        loop {
            if let Some(report) = self.sweep_step()? {
                return Ok(report);
            }
        }
    }
}
