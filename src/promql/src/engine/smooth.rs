//! Linear interpolation between samples, and smoothed instant selectors.

use koios_model::{Columns, CounterReset, FloatHistogram, is_stale};

use crate::plan::SelectNode;

use super::{Column, Ctx, Point, Res, Row, Sink, Timeline};

/// The value at `t` on the line between two floats. A counter that was reset in between is taken to start
/// from zero.
pub(crate) fn interpolate(a: (i64, f64), b: (i64, f64), t: i64, counter: bool) -> f64 {
    let from = if counter && b.1 < a.1 { 0.0 } else { a.1 };
    from + (b.1 - from) * fraction(a.0, b.0, t)
}

fn fraction(a: i64, b: i64, t: i64) -> f64 {
    (t - a) as f64 / (b - a) as f64
}

/// As `interpolate`, for histograms; `None` when exponential and custom buckets meet.
pub(crate) fn interpolate_hist(
    a: (i64, &FloatHistogram),
    b: (i64, &FloatHistogram),
    t: i64,
    counter: bool,
) -> Option<FloatHistogram> {
    let f = fraction(a.0, b.0, t);
    if counter && b.1.detect_reset(a.1) {
        let mut h = b.1.clone();
        h.mul(f);
        return Some(h);
    }
    let mut step = b.1.clone();
    step.sub(a.1).ok()?;
    step.mul(f);
    let hint = a.1.hint;
    let mut h = a.1.clone();
    h.add(&step).ok()?;
    h.hint = if hint == CounterReset::Gauge { hint } else { CounterReset::Unknown };
    Some(h)
}

/// The samples of a smoothed selector.
struct Smoothed<'a> {
    columns: &'a Columns,
    /// Positions of samples that are not stale markers.
    live: Vec<usize>,
    lookback: i64,
}

/// What a smoothed selector sees at a step.
enum Seen {
    Nothing,
    Value(Point),
    MixedTypes,
    MixedSchemas,
}

impl Smoothed<'_> {
    /// The value at `t`; `next` is the number of live samples at or before it.
    fn at(&self, t: i64, next: usize) -> Seen {
        let c = self.columns;
        let Some(before) = next.checked_sub(1).map(|n| self.live[n]) else {
            return Seen::Nothing;
        };
        let from = t.saturating_sub(self.lookback);
        if c.times[before] <= from {
            return Seen::Nothing;
        }
        let to = t.saturating_add(self.lookback);
        if c.histograms.is_some() && self.mixed(from, to) {
            return Seen::MixedTypes;
        }
        let after = self.live.get(next).copied().filter(|&n| c.times[n] <= to && c.times[before] < t);
        match (c.histogram(before), after) {
            (Some(h), Some(n)) => {
                let Some(g) = c.histogram(n) else {
                    return Seen::MixedTypes;
                };
                let counter = h.hint != CounterReset::Gauge;
                match interpolate_hist((c.times[before], h), (c.times[n], g), t, counter) {
                    Some(h) => Seen::Value(h.into()),
                    None => Seen::MixedSchemas,
                }
            }
            (None, Some(n)) => {
                let a = (c.times[before], c.values[before]);
                Seen::Value(interpolate(a, (c.times[n], c.values[n]), t, false).into())
            }
            (Some(h), None) => Seen::Value(Point::Hist(h.clone())),
            (None, None) => Seen::Value(c.values[before].into()),
        }
    }

    /// Whether floats and histograms are among the samples in `(from, to]`.
    fn mixed(&self, from: i64, to: i64) -> bool {
        let inside = |i: &&usize| self.columns.times[**i] > from && self.columns.times[**i] <= to;
        let kinds = self.live.iter().filter(inside).map(|&i| self.columns.histogram(i).is_some());
        let (hists, floats): (Vec<bool>, Vec<bool>) = kinds.partition(|h| *h);
        !hists.is_empty() && !floats.is_empty()
    }
}

/// Units of work of one step, histograms included.
const STEP_WORK: usize = 64;

impl Ctx<'_> {
    /// Between two samples their line, on a sample its value, after the last one its value.
    pub(super) fn smoothed_rows(&self, select: &SelectNode, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let lookback = self.plan.params.lookback_ms;
        self.each_series(select, |labels, columns| {
            let live = (0..columns.len()).filter(|&i| !is_stale(columns.values[i])).collect();
            let smoothed = Smoothed { columns, live, lookback };
            let metric = labels.metric_name();
            let mut col = Column::absent(tl.n);
            let mut next = 0;
            for i in 0..tl.n {
                self.work(STEP_WORK)?;
                let t = select.reference(tl.at(i));
                while next < smoothed.live.len() && columns.times[smoothed.live[next]] <= t {
                    next += 1;
                }
                match smoothed.at(t, next) {
                    Seen::Nothing => {}
                    Seen::Value(p) => col.set(i, p),
                    Seen::MixedTypes => self.notes.mixed_floats_histograms(select.span, metric),
                    Seen::MixedSchemas => self.notes.mixed_exponential_custom(select.span, metric),
                }
            }
            if col.is_empty() {
                return Ok(());
            }
            sink(Row { labels: labels.clone(), drop_name: false, col })
        })
    }
}
