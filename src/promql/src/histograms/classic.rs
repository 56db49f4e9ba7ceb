//! Classic histograms: cumulative counts with upper bounds.

use crate::engine::Forced;

/// Relative difference below which two counts are the same.
const TOLERANCE: f64 = 1e-12;

/// Buckets as `(upper bound, cumulative count)`, in any order until prepared.
pub(crate) type Classic = Vec<(f64, f64)>;

/// Sorts, joins equal bounds and makes counts monotonic. `None` when the highest bound is not +Inf; else what
/// had to be forced.
fn prepare(buckets: &mut Classic) -> Option<Option<Forced>> {
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    if buckets.last().is_none_or(|b| b.0 != f64::INFINITY) {
        return None;
    }
    buckets.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1 += later.1;
        }
        same
    });
    let mut forced: Option<Forced> = None;
    let mut prev = buckets[0].1;
    for b in &mut buckets[1..] {
        if b.1 == prev {
            continue;
        }
        if nearly_equal(prev, b.1) {
            b.1 = prev;
            continue;
        }
        if b.1 < prev {
            let diff = prev - b.1;
            let f = forced.get_or_insert(Forced {
                lowest: b.0,
                highest: b.0,
                diff,
                first_ms: 0,
                last_ms: 0,
                count: 1,
            });
            f.lowest = f.lowest.min(b.0);
            f.highest = f.highest.max(b.0);
            f.diff = f.diff.max(diff);
            b.1 = prev;
            continue;
        }
        prev = b.1;
    }
    Some(forced)
}

fn nearly_equal(a: f64, b: f64) -> bool {
    let diff = (a - b).abs();
    let sum = a.abs() + b.abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return diff < TOLERANCE * f64::MIN_POSITIVE;
    }
    diff / sum.min(f64::MAX) < TOLERANCE
}

/// The φ-quantile, and what had to be forced for it.
pub(crate) fn classic_quantile(q: f64, buckets: &mut Classic) -> (f64, Option<Forced>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    let Some(forced) = prepare(buckets) else {
        return (f64::NAN, None);
    };
    (interpolated(q, buckets), forced)
}

fn interpolated(q: f64, buckets: &Classic) -> f64 {
    let n = buckets.len();
    let total = buckets[n - 1].1;
    if n < 2 || total == 0.0 {
        return f64::NAN;
    }
    let mut rank = q * total;
    let at = buckets[..n - 1].iter().position(|b| b.1 >= rank).unwrap_or(n - 1);
    if at == n - 1 {
        return buckets[n - 2].0;
    }
    let (end, mut count) = buckets[at];
    if at == 0 {
        return if end <= 0.0 { end } else { end * (rank / count) };
    }
    let (start, before) = buckets[at - 1];
    count -= before;
    rank -= before;
    start + (end - start) * (rank / count)
}

/// The share of observations between two bounds.
pub(crate) fn classic_fraction(lower: f64, upper: f64, buckets: &mut Classic) -> f64 {
    if prepare(buckets).is_none() {
        return f64::NAN;
    }
    let total = buckets[buckets.len() - 1].1;
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (classic_rank(upper, buckets) - classic_rank(lower, buckets)) / total
}

/// How many observations lie at or below `v`. Infinite buckets cannot be divided: nothing of the last one
/// and all of the first one counts.
fn classic_rank(v: f64, buckets: &Classic) -> f64 {
    let mut rank = 0.0;
    let mut start = if buckets[0].0 > 0.0 { 0.0 } else { f64::NEG_INFINITY };
    for &(end, count) in buckets {
        if start >= v {
            return rank;
        }
        if end > v {
            if start == f64::NEG_INFINITY {
                return count;
            }
            return rank + (count - rank) * (v - start) / (end - start);
        }
        rank = count;
        start = end;
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let mut b = vec![(f64::INFINITY, 4.0), (1.0, 2.0), (2.0, 4.0)];
        assert_eq!(classic_quantile(0.5, &mut b).0, 1.0);
        assert_eq!(classic_quantile(0.75, &mut b).0, 1.5);
        assert_eq!(classic_fraction(0.0, 1.5, &mut b), 0.75);
        assert!(classic_quantile(0.5, &mut vec![(1.0, 2.0)]).0.is_nan());
        let mut bad = vec![(1.0, 3.0), (2.0, 1.0), (f64::INFINITY, 4.0)];
        let forced = classic_quantile(0.5, &mut bad).1.unwrap();
        assert_eq!((forced.lowest, forced.diff), (2.0, 2.0));
    }
}
