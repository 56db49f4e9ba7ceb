//! Quantiles and fractions of native histograms.

use koios_model::FloatHistogram;
use koios_model::histogram::{Bucket, go_exp2, go_log2};

/// What observations of NaN, which are in no bucket, did to a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanEffect {
    /// There are none.
    None,
    /// The quantile is one of them.
    Result,
    /// It would be lower without them.
    Skew,
}

/// Whether some observations are in no bucket because they are NaN.
fn has_nans(h: &FloatHistogram, buckets: &[Bucket]) -> bool {
    h.sum.is_nan() && buckets.iter().map(|b| b.count).sum::<f64>() < h.count
}

/// With buckets on one side only, observations in the zero bucket are taken to be on that side.
fn one_sided_zero(h: &FloatHistogram, b: &mut Bucket) {
    match (h.negative.is_empty(), h.positive.is_empty()) {
        (true, false) => b.lower = 0.0,
        (false, true) => b.upper = 0.0,
        _ => {}
    }
}

/// The φ-quantile.
pub(crate) fn quantile(q: f64, h: &FloatHistogram) -> (f64, NanEffect) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, NanEffect::None);
    }
    if q > 1.0 {
        return (f64::INFINITY, NanEffect::None);
    }
    if h.count == 0.0 || q.is_nan() {
        return (f64::NAN, NanEffect::None);
    }
    let upwards = h.sum.is_nan() || q < 0.5;
    let mut buckets = h.all_buckets();
    let nans = has_nans(h, &buckets);
    if !upwards {
        buckets.reverse();
    }
    let mut rank = if upwards { q * h.count } else { (1.0 - q) * h.count };
    let mut count = 0.0;
    let mut found: Option<Bucket> = None;
    for b in buckets.into_iter().filter(|b| b.count != 0.0) {
        count += b.count;
        found = Some(b);
        if count >= rank {
            break;
        }
    }
    let Some(mut b) = found else {
        return (f64::NAN, if nans { NanEffect::Result } else { NanEffect::None });
    };
    if nans && count < rank {
        return (f64::NAN, NanEffect::Result);
    }
    let effect = if nans { NanEffect::Skew } else { NanEffect::None };
    let custom = h.uses_custom_buckets();
    if custom {
        if b.lower == f64::NEG_INFINITY {
            if b.upper <= 0.0 {
                return (b.upper, effect);
            }
            b.lower = 0.0;
        }
        if b.upper == f64::INFINITY {
            return (b.lower, effect);
        }
    } else if b.lower < 0.0 && b.upper > 0.0 {
        one_sided_zero(h, &mut b);
    }
    let count = count.min(h.count);
    if count < rank {
        return (b.upper, effect);
    }
    rank = if upwards { rank - (count - b.count) } else { count - rank };
    let part = rank / b.count;
    if custom || (b.lower <= 0.0 && b.upper >= 0.0) {
        return (b.lower + (b.upper - b.lower) * part, effect);
    }
    let (log_lower, log_upper) = (go_log2(b.lower.abs()), go_log2(b.upper.abs()));
    let value = if b.lower > 0.0 {
        go_exp2(log_lower + (log_upper - log_lower) * part)
    } else {
        -go_exp2(log_upper + (log_lower - log_upper) * (1.0 - part))
    };
    (value, effect)
}

/// How far `v` is into a bucket, 0 to 1.
pub(super) fn share_below(h: &FloatHistogram, b: &Bucket, v: f64) -> f64 {
    if h.uses_custom_buckets() || (b.lower <= 0.0 && b.upper >= 0.0) {
        return (v - b.lower) / (b.upper - b.lower);
    }
    let (log_lower, log_upper) = (go_log2(b.lower.abs()), go_log2(b.upper.abs()));
    let log_v = go_log2(v.abs());
    if v > 0.0 {
        (log_v - log_lower) / (log_upper - log_lower)
    } else {
        1.0 - (log_v - log_upper) / (log_lower - log_upper)
    }
}

/// The share of observations between two bounds, and whether observations of NaN are among those that are
/// in neither.
pub(crate) fn fraction(lower: f64, upper: f64, h: &FloatHistogram) -> (f64, bool) {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return (f64::NAN, false);
    }
    if lower >= upper {
        return (0.0, false);
    }
    let mut buckets = h.all_buckets();
    let nans = has_nans(h, &buckets);
    for b in &mut buckets {
        if h.uses_custom_buckets() {
            if b.lower == f64::NEG_INFINITY && b.upper > 0.0 {
                b.lower = 0.0;
            }
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            one_sided_zero(h, b);
        }
    }
    ((rank(upper, h, &buckets) - rank(lower, h, &buckets)) / h.count, nans)
}

/// How many observations lie below `v`.
fn rank(v: f64, h: &FloatHistogram, buckets: &[Bucket]) -> f64 {
    let mut rank = 0.0;
    for b in buckets {
        if b.lower >= v {
            return rank;
        }
        if b.upper > v {
            if b.lower == f64::NEG_INFINITY {
                return b.count;
            }
            return rank + b.count * share_below(h, b, v);
        }
        rank += b.count;
    }
    rank
}
