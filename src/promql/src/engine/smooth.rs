//! Linear interpolation between samples, and smoothed instant selectors.

use std::sync::Arc;

use koios_model::{CounterReset, FloatHistogram, is_stale};

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

impl Ctx<'_> {
    /// Between two samples their line, on a sample its value, after the last one its value.
    pub(super) fn smoothed_rows(&self, select: &SelectNode, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let lookback = self.plan.params.lookback_ms;
        self.each_series(select, |source, c| {
            let live: Vec<usize> = (0..c.len()).filter(|&i| !is_stale(c.values[i])).collect();
            let mut col = Column::absent(tl.n);
            let mut next = 0;
            for i in 0..tl.n {
                let t = select.reference(tl.at(i));
                while next < live.len() && c.times[live[next]] <= t {
                    next += 1;
                }
                let Some(before) = next.checked_sub(1).map(|n| live[n]) else {
                    continue;
                };
                if c.times[before] <= t.saturating_sub(lookback) {
                    continue;
                }
                let after = live.get(next).copied().filter(|&n| c.times[n] <= t.saturating_add(lookback));
                let point = match (c.histogram(before), after.map(|n| (n, c.histogram(n)))) {
                    (Some(h), Some((n, Some(g)))) if c.times[before] < t => {
                        let counter = h.hint != CounterReset::Gauge;
                        interpolate_hist((c.times[before], h), (c.times[n], g), t, counter)
                            .map(|h| Point::Hist(Arc::new(h)))
                    }
                    (None, Some((n, None))) if c.times[before] < t => {
                        let a = (c.times[before], c.values[before]);
                        Some(interpolate(a, (c.times[n], c.values[n]), t, false).into())
                    }
                    (Some(h), _) => Some(Point::Hist(h.clone())),
                    (None, _) => Some(c.values[before].into()),
                };
                if let Some(p) = point {
                    col.set(i, p);
                }
            }
            if col.is_empty() {
                return Ok(());
            }
            sink(Row { labels: source.labels().clone(), drop_name: false, col })
        })
    }
}
