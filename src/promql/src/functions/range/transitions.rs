//! `changes` and `resets`: what happens from sample to sample.

use crate::engine::{Cell, Window};
use crate::syntax::ast::Edges;

use super::Cx;
use super::starts::reset_at;

/// The samples to look at; an anchored window begins with the last sample at or before its start.
fn samples(w: &Window<'_>, cx: &Cx<'_>) -> Option<std::ops::Range<usize>> {
    if cx.edges == Edges::Plain {
        return Some(w.from..w.to);
    }
    let times = w.times();
    if times[times.len() - 1] <= w.start {
        return None;
    }
    let inside = times.partition_point(|t| *t <= w.start);
    Some(w.from + inside.saturating_sub(1)..w.to)
}

/// How often the value changes. From NaN to NaN is no change, between floats and histograms is one.
pub(super) fn changes(w: &Window<'_>, cx: &Cx<'_>) -> Option<f64> {
    let range = samples(w, cx)?;
    let changed = |i: &usize| match (w.samples.cell(i - 1), w.samples.cell(*i)) {
        (Cell::Float(a), Cell::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Cell::Hist(a), Cell::Hist(b)) => a != b,
        _ => true,
    };
    Some((range.start + 1..range.end).filter(changed).count() as f64)
}

/// How often the counter is reset; a change between floats and histograms is a reset.
pub(super) fn resets(w: &Window<'_>, cx: &Cx<'_>) -> Option<f64> {
    let range = samples(w, cx)?;
    let with_starts = cx.use_starts && w.samples.starts.is_some();
    let reset = |i: &usize| match (w.samples.cell(i - 1), w.samples.cell(*i)) {
        (Cell::Float(a), Cell::Float(b)) => b < a || (with_starts && reset_at(w, *i)),
        (Cell::Hist(a), Cell::Hist(b)) => b.detect_reset(a) || (with_starts && reset_at(w, *i)),
        _ => true,
    };
    Some((range.start + 1..range.end).filter(reset).count() as f64)
}
