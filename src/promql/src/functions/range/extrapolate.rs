//! How far a sampled change reaches beyond its samples.
//!
//! Series are scraped regularly and steps are regular, so most windows of a series have the same distances.
//! The divisions they need are remembered from one window to the next; the result stays the same to the bit.

use crate::engine::Window;

/// What is known about the time before the first sample.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: extrapolate.
    Open,
    /// There is nothing: the series begins with it.
    Closed,
    /// The counter was zero at this time.
    Zero(i64),
}

/// Distances of a window in ms, and its number of intervals.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Shape {
    to_start: i64,
    to_end: i64,
    sampled: i64,
    intervals: usize,
    range: i64,
}

/// What follows from a shape.
#[derive(Clone, Copy, Default)]
pub(super) struct Reach {
    shape: Shape,
    /// Seconds.
    sampled: f64,
    to_start: f64,
    to_end: f64,
    /// The scale when nothing limits it, without and with division by the range.
    plain: f64,
    per_second: f64,
}

impl Reach {
    #[cold]
    #[inline(never)]
    fn new(shape: Shape) -> Self {
        let mut r = Self { shape, ..Self::default() };
        r.to_start = shape.to_start as f64 / 1000.0;
        r.to_end = shape.to_end as f64 / 1000.0;
        r.sampled = shape.sampled as f64 / 1000.0;
        let average = r.sampled / shape.intervals as f64;
        let threshold = average * 1.1;
        if r.to_start >= threshold {
            r.to_start = average / 2.0;
        }
        if r.to_end >= threshold {
            r.to_end = average / 2.0;
        }
        r.plain = (r.sampled + r.to_start + r.to_end) / r.sampled;
        r.per_second = r.plain / (shape.range as f64 / 1000.0);
        r
    }

    /// Goes to a window; what it had in common with the one before is not computed again.
    #[inline]
    pub fn meet(&mut self, w: &Window<'_>, left: Left) {
        let times = w.times();
        let (first, extra) = match left {
            Left::Zero(t) => (t, 1),
            Left::Open | Left::Closed => (times[0], 0),
        };
        let last = times[times.len() - 1];
        let shape = Shape {
            to_start: if left == Left::Open { first - w.start } else { 0 },
            to_end: w.end - last,
            sampled: last - first,
            intervals: times.len() - 1 + extra,
            range: w.range_ms(),
        };
        if self.shape != shape {
            *self = Self::new(shape);
        }
    }

    /// By how much the sampled change is scaled. `level` is the first value of a counter and its change, when
    /// the counter could reach zero.
    #[inline]
    pub fn factor(&self, level: Option<(f64, f64)>, per_second: bool) -> f64 {
        match level {
            Some((first, change)) => self.limited(first, change, per_second),
            None if per_second => self.per_second,
            None => self.plain,
        }
    }

    /// The scale when extrapolation to the left ends where the counter would be zero, if that is nearer.
    #[inline]
    fn limited(&self, first: f64, change: f64, per_second: bool) -> f64 {
        // Far from zero, which is the rule, a multiplication tells as much as the division.
        let clearly_far = self.sampled * first > self.to_start * change * 1.000_001;
        if !clearly_far {
            return self.near_zero(first, change, per_second);
        }
        if per_second { self.per_second } else { self.plain }
    }

    #[cold]
    #[inline(never)]
    fn near_zero(&self, first: f64, change: f64, per_second: bool) -> f64 {
        let to_zero = self.sampled * (first / change);
        if to_zero < self.to_start {
            let factor = (self.sampled + to_zero + self.to_end) / self.sampled;
            return if per_second { factor / (self.shape.range as f64 / 1000.0) } else { factor };
        }
        if per_second { self.per_second } else { self.plain }
    }
}

/// By how much the sampled change is scaled. `level` is the first value of a counter and its change, when
/// the counter could reach zero.
#[inline]
pub(super) fn factor(
    w: &Window<'_>,
    left: Left,
    level: Option<(f64, f64)>,
    per_second: bool,
    memo: &std::cell::Cell<Reach>,
) -> f64 {
    let mut reach = memo.get();
    reach.meet(w, left);
    memo.set(reach);
    reach.factor(level, per_second)
}
