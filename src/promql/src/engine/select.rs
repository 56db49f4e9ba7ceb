//! Reading series, and instant selectors.

use std::sync::Arc;

use koios_model::{Columns, CounterReset, FloatHistogram, Labels, is_stale};

use crate::api::EvalError;
use crate::plan::SelectNode;
use crate::syntax::ast::Edges;

use super::{Column, Ctx, Point, Res, Row, Sink, Timeline};

/// Units of work that reading a series takes, beside those of its samples.
const SERIES_WORK: usize = 512;
/// Units of work that decoding one sample takes, and one histogram.
const SAMPLE_WORK: usize = 8;
const HISTOGRAM_WORK: usize = 512;
/// Steps of one series between two looks at the work done; a power of two.
const STEPS_UNCHECKED: usize = 1 << 14;

impl Ctx<'_> {
    /// Calls `f` with the samples of every series of a select.
    pub fn each_series(
        &self,
        select: &SelectNode,
        mut f: impl FnMut(&Labels, &mut Columns) -> Res<()>,
    ) -> Res<()> {
        let mut columns = Columns::default();
        let input = &self.inputs[select.input];
        let series = match &self.part {
            Some(part) if part.input == select.input => part.series.clone(),
            _ => 0..input.len(),
        };
        let (mint, maxt) = select.bounds;
        let mut reader = input.set.reader(select.labels.as_deref());
        for i in series {
            columns.clear();
            let labels =
                reader.read(input.position(i), mint, maxt, &mut columns).map_err(EvalError::Source)?;
            self.work(SERIES_WORK + SAMPLE_WORK * columns.len())?;
            if columns.is_empty() {
                continue;
            }
            let mut charge = self.budget.charge(columns.len() as u64)?;
            if let Some(hists) = &columns.histograms {
                self.work(HISTOGRAM_WORK * columns.len())?;
                charge.add(hists.iter().flatten().map(|h| h.size_in_samples() as u64).sum())?;
            }
            self.samples_read.set(self.samples_read.get() + columns.len() as u64);
            if select.stats_only {
                detect_resets(&mut columns);
            }
            f(&labels, &mut columns)?;
        }
        Ok(())
    }

    /// The newest sample within the lookback at every step.
    pub fn instant_rows(&self, select: &SelectNode, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        if select.edges == Edges::Smoothed {
            return self.smoothed_rows(select, tl, sink);
        }
        self.each_series(select, |labels, columns| {
            let mut col = Column::absent(tl.n);
            let mut points = 0u64;
            self.each_instant(select, tl, columns, |i, at| {
                points += 1;
                match columns.histogram(at) {
                    Some(h) => col.set(i, Point::Hist(h.clone())),
                    None => col.set_float(i, columns.values[at]),
                }
            })?;
            self.samples_queryable.set(self.samples_queryable.get() + points);
            if points == 0 {
                return Ok(());
            }
            sink(Row { labels: labels.clone(), drop_name: false, col })
        })
    }

    /// Calls `f(step, index of sample)` where an instant selector sees a sample.
    pub fn each_instant(
        &self,
        select: &SelectNode,
        tl: &Timeline,
        columns: &Columns,
        mut f: impl FnMut(usize, usize),
    ) -> Res<()> {
        let lookback = self.plan.params.lookback_ms;
        let times = &columns.times;
        let mut next = 0;
        for i in 0..tl.n {
            if i & (STEPS_UNCHECKED - 1) == STEPS_UNCHECKED - 1 {
                self.work(STEPS_UNCHECKED)?;
            }
            let reference = select.reference(tl.at(i));
            while next < times.len() && times[next] <= reference {
                next += 1;
            }
            if next == 0 {
                continue;
            }
            let at = next - 1;
            if times[at] > reference.saturating_sub(lookback) && !is_stale(columns.values[at]) {
                f(i, at);
            }
        }
        Ok(())
    }
}

/// Replaces unknown reset hints by what a comparison with the sample before says. The first sample read has
/// nothing before it and stays unknown.
fn detect_resets(columns: &mut Columns) {
    let Some(hists) = &mut columns.histograms else {
        return;
    };
    let mut previous: Option<Arc<FloatHistogram>> = None;
    for slot in hists.iter_mut() {
        let Some(h) = slot else {
            continue;
        };
        if h.is_stale() {
            continue;
        }
        let original = h.clone();
        if h.hint == CounterReset::Unknown
            && let Some(p) = &previous
        {
            let hint = if h.detect_reset(p) { CounterReset::Reset } else { CounterReset::NotReset };
            Arc::make_mut(h).hint = hint;
        }
        previous = Some(original);
    }
}
