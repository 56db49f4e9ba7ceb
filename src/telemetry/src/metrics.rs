//! The three kinds of metric, as cheap handles that can be cloned and shared.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn add_float(cell: &AtomicU64, by: f64) {
    let mut now = cell.load(Ordering::Relaxed);
    loop {
        let next = (f64::from_bits(now) + by).to_bits();
        match cell.compare_exchange_weak(now, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(other) => now = other,
        }
    }
}

/// A value that only goes up.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<CounterCells>);

/// Whole numbers, the usual case, avoid the compare-and-swap loop of floats.
#[derive(Debug, Default)]
struct CounterCells {
    whole: AtomicU64,
    float: AtomicU64,
}

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds a whole number.
    #[inline]
    pub fn inc_by(&self, by: u64) {
        self.0.whole.fetch_add(by, Ordering::Relaxed);
    }

    /// Adds a number; a negative one is ignored.
    pub fn add(&self, by: f64) {
        if by > 0.0 {
            add_float(&self.0.float, by);
        }
    }

    /// The value so far.
    pub fn get(&self) -> f64 {
        self.0.whole.load(Ordering::Relaxed) as f64 + f64::from_bits(self.0.float.load(Ordering::Relaxed))
    }
}

/// A value that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets the value.
    #[inline]
    pub fn set(&self, v: f64) {
        self.0.store(v.to_bits(), Ordering::Relaxed);
    }

    /// Adds; negative numbers subtract.
    pub fn add(&self, by: f64) {
        add_float(&self.0, by);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1.0);
    }

    /// Subtracts one.
    pub fn dec(&self) {
        self.add(-1.0);
    }

    /// The value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// A distribution over fixed buckets.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<HistogramCells>);

#[derive(Debug)]
struct HistogramCells {
    bounds: Arc<[f64]>,
    /// One per bound, and one above all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// Upper bounds for durations in seconds (those of the Prometheus client libraries).
pub const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Histogram {
    pub(crate) fn new(bounds: Arc<[f64]>) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(HistogramCells { bounds, counts, sum: AtomicU64::new(0) }))
    }

    /// Records a value.
    pub fn observe(&self, v: f64) {
        let at = self.0.bounds.partition_point(|b| *b < v);
        self.0.counts[at].fetch_add(1, Ordering::Relaxed);
        add_float(&self.0.sum, v);
    }

    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }

    /// Sum of the values recorded.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.0.sum.load(Ordering::Relaxed))
    }

    /// Upper bound and cumulative count of each bucket, `+Inf` last.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let mut total = 0;
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        bounds
            .zip(&self.0.counts)
            .map(|(bound, count)| {
                total += count.load(Ordering::Relaxed);
                (bound, total)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_share_their_value() {
        let c = Counter::default();
        let other = c.clone();
        c.inc();
        other.add(0.5);
        other.add(-3.0);
        assert_eq!(c.get(), 1.5);
        let g = Gauge::default();
        g.set(3.0);
        g.dec();
        assert_eq!(g.clone().get(), 2.0);
    }

    #[test]
    fn bounds_are_inclusive() {
        let h = Histogram::new([1.0, 2.0].into());
        for v in [0.5, 1.0, 1.5, 2.0, 9.0] {
            h.observe(v);
        }
        assert_eq!(h.buckets(), [(1.0, 2), (2.0, 4), (f64::INFINITY, 5)]);
        assert_eq!((h.count(), h.sum()), (5, 14.0));
    }

    #[test]
    fn threads_do_not_lose_updates() {
        let (c, g) = (Counter::default(), Gauge::default());
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..10_000 {
                        c.inc();
                        c.add(0.5);
                        g.inc();
                    }
                });
            }
        });
        assert_eq!((c.get(), g.get()), (60_000.0, 40_000.0));
    }
}
