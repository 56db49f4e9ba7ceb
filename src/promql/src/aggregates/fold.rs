//! Accumulators of the simple aggregations, one per group, with one slot per step.
//!
//! Sums and means are Kahan-Neumaier compensated; a mean whose sum would overflow goes on incrementally;
//! variances are Welford's. Floats and histograms in one slot of `sum` or `avg` cancel each other out.

use std::sync::Arc;

use koios_model::histogram::HistogramSum;
use koios_model::kahan::kahan_inc;
use koios_model::{CounterReset, FloatHistogram};

use crate::engine::{Cell, Column, HistOp, Notes, Point, Row};
use crate::syntax::ast::{AggOp, Span};

/// The state of one group.
pub(super) struct Fold {
    op: AggOp,
    /// Number of elements per step; for `min` and `max` whether there is any.
    counts: Vec<f64>,
    values: Vec<f64>,
    comps: Vec<f64>,
    /// Slots whose mean is incremental.
    incremental: Option<Vec<bool>>,
    hists: Option<Vec<Option<HistSlot>>>,
    reconciled: bool,
    collision: bool,
}

/// Histograms of one slot.
struct HistSlot {
    sum: HistogramSum,
    n: f64,
    incremental: bool,
    broken: bool,
    seen_reset: bool,
    seen_not_reset: bool,
    only: Option<Arc<FloatHistogram>>,
}

impl Fold {
    pub fn new(op: AggOp, steps: usize) -> Self {
        let with_comps = matches!(op, AggOp::Sum | AggOp::Avg | AggOp::Stddev | AggOp::Stdvar);
        Self {
            op,
            counts: vec![0.0; steps],
            values: vec![0.0; steps],
            comps: if with_comps { vec![0.0; steps] } else { Vec::new() },
            incremental: None,
            hists: None,
            reconciled: false,
            collision: false,
        }
    }

    pub fn add(&mut self, row: &Row, notes: &Notes, span: Span) {
        let ignored = matches!(self.op, AggOp::Min | AggOp::Max | AggOp::Stddev | AggOp::Stdvar);
        if ignored && row.col.has_hists() {
            notes.histogram_ignored(span, self.op.as_str());
        }
        if !row.col.has_hists() {
            return self.add_floats(&row.col);
        }
        for (i, cell) in row.col.present() {
            match (self.op, cell) {
                (AggOp::Count | AggOp::Group, _) => self.counts[i] += 1.0,
                (_, Cell::Hist(h)) if !ignored => self.add_hist(i, h, notes, span, row.labels.metric_name()),
                (_, Cell::Float(v)) => self.add_float(i, v),
                _ => {}
            }
        }
    }

    /// A row that stands for several elements; of `count` it says how many.
    pub fn add_partial(&mut self, row: &Row) {
        if self.op != AggOp::Count {
            return self.add_floats(&row.col);
        }
        let values = row.col.raw().iter().enumerate().filter(|(_, v)| Column::is_present(**v));
        values.for_each(|(i, v)| self.counts[i] += v);
    }

    /// A row of floats only; the common operators have loops of their own.
    fn add_floats(&mut self, col: &Column) {
        let values = col.raw().iter().enumerate().filter(|(_, v)| Column::is_present(**v));
        match self.op {
            AggOp::Count | AggOp::Group => values.for_each(|(i, _)| self.counts[i] += 1.0),
            AggOp::Sum => {
                for (i, v) in values {
                    self.counts[i] = 1.0;
                    (self.values[i], self.comps[i]) = kahan_inc(*v, self.values[i], self.comps[i]);
                }
            }
            _ => {
                for (i, v) in values {
                    self.add_float(i, *v);
                }
            }
        }
    }

    fn add_float(&mut self, i: usize, v: f64) {
        self.counts[i] += 1.0;
        let n = self.counts[i];
        let value = &mut self.values[i];
        match self.op {
            AggOp::Sum => (*value, self.comps[i]) = kahan_inc(v, *value, self.comps[i]),
            AggOp::Min if n == 1.0 || v < *value || value.is_nan() => *value = v,
            AggOp::Max if n == 1.0 || v > *value || value.is_nan() => *value = v,
            AggOp::Avg => self.add_mean(i, v),
            AggOp::Stddev | AggOp::Stdvar => {
                // `comps` holds the mean here.
                if n == 1.0 {
                    self.comps[i] = v;
                    *value = if v.is_finite() { 0.0 } else { f64::NAN };
                } else {
                    let delta = v - self.comps[i];
                    self.comps[i] += delta / n;
                    *value += delta * (v - self.comps[i]);
                }
            }
            _ => {}
        }
    }

    fn add_mean(&mut self, i: usize, v: f64) {
        let n = self.counts[i];
        let is_incremental = self.incremental.as_ref().is_some_and(|m| m[i]);
        if n == 1.0 {
            self.values[i] = v;
            return;
        }
        if !is_incremental {
            let (sum, c) = kahan_inc(v, self.values[i], self.comps[i]);
            if !sum.is_infinite() {
                (self.values[i], self.comps[i]) = (sum, c);
                return;
            }
            let steps = self.values.len();
            self.incremental.get_or_insert_with(|| vec![false; steps])[i] = true;
            self.values[i] /= n - 1.0;
            self.comps[i] /= n - 1.0;
        }
        let q = (n - 1.0) / n;
        (self.values[i], self.comps[i]) = kahan_inc(v / n, q * self.values[i], q * self.comps[i]);
    }

    fn add_hist(&mut self, i: usize, h: &Arc<FloatHistogram>, notes: &Notes, span: Span, metric: &str) {
        let steps = self.values.len();
        let hists = self.hists.get_or_insert_with(|| (0..steps).map(|_| None).collect());
        let Some(slot) = &mut hists[i] else {
            hists[i] = Some(HistSlot::new(h));
            return;
        };
        if slot.broken {
            return;
        }
        match slot.add(h, self.op == AggOp::Avg) {
            Some(reconciled) => self.reconciled |= reconciled,
            None => {
                slot.broken = true;
                notes.mixed_exponential_custom(span, metric);
            }
        }
    }

    pub fn finish(mut self, notes: &Notes, span: Span) -> Column {
        let mut col = Column::absent(self.values.len());
        for i in 0..self.values.len() {
            let slot = self.hists.as_mut().and_then(|h| h[i].take());
            if let Some(slot) = slot {
                if self.counts[i] > 0.0 {
                    notes.mixed_floats_histograms_agg(span);
                    continue;
                }
                self.collision |= slot.seen_reset && slot.seen_not_reset;
                if !slot.broken {
                    col.set(i, slot.finish(self.op == AggOp::Avg).into());
                }
                continue;
            }
            if let Some(v) = self.float_result(i) {
                col.set(i, Point::Float(v));
            }
        }
        if self.collision {
            notes.reset_collision(span, HistOp::Agg);
        }
        if self.reconciled {
            notes.mismatched_custom(span, HistOp::Agg);
        }
        col
    }

    fn float_result(&self, i: usize) -> Option<f64> {
        let n = self.counts[i];
        if n == 0.0 {
            return None;
        }
        let v = self.values[i];
        Some(match self.op {
            AggOp::Count => n,
            AggOp::Group => 1.0,
            AggOp::Sum => v + self.comps[i],
            AggOp::Avg if self.incremental.as_ref().is_some_and(|m| m[i]) => v + self.comps[i],
            AggOp::Avg => v / n + self.comps[i] / n,
            AggOp::Stdvar => v / n,
            AggOp::Stddev => (v / n).sqrt(),
            _ => v,
        })
    }
}

impl HistSlot {
    fn new(h: &Arc<FloatHistogram>) -> Self {
        let mut slot = Self {
            sum: HistogramSum::new(h),
            n: 1.0,
            incremental: false,
            broken: false,
            seen_reset: false,
            seen_not_reset: false,
            only: Some(h.clone()),
        };
        slot.track(h);
        slot
    }

    fn track(&mut self, h: &FloatHistogram) {
        self.seen_reset |= h.hint == CounterReset::Reset;
        self.seen_not_reset |= h.hint == CounterReset::NotReset;
    }

    /// Whether custom bounds had to be reconciled; `None` when the histograms do not fit together.
    fn add(&mut self, h: &FloatHistogram, mean: bool) -> Option<bool> {
        self.track(h);
        self.only = None;
        add_to_sum(&mut self.sum, h, &mut self.n, &mut self.incremental, mean)
    }

    fn finish(self, mean: bool) -> FloatHistogram {
        if let Some(h) = self.only {
            let mut h = (*h).clone();
            h.compact();
            return h;
        }
        finish_sum(self.sum, self.n, self.incremental, mean)
    }
}

/// Adds the next histogram to a sum, or to a mean that turns incremental before it overflows. `n` counts.
/// Gives whether custom bounds were reconciled, `None` when the histograms do not fit together.
pub(crate) fn add_to_sum(
    sum: &mut HistogramSum,
    h: &FloatHistogram,
    n: &mut f64,
    incremental: &mut bool,
    mean: bool,
) -> Option<bool> {
    *n += 1.0;
    if !mean {
        return sum.add(h, 1.0).ok().map(|m| m.bounds_reconciled);
    }
    if !*incremental {
        let mut next = sum.clone();
        let merged = next.add(h, 1.0).ok()?;
        if !next.has_overflow() {
            *sum = next;
            return Some(merged.bounds_reconciled);
        }
        *incremental = true;
        let before = *n - 1.0;
        sum.scale(|v| v / before);
    }
    let q = (*n - 1.0) / *n;
    sum.scale(|v| v * q);
    sum.add(h, *n).ok().map(|m| m.bounds_reconciled)
}

/// The sum or mean as a histogram.
pub(crate) fn finish_sum(mut sum: HistogramSum, n: f64, incremental: bool, mean: bool) -> FloatHistogram {
    if mean && !incremental {
        sum.scale(|v| v / n);
    }
    sum.finish()
}
