//! Sorting of instant vectors. In range queries results are ordered by labels, so sorting only warns.

use std::cmp::Ordering;

use crate::engine::{Cell, Ctx, Res, Row, Sink, Timeline, sorted};
use crate::plan::Call;
use crate::syntax::ast::Span;

use super::natural::natural_cmp;

/// Units of work of comparing two values, and of comparing one byte in natural order.
const COMPARISON: usize = 16;
const NATURAL_WORK: usize = 4;

fn value(row: &Row) -> f64 {
    match row.col.get(0) {
        Cell::Float(v) => v,
        _ => f64::NAN,
    }
}

impl Ctx<'_> {
    /// By value, NaN last; histograms are left out.
    pub(super) fn sort_rows(&self, c: &Call, span: Span, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let mut collected = self.collect(&c.args[0], tl)?;
        let rows = &mut collected.rows;
        for row in rows.iter_mut().filter(|r| r.col.has_hists()) {
            self.work_row(row)?;
            row.col = row.col.map(|_, c| match c {
                Cell::Float(v) => Some(v.into()),
                _ => None,
            });
        }
        rows.retain(|r| !r.col.is_empty());
        if self.is_range() {
            self.notes.sort_in_range(span);
        } else {
            let descending = c.func.name == "sort_desc";
            *rows = sorted(std::mem::take(rows), COMPARISON, self.control, |a, b| {
                let (x, y) = (value(a), value(b));
                match (x.is_nan(), y.is_nan()) {
                    (true, true) => Ordering::Equal,
                    (true, false) => Ordering::Greater,
                    (false, true) => Ordering::Less,
                    (false, false) if descending => y.partial_cmp(&x).unwrap_or(Ordering::Equal),
                    (false, false) => x.partial_cmp(&y).unwrap_or(Ordering::Equal),
                }
            })?;
        }
        std::mem::take(rows).into_iter().try_for_each(sink)
    }

    /// By the values of labels in natural order; equal ones by all labels.
    pub(super) fn sort_by_label_rows(&self, c: &Call, span: Span, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let mut collected = self.collect(&c.args[0], tl)?;
        if self.is_range() {
            self.notes.sort_in_range(span);
        }
        let names: Vec<&str> = c.args[1..].iter().map(|a| self.text(a)).collect();
        let descending = c.func.name == "sort_by_label_desc";
        let rows = std::mem::take(&mut collected.rows);
        let longest = rows.iter().map(|r| r.labels.heap_bytes()).max().unwrap_or(0);
        let rows = sorted(rows, NATURAL_WORK * longest, self.control, |a, b| {
            let by_names = names
                .iter()
                .map(|n| natural_cmp(a.labels.value(n), b.labels.value(n)))
                .find(|o| *o != Ordering::Equal);
            let order = by_names.unwrap_or_else(|| a.labels.cmp(&b.labels));
            if descending { order.reverse() } else { order }
        })?;
        rows.into_iter().try_for_each(sink)
    }
}
