//! Anchored and smoothed changes of histograms.

use std::sync::Arc;

use koios_model::{CounterReset, FloatHistogram};

use crate::engine::{Cell, Window, interpolate_hist};

use super::Cx;
use super::extended::Reach;
use super::rate::combine;

/// The change between both ends; `None` with a note where buckets do not fit together.
pub(super) fn change(w: &Window<'_>, cx: &Cx<'_>, r: Reach, counter: bool) -> Option<FloatHistogram> {
    let hist = |i: usize| -> Option<&Arc<FloatHistogram>> {
        match w.samples.cell(i) {
            Cell::Hist(h) => Some(h),
            _ => None,
        }
    };
    let all: Vec<&Arc<FloatHistogram>> = (r.first..=r.last).filter_map(hist).collect();
    let (first, last) = (*all.first()?, *all.last()?);
    let gauge = |h: &FloatHistogram| h.hint == CounterReset::Gauge;
    if counter && all.iter().any(|h| gauge(h)) {
        cx.notes.not_counter(cx.span, cx.metric);
    }
    let both_gauges = gauge(first) && gauge(last);
    if !counter && !both_gauges {
        cx.notes.not_gauge(cx.span, cx.metric);
    }
    let considered = if counter { all.as_slice() } else { &[first, last] };
    if considered.iter().any(|h| h.uses_custom_buckets() != first.uses_custom_buckets()) {
        cx.notes.mixed_exponential_custom(cx.span, cx.metric);
        return None;
    }
    let times = &w.samples.times;
    let between = |a: usize, t: i64| {
        let (x, y) = (hist(a)?, hist(a + 1)?);
        let h = interpolate_hist((times[a], x), (times[a + 1], y), t, counter);
        if h.is_none() {
            cx.notes.mixed_exponential_custom(cx.span, cx.metric);
        }
        h
    };
    let left = if r.left_between { between(r.first, w.start)? } else { first.as_ref().clone() };
    let right = if r.right_between { between(r.last - 1, w.end)? } else { last.as_ref().clone() };
    let mut change = right.clone();
    combine(&mut change, &left, true, cx)?;
    if counter && r.last > r.first {
        let mut prev = &left;
        // Interpolation has dealt with a reset right after the left end.
        let mut settled = r.left_between;
        let inner = all[1..all.len() - 1].iter().map(|h| h.as_ref());
        for h in inner.chain([&right]) {
            if !settled && h.detect_reset(prev) {
                combine(&mut change, prev, false, cx)?;
            }
            settled = false;
            prev = h;
        }
    }
    change.hint = CounterReset::Gauge;
    change.compact();
    Some(change)
}
