//! `sum_over_time` and `avg_over_time`.

use koios_model::CounterReset;
use koios_model::histogram::HistogramSum;
use koios_model::kahan::kahan_inc;

use crate::aggregates::{add_to_sum, finish_sum};
use crate::engine::{HistOp, Point, Window};

use super::Cx;

/// The sum or mean of a window of one kind of samples.
pub(super) fn sum(w: &Window<'_>, cx: &Cx<'_>, mean: bool) -> Option<Point> {
    if w.is_mixed() {
        cx.notes.mixed_floats_histograms(cx.span, cx.metric);
        return None;
    }
    if w.hist_count > 0 {
        return histograms(w, cx, mean);
    }
    Some(if mean { float_mean(w.values()) } else { float_sum(w.values()) }.into())
}

pub(super) fn float_sum(values: &[f64]) -> f64 {
    let (s, c) = values.iter().fold((0.0, 0.0), |(s, c), v| kahan_inc(*v, s, c));
    if s.is_infinite() { s } else { s + c }
}

/// The mean, incremental from where the sum would overflow.
pub(super) fn float_mean(values: &[f64]) -> f64 {
    let (mut s, mut c) = (values[0], 0.0);
    for (i, v) in values.iter().enumerate().skip(1) {
        let (next, next_c) = kahan_inc(*v, s, c);
        if next.is_infinite() {
            return incremental_mean(&values[i..], i as f64, s, c);
        }
        (s, c) = (next, next_c);
    }
    let n = values.len() as f64;
    s / n + c / n
}

fn incremental_mean(rest: &[f64], before: f64, s: f64, c: f64) -> f64 {
    let (mut mean, mut c, mut n) = (s / before, c / before, before);
    for v in rest {
        n += 1.0;
        let q = (n - 1.0) / n;
        (mean, c) = kahan_inc(v / n, q * mean, q * c);
    }
    mean + c
}

fn histograms(w: &Window<'_>, cx: &Cx<'_>, mean: bool) -> Option<Point> {
    let hists = w.hists();
    let hinted = |hint| hists.iter().any(|h| h.hint == hint);
    if hinted(CounterReset::Reset) && hinted(CounterReset::NotReset) {
        cx.notes.reset_collision(cx.span, HistOp::Agg);
    }
    if let [only] = hists.as_slice() {
        return Some(Point::Hist((*only).clone()));
    }
    let mut total = HistogramSum::new(hists[0]);
    let (mut n, mut incremental) = (1.0, false);
    for h in &hists[1..] {
        match add_to_sum(&mut total, h, &mut n, &mut incremental, mean) {
            Some(true) => cx.notes.mismatched_custom(cx.span, HistOp::Agg),
            Some(false) => {}
            None => {
                cx.notes.mixed_exponential_custom(cx.span, cx.metric);
                return None;
            }
        }
    }
    Some(finish_sum(total, n, incremental, mean).into())
}
