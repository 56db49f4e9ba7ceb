//! Deleting samples from the head: by matchers and a stretch of time, at once and for good.
//!
//! The record names the series that were met, so replaying does not search again. Samples leave their chunks right
//! away instead of being masked; a series without any stays until the next truncation. A deletion begins a new
//! segment, because values are coded against earlier ones of the same segment. Invariant: a checkpoint never
//! reaches over a deletion; one that is being written meanwhile is given up (`CheckpointJob::run`).

use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use koios_block::select_postings;
use koios_model::Matcher;

use super::Shard;
use super::spilling::PIECE;
use crate::error::TsdbError;
use crate::head::series::PAGE;
use crate::types::{Lsn, Value};
use crate::wal::segment::put_frame;
use crate::wal::tombstones::{self, Tombstone};

/// What a deletion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeleteReport {
    /// Durable once the syncer reports at least this.
    pub lsn: Lsn,
    /// Series that had samples in the range.
    pub series: u64,
}

impl Shard {
    /// Deletes all samples with `mint <= t <= maxt` of the series that satisfy all matchers of any set. They are
    /// invisible when this returns. Blocks for every such series; what lies in blocks is not touched.
    ///
    /// # Errors
    /// `TsdbError::Unavailable`, `Poisoned`: nothing was deleted. `Chunk` when a chunk in memory does not decode;
    /// its samples stay.
    pub fn delete(&mut self, sets: &[Vec<Matcher>], mint: i64, maxt: i64) -> Result<DeleteReport, TsdbError> {
        let mut ids = Vec::new();
        {
            let index = self.view.index.read();
            for set in sets {
                let Ok(found) = select_postings(&*index, set);
                ids.extend(found.into_iter().map(|ordinal| &index.series[ordinal as usize]).filter_map(
                    |s| {
                        let cell = index.cell(s.cell)?.lock();
                        cell.has_between(mint, maxt).then_some(s.id)
                    },
                ));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Ok(DeleteReport { lsn: self.wal.lsn(), series: 0 });
        }
        self.prepare()?;
        self.wal.rotate()?;
        let stone = Tombstone::new(mint, maxt, &ids);
        self.frames.clear();
        put_frame(&mut self.frames, |out| tombstones::put(out, &stone));
        let lsn = self.wal.write(&self.frames)?;
        self.view.deletions.fetch_add(1, SeqCst);
        self.bury(&stone)?;
        Ok(DeleteReport { lsn, series: ids.len() as u64 })
    }

    /// Takes the samples out of memory.
    pub(super) fn bury(&mut self, stone: &Tombstone) -> Result<(), TsdbError> {
        let (mut outcome, mut shortened) = (Ok(()), Vec::new());
        for &(first, last) in &stone.runs {
            // A run of a hostile record may be longer than there are references.
            for id in first..=last.min(self.next_id) {
                if let Some(cell) = self.table.cell_of(id) {
                    outcome = outcome.and(self.bury_one(cell, stone.mint, stone.maxt));
                    shortened.push(cell);
                    if shortened.len() >= PIECE {
                        self.spill_cells(&mut shortened);
                    }
                }
            }
        }
        self.spill_cells(&mut shortened);
        self.recount();
        outcome
    }

    fn bury_one(&mut self, cell: u32, mint: i64, maxt: i64) -> Result<(), TsdbError> {
        let rule = self.rule();
        let mut series = self.table.pages[cell as usize / PAGE].cell(cell as usize).lock();
        series.remove(mint, maxt, rule)?;
        let hot = &mut self.table.hot[cell as usize];
        match series.last() {
            // In no segment, so it is no base of what comes.
            Some((t, Value::Float(v))) => {
                hot.note_float(t, v, 0);
                self.table.histograms.remove(&cell);
            }
            Some((t, v)) => {
                hot.note_histogram(t);
                self.table.histograms.insert(cell, v);
            }
            None => {
                hot.note_float(i64::MIN, 0.0, 0);
                self.table.histograms.remove(&cell);
            }
        }
        Ok(())
    }

    /// Counts what is in memory anew.
    pub(super) fn recount(&self) {
        let (mut min_time, mut max_time, mut chunks) = (i64::MAX, i64::MIN, 0);
        for (cell, _) in self.table.hot.iter().enumerate().filter(|(_, h)| h.id != 0) {
            let series = self.table.pages[cell / PAGE].cell(cell).lock();
            min_time = min_time.min(series.first_time().unwrap_or(i64::MAX));
            max_time = max_time.max(series.last_time().unwrap_or(i64::MIN));
            chunks += series.chunk_count() as u64;
        }
        let counters = &self.view.counters;
        counters.chunks.store(chunks, Relaxed);
        counters.min_time.store(min_time, Relaxed);
        counters.max_time.store(max_time, Relaxed);
    }
}
