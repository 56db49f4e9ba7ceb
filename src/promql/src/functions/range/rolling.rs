//! Windows that slide: state carried from one step to the next, for series of floats only.
//!
//! Used only where the result is the same to the last bit as that of looking at each window alone: extremes,
//! quantiles, counts of changes, and sums of values that are so few binary digits long that no order of addition can
//! round them: whole numbers, and multiples of a half, an eighth and so on.

use crate::aggregates::quantile_sorted;
use crate::engine::{Samples, Window};

use super::fixed::Fixed;
use super::{Cx, Kernel};

/// Values with more binary places are never summed exactly here.
const PLACES_MAX: i32 = 52;

/// State of one series; windows must come in order.
pub(super) enum Rolling {
    /// The greatest, or the least.
    Extreme(Extreme),
    /// Sum of all values before each position.
    Whole { mean: bool, before: Vec<f64> },
    /// Sums that do round.
    Fixed(Fixed),
    /// Values of the window in order, NaN first.
    Sorted { from: usize, to: usize, values: Vec<f64> },
    /// Number of changes before each position.
    Changes { before: Vec<u32> },
}

impl Rolling {
    /// The state for a kernel, `None` when it has to look at each window.
    pub fn new(kernel: Kernel, s: &Samples, steps: usize) -> Option<Self> {
        if s.hists.is_some() || steps < 2 {
            return None;
        }
        match kernel {
            Kernel::Extreme { max } => Some(Self::Extreme(Extreme { max, ..Extreme::default() })),
            Kernel::Quantile => Some(Self::Sorted { from: 0, to: 0, values: Vec::new() }),
            Kernel::Sum { mean } => match exact_sums(&s.values) {
                Some(before) => Some(Self::Whole { mean, before }),
                None => Fixed::new(&s.values).map(Self::Fixed),
            },
            Kernel::Changes => Some(Self::Changes { before: changes(&s.values) }),
            _ => None,
        }
    }

    /// The result for the next window.
    pub fn eval(&mut self, w: &Window<'_>, cx: &Cx<'_>) -> f64 {
        let values = &w.samples.values;
        match self {
            Self::Extreme(extreme) if extreme.max => extreme.slide::<true>(values, w.from, w.to),
            Self::Extreme(extreme) => extreme.slide::<false>(values, w.from, w.to),
            Self::Whole { mean, before } => {
                let sum = before[w.to] - before[w.from];
                if *mean { sum / w.len() as f64 } else { sum }
            }
            Self::Fixed(fixed) => fixed.sum(w.from, w.to),
            Self::Sorted { from, to, values: sorted } => {
                slide(sorted, values, (*from, *to), (w.from, w.to));
                (*from, *to) = (w.from, w.to);
                let q = cx.params[0];
                if !(0.0..=1.0).contains(&q) {
                    cx.notes.invalid_quantile(cx.param_span, q);
                }
                quantile_sorted(q, sorted)
            }
            Self::Changes { before } => f64::from(before[w.to - 1] - before[w.from]),
        }
    }
}

/// Extremes of windows that slide, by two halves: of the older one the extreme of every tail is known, of the younger
/// one the extreme of all. When the older one has slid out, the whole window becomes the older one. Every value is
/// looked at twice, and nothing depends on its order, as it would with a queue of candidates. Of equal values (0 and
/// -0) the first counts; NaN counts when there is nothing else.
#[derive(Default)]
pub(super) struct Extreme {
    max: bool,
    /// Position of the first tail, and the one after the last.
    from: usize,
    split: usize,
    tails: Vec<f64>,
    young: f64,
    /// End of the younger half.
    to: usize,
}

impl Extreme {
    fn slide<const MAX: bool>(&mut self, values: &[f64], from: usize, to: usize) -> f64 {
        let less = |a: f64, b: f64| if MAX { a < b } else { a > b };
        // Of two the better one, the first where they are equal.
        let first = |a: f64, b: f64| if less(a, b) || a.is_nan() { b } else { a };
        if from >= self.split {
            (self.from, self.split, self.to, self.young) = (from, to, to, f64::NAN);
            self.tails.clear();
            self.tails.resize(to - from, f64::NAN);
            let mut best = f64::NAN;
            for (tail, v) in self.tails.iter_mut().zip(&values[from..to]).rev() {
                best = first(*v, best);
                *tail = best;
            }
        }
        for v in &values[self.to..to] {
            self.young = first(self.young, *v);
        }
        self.to = to;
        match self.tails.get(from - self.from) {
            Some(tail) => first(*tail, self.young),
            None => self.young,
        }
    }
}

/// Binary places after the point of the last digit of a value; 0 for whole numbers.
#[inline]
fn places(v: f64) -> i32 {
    let bits = v.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let mantissa = bits & ((1 << 52) - 1);
    if exponent == 0 {
        return if mantissa == 0 { 0 } else { 1074 };
    }
    (1075 - exponent - (mantissa | 1 << 52).trailing_zeros() as i32).max(0)
}

/// Running sums, when no sum of any of the values can be rounded.
fn exact_sums(values: &[f64]) -> Option<Vec<f64>> {
    let (mut size, mut finest) = (0.0, 0);
    for v in values {
        size += v.abs();
        finest = finest.max(places(*v));
    }
    // All sums are multiples of 2^-finest; below 2^(53-finest) all of those are floats. The size may have been
    // rounded, which half of that leaves room for; it is NaN or infinite as soon as one value is.
    let exact = finest <= PLACES_MAX && size < 2f64.powi(52 - finest);
    // A negative zero could show in the result.
    if !exact || values.iter().any(|v| v.to_bits() == (-0.0f64).to_bits()) {
        return None;
    }
    let mut before = Vec::with_capacity(values.len() + 1);
    let mut sum = 0.0;
    before.push(sum);
    for v in values {
        sum += v;
        before.push(sum);
    }
    Some(before)
}

/// At each position the number of changes up to it.
fn changes(values: &[f64]) -> Vec<u32> {
    let mut n = 0;
    let mut out = Vec::with_capacity(values.len());
    let mut last = values.first().copied().unwrap_or(0.0);
    for v in values {
        n += u32::from(*v != last && !(v.is_nan() && last.is_nan()));
        last = *v;
        out.push(n);
    }
    out
}

/// NaN sorts first, then ascending.
fn rank(a: f64, b: f64) -> std::cmp::Ordering {
    b.is_nan()
        .cmp(&a.is_nan())
        .then_with(|| if a.is_nan() { a.to_bits().cmp(&b.to_bits()) } else { a.total_cmp(&b) })
}

/// Turns the sorted values of one window into those of a later one.
fn slide(sorted: &mut Vec<f64>, values: &[f64], old: (usize, usize), new: (usize, usize)) {
    if new.0 >= old.1 {
        sorted.clear();
        sorted.extend_from_slice(&values[new.0..new.1]);
        sorted.sort_by(|a, b| rank(*a, *b));
        return;
    }
    for v in &values[old.0..new.0] {
        if let Ok(at) = sorted.binary_search_by(|x| rank(*x, *v)) {
            sorted.remove(at);
        }
    }
    for v in &values[old.1..new.1] {
        let at = sorted.partition_point(|x| rank(*x, *v).is_lt());
        sorted.insert(at, *v);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn extremes_are_those_of_each_window_alone(
            picks in proptest::collection::vec(0usize..6, 1..60),
            moves in proptest::collection::vec((0usize..5, 0usize..5), 1..60),
        ) {
            let values: Vec<f64> = picks.iter().map(|p| [f64::NAN, -0.0, 0.0, 1.5, -2.0, 7.0][*p]).collect();
            let (mut max, mut min) = (Extreme { max: true, ..Extreme::default() }, Extreme::default());
            let (mut from, mut to) = (0, 0);
            for (a, b) in moves {
                to = (to + b).min(values.len());
                from = (from + a).min(to.saturating_sub(1));
                if from == to {
                    continue;
                }
                let fold = |better: fn(f64, f64) -> bool| {
                    values[from..to].iter().fold(f64::NAN, |m, v| if m.is_nan() || better(m, *v) { *v } else { m })
                };
                let got = (max.slide::<true>(&values, from, to), min.slide::<false>(&values, from, to));
                let want = (fold(|m, v| m < v), fold(|m, v| m > v));
                prop_assert_eq!((got.0.to_bits(), got.1.to_bits()), (want.0.to_bits(), want.1.to_bits()));
            }
        }
    }

    #[test]
    fn places_after_the_point() {
        for (v, n) in
            [(0.0, 0), (3.0, 0), (-0.5, 1), (0.125, 3), (1e300, 0), (6.75, 2), (f64::MIN_POSITIVE, 1022)]
        {
            assert_eq!(places(v), n, "{v}");
        }
        assert_eq!(places(f64::from_bits(1)), 1074);
    }

    #[test]
    fn only_sums_that_cannot_round() {
        let exact = |values: &[f64]| exact_sums(values).is_some();
        assert!(exact(&[1.0, -2.5, 0.125]) && exact(&[4e15, 1.0]) && exact(&[]));
        assert!(!exact(&[4e15, 0.5]) && !exact(&[0.1]) && !exact(&[-0.0]) && !exact(&[1e16]));
        assert!(!exact(&[f64::NAN]) && !exact(&[f64::INFINITY, 1.0]) && !exact(&[1e300]));
        let whole = exact_sums(&[0.5, 0.25, 8.0]).unwrap();
        assert_eq!(whole, [0.0, 0.5, 0.75, 8.75]);
    }
}
