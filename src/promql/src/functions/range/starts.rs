//! What start timestamps say about counters.
//!
//! A sample whose start lies after the sample before it counts from zero again. A start exactly at the
//! sample before it is how delta temporality is written, but also how a cumulative series with unknown
//! start begins; the start of the sample before tells them apart. Zero and times not before the sample
//! itself say nothing.

use crate::engine::Window;

use super::Cx;

/// Whether the counter was reset between two samples, by their start times.
pub(super) fn reset_by_start(prev_t: i64, prev_start: i64, t: i64, start: i64) -> bool {
    if start == 0 || start >= t {
        return false;
    }
    start > prev_t || (start == prev_t && prev_start != 0 && prev_start < prev_t)
}

/// As `reset_by_start` for the sample at `i` and the one before.
pub(super) fn reset_at(w: &Window<'_>, i: usize) -> bool {
    let times = &w.samples.times;
    reset_by_start(times[i - 1], w.start_of(i - 1), times[i], w.start_of(i))
}

/// The start of the first sample when it lies inside the window: there the counter was zero.
pub(super) fn zero_sample(w: &Window<'_>, cx: &Cx<'_>) -> Option<i64> {
    if !cx.use_starts || w.samples.starts.is_none() {
        return None;
    }
    let start = w.start_of(w.from);
    (start != 0 && start > w.start && start < w.samples.times[w.from]).then_some(start)
}

/// Whether the series is known to begin with the first sample, so that nothing lies before it.
pub(super) fn begins_here(w: &Window<'_>, cx: &Cx<'_>) -> bool {
    cx.use_starts && w.samples.starts.is_some() && w.start_of(w.from) == w.samples.times[w.from]
}

/// Warns about starts that lie before the previous sample without being its start.
pub(super) fn check_overlap(w: &Window<'_>, cx: &Cx<'_>) {
    let overlaps = (w.from + 1..w.to).any(|i| {
        let start = w.start_of(i);
        start != 0 && start < w.samples.times[i - 1] && start != w.start_of(i - 1)
    });
    if overlaps {
        cx.notes.start_overlap(cx.span, cx.metric);
    }
}
