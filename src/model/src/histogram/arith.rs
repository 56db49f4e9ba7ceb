//! Adding, subtracting and scaling histograms of different layouts.
//!
//! Two exponential histograms meet at the coarser schema and the wider zero bucket; two custom ones at the
//! bounds they share. Exponential with custom is refused. Results keep no empty bucket.

use std::sync::Arc;

use super::buckets::merge_sorted;
use super::{Buckets, CUSTOM_SCHEMA, CounterReset, FloatHistogram};

/// Exponential and custom buckets cannot be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot apply this operation on histograms with a mix of exponential and custom bucket schemas")]
pub struct Incompatible;

/// What had to be done to combine two histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// One was known to follow a reset, the other known not to.
    pub reset_collision: bool,
    /// Custom bounds differed and were reduced to the common ones.
    pub bounds_reconciled: bool,
}

impl FloatHistogram {
    /// Adds `other`.
    ///
    /// # Errors
    /// `Incompatible`; `self` is then unchanged.
    pub fn add(&mut self, other: &Self) -> Result<Merged, Incompatible> {
        self.combine(other, 1.0)
    }

    /// Subtracts `other`; the result is a gauge.
    ///
    /// # Errors
    /// `Incompatible`; `self` is then unchanged.
    pub fn sub(&mut self, other: &Self) -> Result<Merged, Incompatible> {
        let merged = self.combine(other, -1.0)?;
        self.hint = CounterReset::Gauge;
        Ok(merged)
    }

    fn combine(&mut self, other: &Self, sign: f64) -> Result<Merged, Incompatible> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(Incompatible);
        }
        let mut merged = Merged { reset_collision: self.adjust_hint(other.hint), ..Merged::default() };
        let (positive, negative);
        if self.uses_custom_buckets() {
            let (bounds, reconciled) = common_bounds(&self.custom_values, &other.custom_values);
            merged.bounds_reconciled = reconciled;
            if reconciled {
                self.rebound(&bounds);
                positive = rebound_pairs(&other.positive, &other.custom_values, &bounds);
            } else {
                positive = other.positive.indexed();
            }
            negative = Vec::new();
        } else {
            let schema = self.schema.min(other.schema);
            self.reduce_to(schema);
            let zero = self.reconcile_zero(other);
            self.zero_count += sign * zero;
            positive = other.reduced_outside_zero(true, schema, self.zero_threshold);
            negative = other.reduced_outside_zero(false, schema, self.zero_threshold);
        }
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        for (side, pairs) in [(&mut self.positive, positive), (&mut self.negative, negative)] {
            let sum = merge_sorted(&side.indexed(), &pairs, |a| a, |b| sign * b, |a, b| a + sign * b);
            *side = Buckets::from_sorted(sum);
        }
        Ok(merged)
    }

    /// Multiplies every count and the sum; a negative factor makes a gauge.
    pub fn mul(&mut self, factor: f64) {
        self.scale(|v| v * factor);
        if factor < 0.0 {
            self.hint = CounterReset::Gauge;
        }
    }

    /// Divides every count and the sum. Division by zero leaves no bucket but the zero bucket.
    pub fn div(&mut self, divisor: f64) {
        self.scale(|v| v / divisor);
        if divisor == 0.0 {
            self.positive = Buckets::default();
            self.negative = Buckets::default();
        }
        if divisor < 0.0 {
            self.hint = CounterReset::Gauge;
        }
    }

    fn scale(&mut self, f: impl Fn(f64) -> f64) {
        for v in [&mut self.zero_count, &mut self.count, &mut self.sum] {
            *v = f(*v);
        }
        for v in self.positive.counts.iter_mut().chain(&mut self.negative.counts) {
            *v = f(*v);
        }
    }

    /// A copy at a coarser exponential schema.
    pub fn copy_to_schema(&self, schema: i32) -> Self {
        let mut h = self.clone();
        if !h.uses_custom_buckets() && schema != CUSTOM_SCHEMA {
            h.reduce_to(schema);
        }
        h
    }

    /// Drops empty buckets.
    pub fn compact(&mut self) {
        self.positive = Buckets::from_sorted(self.positive.indexed());
        self.negative = Buckets::from_sorted(self.negative.indexed());
    }

    /// Lowers the resolution to `schema` in place; no effect when it is not coarser.
    pub fn reduce_to(&mut self, schema: i32) {
        if schema >= self.schema || self.uses_custom_buckets() {
            return;
        }
        let shift = self.schema - schema;
        for side in [&mut self.positive, &mut self.negative] {
            *side = Buckets::from_sorted(reduce_pairs(&side.indexed(), shift));
        }
        self.schema = schema;
    }

    /// Moves to custom bounds that are a subset of the present ones.
    pub(super) fn rebound(&mut self, bounds: &Arc<[f64]>) {
        let pairs = rebound_pairs(&self.positive, &self.custom_values, bounds);
        self.positive = Buckets::from_sorted(pairs);
        self.custom_values = bounds.clone();
    }

    /// Combines the hints; true when they contradict each other.
    pub fn adjust_hint(&mut self, other: CounterReset) -> bool {
        use CounterReset::{Gauge, Unknown};
        let (hint, collision) = match (self.hint, other) {
            (a, b) if a == b => (a, false),
            (Gauge, _) | (_, Gauge) => (Gauge, false),
            (Unknown, _) | (_, Unknown) => (Unknown, false),
            _ => (Unknown, true),
        };
        self.hint = hint;
        collision
    }

    /// Widens zero buckets until both agree; returns what `other` has in that zero bucket.
    fn reconcile_zero(&mut self, other: &Self) -> f64 {
        let mut zero = (other.zero_count, other.zero_threshold);
        while zero.1 != self.zero_threshold && !(zero.1.is_nan() || self.zero_threshold.is_nan()) {
            if self.zero_threshold > zero.1 {
                zero = other.zero_count_for(self.zero_threshold);
            }
            if zero.1 > self.zero_threshold {
                self.widen_zero(zero.1);
            }
        }
        zero.0
    }

    pub(super) fn widen_zero(&mut self, threshold: f64) {
        let (count, threshold) = self.zero_count_for(threshold);
        self.positive = Buckets::from_sorted(self.reduced_outside_zero(true, self.schema, threshold));
        self.negative = Buckets::from_sorted(self.reduced_outside_zero(false, self.schema, threshold));
        self.zero_count = count;
        self.zero_threshold = threshold;
    }

    /// The zero count for a threshold at least as wide, and the threshold that is possible without cutting
    /// a populated bucket.
    pub(super) fn zero_count_for(&self, threshold: f64) -> (f64, f64) {
        let mut threshold = threshold;
        if threshold <= self.zero_threshold {
            return (self.zero_count, self.zero_threshold);
        }
        'again: loop {
            let mut count = self.zero_count;
            for b in self.positive_buckets() {
                if b.lower >= threshold {
                    break;
                }
                count += b.count;
                if b.upper > threshold {
                    if b.count != 0.0 {
                        threshold = b.upper;
                    }
                    break;
                }
            }
            for b in self.negative_buckets() {
                if b.upper <= -threshold {
                    break;
                }
                count += b.count;
                if b.lower < -threshold {
                    if b.count != 0.0 {
                        threshold = -b.lower;
                        continue 'again;
                    }
                    break;
                }
            }
            return (count, threshold);
        }
    }

    /// Buckets at `schema` that reach beyond the zero threshold.
    pub(super) fn reduced_outside_zero(
        &self,
        positive: bool,
        schema: i32,
        threshold: f64,
    ) -> Vec<(i32, f64)> {
        let side = if positive { &self.positive } else { &self.negative };
        let mut pairs = side.indexed();
        pairs.retain(|&(i, c)| c != 0.0 && self.bounds(i).1 > threshold);
        if schema < self.schema { reduce_pairs(&pairs, self.schema - schema) } else { pairs }
    }
}

/// Maps indexes to a schema `shift` steps coarser and adds what falls together.
pub(super) fn reduce_pairs(pairs: &[(i32, f64)], shift: i32) -> Vec<(i32, f64)> {
    let mut out: Vec<(i32, f64)> = Vec::with_capacity(pairs.len());
    for &(index, count) in pairs {
        let index = coarser_index(index, shift);
        match out.last_mut() {
            Some(last) if last.0 == index => last.1 += count,
            _ => out.push((index, count)),
        }
    }
    out
}

pub(super) fn coarser_index(index: i32, shift: i32) -> i32 {
    ((i64::from(index) - 1) >> shift.min(40)) as i32 + 1
}

/// The bounds both lists have, and whether that is less than either has.
pub(super) fn common_bounds(a: &Arc<[f64]>, b: &Arc<[f64]>) -> (Arc<[f64]>, bool) {
    if a == b {
        return (a.clone(), false);
    }
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    while let (Some(&x), Some(&y)) = (a.get(i), b.get(j)) {
        if x == y {
            out.push(x);
        }
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    (out.into(), true)
}

/// Counts moved to the bucket of the coarser bounds that contains them.
pub(super) fn rebound_pairs(side: &Buckets, from: &[f64], to: &[f64]) -> Vec<(i32, f64)> {
    let mut out: Vec<(i32, f64)> = Vec::new();
    let mut target = 0usize;
    for (index, count) in side.indexed() {
        let upper = usize::try_from(index).ok().and_then(|i| from.get(i)).copied().unwrap_or(f64::INFINITY);
        while target < to.len() && to[target] < upper {
            target += 1;
        }
        match out.last_mut() {
            Some(last) if last.0 == target as i32 => last.1 += count,
            _ => out.push((target as i32, count)),
        }
    }
    out
}
