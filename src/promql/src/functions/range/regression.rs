//! Straight lines through windows, and double exponential smoothing.

use koios_model::format::float_f;
use koios_model::kahan::kahan_inc;

use crate::api::EvalError;
use crate::engine::{Res, Window};

use super::Cx;

/// Slope and value at `at` of the least-squares line. A constant input has slope exactly 0.
fn linear(times: &[i64], values: &[f64], at: i64) -> (f64, f64) {
    let first = values[0];
    if values.iter().all(|v| *v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let mut sums = [(0.0, 0.0); 4];
    for (t, y) in times.iter().zip(values) {
        let x = (t - at) as f64 / 1000.0;
        for (sum, v) in sums.iter_mut().zip([x, *y, x * y, x * x]) {
            *sum = kahan_inc(v, sum.0, sum.1);
        }
    }
    let n = values.len() as f64;
    let [x, y, xy, xx] = sums.map(|(s, c)| s + c);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}

/// Whether a line can be drawn; notes histograms beside floats.
fn two_floats(w: &Window<'_>, cx: &Cx<'_>) -> bool {
    if w.is_mixed() {
        cx.notes.histogram_ignored_in_range(cx.span, cx.metric);
    }
    w.float_count() >= 2
}

/// Change per second of the line.
pub(super) fn deriv(w: &Window<'_>, cx: &Cx<'_>) -> Option<f64> {
    if !two_floats(w, cx) {
        return None;
    }
    let (times, values) = w.floats();
    Some(linear(&times, &values, times[0]).0)
}

/// The line's value some seconds after the evaluation time.
pub(super) fn predict(w: &Window<'_>, cx: &Cx<'_>) -> Option<f64> {
    if !two_floats(w, cx) {
        return None;
    }
    let (times, values) = w.floats();
    let (slope, at) = linear(&times, &values, cx.t);
    Some(slope * cx.params[0] + at)
}

/// Holt's smoothing with a trend.
pub(super) fn smoothing(w: &Window<'_>, cx: &Cx<'_>) -> Res<Option<f64>> {
    let [sf, tf] = cx.params;
    for (name, f) in [("smoothing", sf), ("trend", tf)] {
        if f <= 0.0 || f >= 1.0 {
            let (short, got) = (&name[..1], six_digits(f));
            let text = format!("invalid {name} factor. Expected: 0 < {short}f < 1, got: {got}");
            return Err(EvalError::exec(text));
        }
    }
    if !two_floats(w, cx) {
        return Ok(None);
    }
    let (_, values) = w.floats();
    let (mut before, mut now) = (0.0, values[0]);
    let mut trend = values[1] - values[0];
    for (i, v) in values.iter().enumerate().skip(1) {
        if i > 1 {
            trend = tf * (now - before) + (1.0 - tf) * trend;
        }
        let next = sf * v + (1.0 - sf) * (now + trend);
        (before, now) = (now, next);
    }
    Ok(Some(now))
}

/// Go's `%f`.
fn six_digits(v: f64) -> String {
    if v.is_finite() { format!("{v:.6}") } else { float_f(v) }
}
