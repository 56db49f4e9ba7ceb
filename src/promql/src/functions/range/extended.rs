//! `rate`, `increase`, `delta` on anchored and smoothed windows: no extrapolation.
//!
//! Anchored: from the last sample at or before the start of the range (else the first inside) to the last
//! one inside. Smoothed: from the interpolated value at the start to that at the end.

use crate::engine::{Point, Window, interpolate};
use crate::syntax::ast::Edges;

use super::{Cx, extended_hist};

/// Positions of the first and last sample that matter.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    pub first: usize,
    pub last: usize,
    /// The value at the start lies between `first` and the next sample.
    pub left_between: bool,
    /// The value at the end lies between `last` and the sample before.
    pub right_between: bool,
}

fn reach(w: &Window<'_>, smoothed: bool) -> Option<Reach> {
    let times = w.times();
    let first = times.partition_point(|t| *t <= w.start).saturating_sub(1);
    let last =
        if smoothed { times.partition_point(|t| *t < w.end).min(times.len() - 1) } else { times.len() - 1 };
    if times[last] <= w.start || times[first] > w.end {
        return None;
    }
    Some(Reach {
        first: w.from + first,
        last: w.from + last,
        left_between: smoothed && times[first] < w.start,
        right_between: smoothed && last > first && times[last] > w.end,
    })
}

/// The change over the range, per second if asked for.
pub(super) fn rate(w: &Window<'_>, cx: &Cx<'_>, counter: bool, per_second: bool) -> Option<Point> {
    let r = reach(w, cx.edges == Edges::Smoothed)?;
    let seconds = if per_second { w.range_ms() as f64 / 1000.0 } else { 1.0 };
    let hists =
        (r.first..=r.last).filter(|&i| matches!(w.samples.cell(i), crate::engine::Cell::Hist(_))).count();
    if hists == 0 {
        return Some((floats(w, r, counter) / seconds).into());
    }
    if hists <= r.last - r.first {
        cx.notes.mixed_floats_histograms(cx.span, cx.metric);
        return None;
    }
    let mut h = extended_hist::change(w, cx, r, counter)?;
    if per_second {
        h.div(seconds);
    }
    Some(h.into())
}

fn floats(w: &Window<'_>, r: Reach, counter: bool) -> f64 {
    let point = |i: usize| (w.samples.times[i], w.samples.values[i]);
    let left = if r.left_between {
        interpolate(point(r.first), point(r.first + 1), w.start, counter)
    } else {
        point(r.first).1
    };
    let right = if r.right_between {
        interpolate(point(r.last - 1), point(r.last), w.end, counter)
    } else {
        point(r.last).1
    };
    let mut change = right - left;
    if counter {
        let mut prev = left;
        let inner = (r.first + 1..r.last).map(|i| point(i).1);
        for v in inner.chain([right]) {
            if v < prev {
                change += prev;
            }
            prev = v;
        }
    }
    change
}
