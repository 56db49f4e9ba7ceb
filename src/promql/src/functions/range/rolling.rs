//! Windows that slide: state carried from one step to the next, for series of floats only.
//!
//! Used only where the result is the same to the last bit as that of looking at each window alone: extremes,
//! quantiles, counts of changes, and sums of whole numbers, which no order of addition can round.

use std::collections::VecDeque;

use crate::aggregates::quantile_sorted;
use crate::engine::{Samples, Window};

use super::{Cx, Kernel};

/// Sums below this are exact in a float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// State of one series; windows must come in order.
pub(super) enum Rolling {
    /// Positions of candidates, best first.
    Extreme { max: bool, to: usize, best: VecDeque<usize> },
    /// Sum of all values before each position.
    Whole { mean: bool, before: Vec<f64> },
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
            Kernel::Extreme { max } => Some(Self::Extreme { max, to: 0, best: VecDeque::new() }),
            Kernel::Quantile => Some(Self::Sorted { from: 0, to: 0, values: Vec::new() }),
            Kernel::Sum { mean } => whole_sums(&s.values).map(|before| Self::Whole { mean, before }),
            Kernel::Changes => Some(Self::Changes { before: changes(&s.values) }),
            _ => None,
        }
    }

    /// The result for the next window.
    pub fn eval(&mut self, w: &Window<'_>, cx: &Cx<'_>) -> f64 {
        let values = &w.samples.values;
        match self {
            Self::Extreme { max, to, best } => {
                while *to < w.to {
                    let v = values[*to];
                    let worse = |b: f64| if *max { b < v } else { b > v };
                    while best.back().is_some_and(|&b| worse(values[b])) {
                        best.pop_back();
                    }
                    if !v.is_nan() {
                        best.push_back(*to);
                    }
                    *to += 1;
                }
                while best.front().is_some_and(|&b| b < w.from) {
                    best.pop_front();
                }
                best.front().map_or(f64::NAN, |&b| values[b])
            }
            Self::Whole { mean, before } => {
                let sum = before[w.to] - before[w.from];
                if *mean { sum / w.len() as f64 } else { sum }
            }
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

/// Running sums, when all values are whole and no sum can be rounded.
fn whole_sums(values: &[f64]) -> Option<Vec<f64>> {
    let mut before = Vec::with_capacity(values.len() + 1);
    let (mut sum, mut size) = (0.0, 0.0);
    before.push(0.0);
    for v in values {
        size += v.abs();
        // A negative zero could show in the result.
        let whole = v.trunc() == *v && size < EXACT_MAX && v.to_bits() != (-0.0f64).to_bits();
        if !whole {
            return None;
        }
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
