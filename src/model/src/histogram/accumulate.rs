//! Compensated sums and means of many histograms.
//!
//! Every component carries its own Kahan compensation, so a sum over thousands of samples of mixed
//! magnitude keeps its small parts, as for floats.

use std::sync::Arc;

use super::arith::{coarser_index, common_bounds, rebound_pairs};
use super::buckets::merge_sorted;
use super::{Buckets, FloatHistogram, Incompatible, Merged};
use crate::kahan::kahan_inc;

type Pair = (f64, f64);

/// A running sum of histograms, each part with its compensation.
#[derive(Clone, Debug)]
pub struct HistogramSum {
    head: FloatHistogram,
    zero: Pair,
    count: Pair,
    sum: Pair,
    positive: Vec<(i32, Pair)>,
    negative: Vec<(i32, Pair)>,
}

impl HistogramSum {
    /// Starts with one histogram.
    pub fn new(h: &FloatHistogram) -> Self {
        let wide = |b: &Buckets| b.indexed().into_iter().map(|(i, c)| (i, (c, 0.0))).collect();
        Self {
            zero: (h.zero_count, 0.0),
            count: (h.count, 0.0),
            sum: (h.sum, 0.0),
            positive: wide(&h.positive),
            negative: wide(&h.negative),
            head: h.clone(),
        }
    }

    /// Adds one histogram, scaled by `1 / divisor`.
    ///
    /// # Errors
    /// `Incompatible` when one has custom buckets and the other has not; nothing is changed then.
    pub fn add(&mut self, other: &FloatHistogram, divisor: f64) -> Result<Merged, Incompatible> {
        if self.head.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(Incompatible);
        }
        let scaled;
        let other = if divisor == 1.0 {
            other
        } else {
            scaled = {
                let mut h = other.clone();
                h.div(divisor);
                h
            };
            &scaled
        };
        let mut merged = Merged { reset_collision: self.head.adjust_hint(other.hint), ..Merged::default() };
        let (positive, negative);
        if other.uses_custom_buckets() {
            let (bounds, reconciled) = common_bounds(&self.head.custom_values, &other.custom_values);
            merged.bounds_reconciled = reconciled;
            if reconciled {
                self.rebound(&bounds);
            }
            positive = rebound_pairs(&other.positive, &other.custom_values, &bounds);
            negative = Vec::new();
        } else {
            let schema = self.head.schema.min(other.schema);
            self.reduce_to(schema);
            let zero = self.reconcile_zero(other);
            self.zero = kahan_inc(zero, self.zero.0, self.zero.1);
            positive = other.reduced_outside_zero(true, schema, self.head.zero_threshold);
            negative = other.reduced_outside_zero(false, schema, self.head.zero_threshold);
        }
        self.count = kahan_inc(other.count, self.count.0, self.count.1);
        self.sum = kahan_inc(other.sum, self.sum.0, self.sum.1);
        for (side, pairs) in [(&mut self.positive, positive), (&mut self.negative, negative)] {
            *side = merge_sorted(side, &pairs, |a| a, |b| (b, 0.0), |a, b| kahan_inc(b, a.0, a.1));
        }
        Ok(merged)
    }

    /// Multiplies sums and compensations.
    pub fn scale(&mut self, f: impl Fn(f64) -> f64) {
        for p in self.parts_mut() {
            *p = (f(p.0), f(p.1));
        }
    }

    /// Whether any plain sum is infinite.
    pub fn has_overflow(&self) -> bool {
        [self.zero, self.count, self.sum]
            .iter()
            .chain(self.positive.iter().chain(&self.negative).map(|(_, p)| p))
            .any(|p| p.0.is_infinite())
    }

    /// The histogram that was summed up.
    pub fn finish(self) -> FloatHistogram {
        let flat = |v: Vec<(i32, Pair)>| Buckets::from_sorted(v.into_iter().map(|(i, p)| (i, p.0 + p.1)));
        FloatHistogram {
            zero_count: self.zero.0 + self.zero.1,
            count: self.count.0 + self.count.1,
            sum: self.sum.0 + self.sum.1,
            positive: flat(self.positive),
            negative: flat(self.negative),
            ..self.head
        }
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Pair> {
        [&mut self.zero, &mut self.count, &mut self.sum]
            .into_iter()
            .chain(self.positive.iter_mut().chain(&mut self.negative).map(|(_, p)| p))
    }

    fn reduce_to(&mut self, schema: i32) {
        let shift = self.head.schema - schema;
        if shift <= 0 {
            return;
        }
        for side in [&mut self.positive, &mut self.negative] {
            *side = join_equal(side.iter().map(|&(i, p)| (coarser_index(i, shift), p)));
        }
        self.head.schema = schema;
    }

    fn rebound(&mut self, bounds: &Arc<[f64]>) {
        let from = self.head.custom_values.clone();
        let upper =
            |i: i32| usize::try_from(i).ok().and_then(|i| from.get(i)).copied().unwrap_or(f64::INFINITY);
        let target = |i: i32| bounds.iter().take_while(|b| **b < upper(i)).count() as i32;
        self.positive = join_equal(self.positive.iter().map(|&(i, p)| (target(i), p)));
        self.head.custom_values = bounds.clone();
    }

    /// A plain view of the sums, good enough to find bucket bounds in.
    fn plain(&self) -> FloatHistogram {
        let side = |v: &[(i32, Pair)]| Buckets::from_sorted(v.iter().map(|&(i, p)| (i, p.0 + p.1)));
        FloatHistogram {
            zero_count: self.zero.0,
            positive: side(&self.positive),
            negative: side(&self.negative),
            ..self.head.clone()
        }
    }

    fn reconcile_zero(&mut self, other: &FloatHistogram) -> f64 {
        let mut zero = (other.zero_count, other.zero_threshold);
        while zero.1 != self.head.zero_threshold && !(zero.1.is_nan() || self.head.zero_threshold.is_nan()) {
            if self.head.zero_threshold > zero.1 {
                zero = other.zero_count_for(self.head.zero_threshold);
            }
            if zero.1 > self.head.zero_threshold {
                self.widen_zero(zero.1);
            }
        }
        zero.0
    }

    fn widen_zero(&mut self, threshold: f64) {
        let (_, threshold) = self.plain().zero_count_for(threshold);
        let head = self.head.clone();
        for side in [&mut self.positive, &mut self.negative] {
            let (outside, inside): (Vec<_>, Vec<_>) =
                side.drain(..).partition(|&(i, _)| head.bounds(i).1 > threshold);
            for (_, p) in inside {
                let (s, c) = kahan_inc(p.0, self.zero.0, self.zero.1);
                self.zero = (s, c + p.1);
            }
            *side = outside;
        }
        self.head.zero_threshold = threshold;
    }
}

fn join_equal(pairs: impl Iterator<Item = (i32, Pair)>) -> Vec<(i32, Pair)> {
    let mut out: Vec<(i32, Pair)> = Vec::new();
    for (index, p) in pairs {
        match out.last_mut() {
            Some(last) if last.0 == index => last.1 = (last.1.0 + p.0, last.1.1 + p.1),
            _ => out.push((index, p)),
        }
    }
    out
}
