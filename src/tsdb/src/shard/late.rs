//! Samples that are older than the newest of their series: taken within the window, logged, put between the others.
//!
//! The rules are Prometheus' (`memSeries.appendable`): nothing older than the window before the newest sample of
//! the head, and at a time that has a sample already the first one stays, without a word. Invariant: of one batch
//! the ordinary samples are applied and logged first, so replaying decides as the shard did.

use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::append::Bounds;
use crate::head::late::Writer;
use crate::head::series::PAGE;
use crate::types::{Reject, Value};
use crate::wal::histograms::{self, RawHistogram};
use crate::wal::record::put_late;
use crate::wal::samples::SampleColumns;
use crate::wal::segment::put_frame;

/// An out-of-order sample of the batch.
pub(super) struct StagedLate {
    cell: u32,
    t: i64,
    v: Value,
}

impl Shard {
    /// Oldest time of an out-of-order sample; `i64::MAX` when none is taken.
    pub(super) fn late_floor(&self) -> i64 {
        match self.opts.out_of_order_window_ms {
            0 => i64::MAX,
            window => self.max_time.saturating_sub(window),
        }
    }

    /// Takes a sample that is older than the newest of its series. Answers the series' reference.
    #[cold]
    pub(super) fn stage_late(
        &mut self,
        cell: u32,
        t: i64,
        v: &Value,
        bounds: &Bounds,
    ) -> Result<u64, (u64, Reject)> {
        let id = self.table.hot[cell as usize].id;
        if self.opts.out_of_order_window_ms == 0 {
            return Err((id, Reject::OutOfOrder));
        }
        if t < bounds.late {
            return Err((id, Reject::TooOld));
        }
        self.staged.late.push(StagedLate { cell, t, v: v.clone() });
        Ok(id)
    }

    /// Adds the records of the batch's late samples, in their order.
    pub(super) fn frame_late(&mut self) {
        let hot = &self.table.hot;
        for run in
            self.staged.late.chunk_by(|a, b| std::mem::discriminant(&a.v) == std::mem::discriminant(&b.v))
        {
            let id = |s: &StagedLate| hot[s.cell as usize].id;
            let (mut columns, mut values) = (SampleColumns::default(), Vec::new());
            for s in run {
                match s.v {
                    Value::Float(v) => columns.push(id(s), s.t, v, 0.0),
                    _ => values.push(RawHistogram { id: id(s), t: s.t, v: s.v.clone() }),
                }
            }
            put_frame(&mut self.frames, |out| {
                put_late(out, |out| {
                    if values.is_empty() { columns.put(out) } else { histograms::put(out, &values) }
                });
            });
        }
    }

    /// Puts the batch's late samples into their series; the ordinary ones are there already. Answers the oldest
    /// time, `i64::MAX` without any.
    pub(super) fn apply_late(&mut self, batch: u64, oldest_reader: u64) -> i64 {
        let (who, rule) = (Writer::new(batch, oldest_reader), self.rule());
        let (mut min, mut taken, mut chunks) = (i64::MAX, 0, 0u64);
        let all = self.staged.late.len() as u64;
        for s in self.staged.late.drain(..) {
            let cell = s.cell as usize;
            let mut series = self.table.pages[cell / PAGE].cell(cell).lock();
            let before = series.chunk_count() as u64;
            series.begin_batch(batch, oldest_reader);
            if series.insert_late(s.t, &s.v, who, rule) {
                (min, taken) = (min.min(s.t), taken + 1);
                // Putting chunks in order makes fewer of them.
                chunks = chunks.wrapping_add((series.chunk_count() as u64).wrapping_sub(before));
            }
        }
        let c = &self.view.counters;
        c.late_appended.fetch_add(taken, Relaxed);
        c.late_repeated.fetch_add(all - taken, Relaxed);
        c.samples_appended.fetch_add(taken, Relaxed);
        c.chunks.fetch_add(chunks, Relaxed);
        min
    }
}
