//! `rate`, `increase`, `delta` with extrapolation to the bounds of the range, and `irate`, `idelta`.
//!
//! The extrapolation rule: up to a boundary that is less than 1.1 average sample distances away, else half
//! an average distance; for counters not further than to where the counter would have been zero.

use std::sync::Arc;

use koios_model::{CounterReset, FloatHistogram};

use crate::engine::{Cell, Column, Frame, HistOp, Point, Samples, Slide, Timeline, Window};

use super::Cx;
use super::extrapolate::{Left, Reach, factor};
use super::starts::{begins_here, check_overlap, reset_at, reset_by_start, zero_sample};

/// The change over the range, per second if asked for.
pub(super) fn extrapolated(w: &Window<'_>, cx: &Cx<'_>, counter: bool, per_second: bool) -> Option<Point> {
    if w.is_mixed() {
        cx.notes.mixed_floats_histograms(cx.span, cx.metric);
        return None;
    }
    let with_starts = counter && cx.use_starts && w.samples.starts.is_some();
    let zero = if counter { zero_sample(w, cx) } else { None };
    if w.len() < 2 && zero.is_none() {
        return None;
    }
    if with_starts {
        check_overlap(w, cx);
    }
    let left = match zero {
        Some(t) => Left::Zero(t),
        None if counter && begins_here(w, cx) => Left::Closed,
        None => Left::Open,
    };
    if w.hist_count == 0 {
        let change = float_change(w, counter, with_starts, zero.is_some());
        let first = w.values()[0];
        let level = (counter && change > 0.0 && first >= 0.0).then_some((first, change));
        return Some((change * factor(w, left, level, per_second, &cx.memo)).into());
    }
    let hists = w.hists();
    let mut change = histogram_change(w, cx, &hists, counter, with_starts, zero.is_some())?;
    let first = hists[0].count;
    let level = (counter && change.count > 0.0 && first >= 0.0).then_some((first, change.count));
    change.mul(factor(w, left, level, per_second, &cx.memo));
    change.hint = CounterReset::Gauge;
    Some(change.into())
}

/// `extrapolated` for series of floats without start times: the same values to the bit.
pub(super) struct Floats {
    pub counter: bool,
    pub per_second: bool,
    /// Distances of the last window.
    pub reach: Reach,
}

impl Floats {
    /// The results of steps `steps` into `col`; `slide` goes on from one call to the next. How many samples the
    /// windows had. A loop of its own, since it is the one that most queries spend their time in.
    pub fn fill(
        &mut self,
        samples: &Samples,
        (tl, frame): (&Timeline, &Frame),
        steps: std::ops::Range<usize>,
        slide: &mut Slide,
        col: &mut Column,
    ) -> usize {
        let mut seen = 0;
        for i in steps {
            let (start, end) = frame.bounds(tl.at(i));
            let (from, to) = slide.bounds(&samples.times, start, end);
            seen += to - from;
            if to - from >= 2 {
                let w = Window { samples, from, to, start, end, hist_count: 0 };
                col.set_float(i, self.eval(&w));
            }
        }
        seen
    }

    #[inline(always)]
    fn eval(&mut self, w: &Window<'_>) -> f64 {
        let values = w.values();
        let (first, last) = (values[0], values[values.len() - 1]);
        let mut change = last - first;
        if self.counter && !w.samples.drops.is_empty() {
            change = float_change(w, true, false, false);
        }
        self.reach.meet(w, Left::Open);
        let level = (self.counter && change > 0.0 && first >= 0.0).then_some((first, change));
        change * self.reach.factor(level, self.per_second)
    }
}

#[inline(never)]
fn float_change(w: &Window<'_>, counter: bool, with_starts: bool, from_zero: bool) -> f64 {
    let values = &w.samples.values;
    let (first, last) = (values[w.from], values[w.to - 1]);
    let mut change = if from_zero { last } else { last - first };
    if !counter {
        return change;
    }
    if with_starts || w.samples.hists.is_some() {
        for i in w.from + 1..w.to {
            if values[i] < values[i - 1] || (with_starts && reset_at(w, i)) {
                change += values[i - 1];
            }
        }
        return change;
    }
    // Resets are rare, and known from when the series was read.
    let drops = &w.samples.drops;
    let from = drops.partition_point(|d| *d as usize <= w.from);
    for d in drops[from..].iter().take_while(|d| (**d as usize) < w.to) {
        change += values[*d as usize - 1];
    }
    change
}

fn histogram_change(
    w: &Window<'_>,
    cx: &Cx<'_>,
    hists: &[&Arc<FloatHistogram>],
    counter: bool,
    with_starts: bool,
    from_zero: bool,
) -> Option<FloatHistogram> {
    let last = hists[hists.len() - 1];
    let gauge = |h: &FloatHistogram| h.hint == CounterReset::Gauge;
    if counter && hists.iter().any(|h| gauge(h)) {
        cx.notes.not_counter(cx.span, cx.metric);
    }
    let reset = |i: usize, prev: &FloatHistogram| {
        hists[i].detect_reset(prev) || (with_starts && reset_at(w, w.from + i))
    };
    let blank = |like: &FloatHistogram| FloatHistogram {
        schema: like.schema,
        custom_values: like.custom_values.clone(),
        ..FloatHistogram::default()
    };
    // The first sample does not matter, not even its layout, when the counter starts anew after it.
    let mut first = hists[0].as_ref().clone();
    if from_zero {
        first = blank(&first);
    } else if counter && hists.len() > 1 && reset(1, hists[0]) {
        first = blank(hists[1]);
    }
    if last.uses_custom_buckets() != first.uses_custom_buckets() {
        cx.notes.mixed_exponential_custom(cx.span, cx.metric);
        return None;
    }
    let custom = first.uses_custom_buckets();
    let inner = &hists[1.min(hists.len() - 1)..hists.len() - 1];
    if counter && inner.iter().any(|h| h.uses_custom_buckets() != custom) {
        cx.notes.mixed_exponential_custom(cx.span, cx.metric);
        return None;
    }
    let mut schema = first.schema.min(last.schema);
    if counter {
        schema = inner.iter().map(|h| h.schema).fold(schema, i32::min);
    }
    let mut change = last.copy_to_schema(schema);
    combine(&mut change, &first, true, cx)?;
    if counter {
        let mut prev = first;
        // With a zero sample before it, the first one is no reset but counts in full.
        for (i, h) in hists.iter().enumerate().skip(1) {
            if from_zero && i == 1 {
                prev = hists[0].as_ref().clone();
            }
            if reset(i, &prev) {
                combine(&mut change, &prev, false, cx)?;
            }
            prev = h.as_ref().clone();
        }
    } else if !gauge(hists[0]) || !gauge(last) {
        cx.notes.not_gauge(cx.span, cx.metric);
    }
    change.hint = CounterReset::Gauge;
    change.compact();
    Some(change)
}

/// Adds or subtracts; `None` with a note when buckets do not fit. Resets are dealt with by the caller, so
/// contradicting hints are no news here.
pub(super) fn combine(h: &mut FloatHistogram, other: &FloatHistogram, sub: bool, cx: &Cx<'_>) -> Option<()> {
    let merged = if sub { h.sub(other) } else { h.add(other) };
    match merged {
        Ok(m) => {
            if m.bounds_reconciled {
                cx.notes.mismatched_custom(cx.span, if sub { HistOp::Sub } else { HistOp::Add });
            }
            Some(())
        }
        Err(_) => {
            cx.notes.mixed_exponential_custom(cx.span, cx.metric);
            None
        }
    }
}

/// The change between the last two samples, per second for a rate.
pub(super) fn last_two(w: &Window<'_>, cx: &Cx<'_>, rate: bool) -> Option<Point> {
    if w.len() < 2 {
        return None;
    }
    let (a, b) = (w.to - 2, w.to - 1);
    let interval = (w.samples.times[b] - w.samples.times[a]) as f64 / 1000.0;
    let restarted = rate
        && cx.use_starts
        && reset_by_start(w.samples.times[a], w.start_of(a), w.samples.times[b], w.start_of(b));
    match (w.samples.cell(a), w.samples.cell(b)) {
        (Cell::Float(x), Cell::Float(y)) => {
            let change = if rate && (y < x || restarted) { y } else { y - x };
            Some((if rate { change / interval } else { change }).into())
        }
        (Cell::Hist(x), Cell::Hist(y)) => {
            let gauges = [x, y].map(|h| h.hint == CounterReset::Gauge);
            if rate && gauges.contains(&true) {
                cx.notes.not_counter(cx.span, cx.metric);
            }
            if !rate && gauges.contains(&false) {
                cx.notes.not_gauge(cx.span, cx.metric);
            }
            let mut h = y.as_ref().clone();
            if !(rate && (restarted || y.detect_reset(x))) {
                combine(&mut h, x, true, cx)?;
            }
            if rate {
                h.div(interval);
            }
            h.hint = CounterReset::Gauge;
            h.compact();
            Some(h.into())
        }
        _ => {
            cx.notes.mixed_floats_histograms(cx.span, cx.metric);
            None
        }
    }
}
