//! The trim operators: a histogram without the observations above or below a value.
//!
//! A bucket that contains the value is divided by interpolation; buckets with an infinite bound cannot be,
//! and go or stay as a whole. When anything is removed, count and sum are estimated anew from what is left.

use koios_model::FloatHistogram;
use koios_model::histogram::{Bucket, Buckets};

use super::native::share_below;

/// What is left of a bucket: count and estimated sum.
#[derive(Clone, Copy)]
struct Left {
    count: f64,
    sum: f64,
    changed: bool,
}

/// Removes observations above `at` (`upper`) or below it.
pub(crate) fn trim(h: &FloatHistogram, at: f64, upper: bool) -> FloatHistogram {
    let mut out = h.clone();
    let (mut count, mut sum, mut changed) = (0.0, 0.0, false);
    let mut apply = |b: Bucket| -> f64 {
        let left = bucket(h, b, at, upper);
        count += left.count;
        sum += left.sum;
        changed |= left.changed;
        left.count
    };
    let negative: Vec<(i32, f64)> = h.negative_buckets().map(|b| (b.index, apply(b))).collect();
    out.zero_count = if h.zero_count == 0.0 { 0.0 } else { apply(zero(h)) };
    let positive: Vec<(i32, f64)> = h.positive_buckets().map(|b| (b.index, apply(b))).collect();
    if !changed {
        return h.clone();
    }
    out.negative = Buckets::from_sorted(negative);
    out.positive = Buckets::from_sorted(positive);
    out.count = count;
    out.sum = sum;
    out
}

/// The zero bucket, one-sided when all other buckets are on one side.
fn zero(h: &FloatHistogram) -> Bucket {
    let mut b = h.zero_bucket();
    match (h.negative.is_empty(), h.positive.is_empty()) {
        (true, false) => b.lower = 0.0,
        (false, true) => b.upper = 0.0,
        _ => {}
    }
    b
}

fn bucket(h: &FloatHistogram, mut b: Bucket, at: f64, upper: bool) -> Left {
    let gone = Left { count: 0.0, sum: 0.0, changed: b.count != 0.0 };
    let whole = |lower: f64, upper: f64| Left {
        count: b.count,
        sum: b.count * middle(h, lower, upper),
        changed: false,
    };
    let outer = (b.lower, b.upper);
    let infinite = (outer.0 == f64::NEG_INFINITY, outer.1 == f64::INFINITY);
    if infinite == (true, true) {
        let all = if upper { at == f64::INFINITY } else { at == f64::NEG_INFINITY };
        return if all { whole(0.0, 0.0) } else { gone };
    }
    if infinite.1 {
        // The last custom bucket: its lower bound stands for it.
        return match (upper, at == f64::INFINITY) {
            (true, true) => whole(b.lower, b.lower),
            (true, false) | (false, true) => gone,
            (false, false) => whole(b.lower.max(at), b.lower.max(at)),
        };
    }
    if infinite.0 {
        if at == f64::NEG_INFINITY {
            return if upper { gone } else { whole(first_lower(b.upper), b.upper) };
        }
        if b.upper <= 0.0 {
            let kept = upper || at <= f64::NEG_INFINITY;
            return if kept { whole(b.upper.min(at), b.upper.min(at)) } else { gone };
        }
        if !upper && at < 0.0 {
            return gone;
        }
        b.lower = 0.0;
    }
    let inside = b.lower < at && at < b.upper;
    if !inside {
        let kept = if upper { b.upper <= at } else { b.lower >= at };
        return if kept { whole(b.lower, b.upper) } else { gone };
    }
    let below = share_below(h, &b, at);
    let (share, lower, end) = if upper { (below, b.lower, at) } else { (1.0 - below, at, b.upper) };
    let count = b.count * share;
    Left { count, sum: count * middle(h, lower, end), changed: b.count != 0.0 }
}

/// Lower bound of the first custom bucket.
fn first_lower(upper: f64) -> f64 {
    if upper > 0.0 { 0.0 } else { upper }
}

/// The value that stands for observations between two bounds.
fn middle(h: &FloatHistogram, lower: f64, upper: f64) -> f64 {
    if h.uses_custom_buckets() || (lower <= 0.0 && upper >= 0.0) || crosses_zero_bucket(h, lower, upper) {
        return (lower + upper) / 2.0;
    }
    (lower * upper).sqrt().copysign(upper)
}

/// Parts of the zero bucket are linear though they need not contain zero.
fn crosses_zero_bucket(h: &FloatHistogram, lower: f64, upper: f64) -> bool {
    -h.zero_threshold <= lower && upper <= h.zero_threshold
}
