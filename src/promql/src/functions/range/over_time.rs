//! Functions of the floats of a window; histograms beside them are ignored with an info.

use koios_model::kahan::kahan_inc;

use crate::aggregates::quantile;
use crate::engine::Window;

use super::Cx;

/// Notes that histograms stand between the floats. False when there are no floats.
pub(super) fn has_floats(w: &Window<'_>, cx: &Cx<'_>) -> bool {
    if w.float_count() == 0 {
        return false;
    }
    if w.hist_count > 0 {
        cx.notes.histogram_ignored_in_range(cx.span, cx.metric);
    }
    true
}

/// The largest or smallest float. NaN only when there is nothing else; of equal ones the first.
pub(super) fn extreme(w: &Window<'_>, cx: &Cx<'_>, max: bool) -> Option<f64> {
    if !has_floats(w, cx) {
        return None;
    }
    let (_, values) = w.floats();
    let better = |v: f64, best: f64| best.is_nan() || if max { v > best } else { v < best };
    Some(values.iter().skip(1).fold(values[0], |best, v| if better(*v, best) { *v } else { best }))
}

/// Time of the largest or smallest float, of equal ones the last.
pub(super) fn extreme_time(w: &Window<'_>, cx: &Cx<'_>, max: bool) -> Option<i64> {
    if !has_floats(w, cx) {
        return None;
    }
    let (times, values) = w.floats();
    let mut best = (times[0], values[0]);
    for (t, v) in times.iter().zip(values.iter()).skip(1) {
        let better = if max { *v >= best.1 } else { *v <= best.1 };
        if better || best.1.is_nan() {
            best = (*t, *v);
        }
    }
    Some(best.0)
}

/// Population variance or standard deviation, Welford's way with compensation.
pub(super) fn variance(w: &Window<'_>, cx: &Cx<'_>, root: bool) -> Option<f64> {
    if !has_floats(w, cx) {
        return None;
    }
    let (_, values) = w.floats();
    let (mut n, mut mean, mut c_mean, mut aux, mut c_aux) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for v in values.iter() {
        n += 1.0;
        let delta = v - (mean + c_mean);
        (mean, c_mean) = kahan_inc(delta / n, mean, c_mean);
        (aux, c_aux) = kahan_inc(delta * (v - (mean + c_mean)), aux, c_aux);
    }
    let variance = (aux + c_aux) / n;
    Some(if root { variance.sqrt() } else { variance })
}

/// The φ-quantile of the floats.
pub(super) fn quantile_over_time(w: &Window<'_>, cx: &Cx<'_>) -> Option<f64> {
    if !has_floats(w, cx) {
        return None;
    }
    let q = cx.params[0];
    if !(0.0..=1.0).contains(&q) {
        cx.notes.invalid_quantile(cx.param_span, q);
    }
    let mut values = w.floats().1.into_owned();
    Some(quantile(q, &mut values))
}

/// Median of the distances to the median; NaN as soon as one value is.
pub(super) fn mad(w: &Window<'_>, cx: &Cx<'_>) -> Option<f64> {
    if !has_floats(w, cx) {
        return None;
    }
    let mut values = w.floats().1.into_owned();
    if values.iter().any(|v| v.is_nan()) {
        return Some(f64::NAN);
    }
    let median = quantile(0.5, &mut values);
    values.iter_mut().for_each(|v| *v = (*v - median).abs());
    Some(quantile(0.5, &mut values))
}
