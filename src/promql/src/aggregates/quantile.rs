//! `quantile`, and the quantile of a list of floats.

use crate::engine::{Cell, Column, Ctx, Res, Row, Sink, Timeline};
use crate::plan::Aggregate;

use super::Groups;

/// The φ-quantile by linear interpolation between the two neighbours; NaN sorts first. Sorts `values`.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    values.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.total_cmp(b),
    });
    quantile_sorted(q, values)
}

/// As `quantile`, of values that are in order already.
pub(crate) fn quantile_sorted(q: f64, values: &[f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let n = values.len() as f64;
    let rank = q * (n - 1.0);
    let lower = rank.floor().max(0.0);
    let upper = (lower + 1.0).min(n - 1.0);
    let weight = rank - rank.floor();
    values[lower as usize] * (1.0 - weight) + values[upper as usize] * weight
}

/// Units of work of sorting one element.
const SORT_WORK: usize = 32;

impl Ctx<'_> {
    pub(super) fn quantile_rows(&self, a: &Aggregate, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let Some(param) = &a.param else {
            return Ok(());
        };
        let q = self.scalar(param, tl)?;
        let collected = self.collect(&a.expr, tl)?;
        if collected.rows.iter().any(|r| r.col.has_hists()) {
            self.notes.histogram_ignored(a.expr.span, a.op.as_str());
        }
        if !collected.rows.is_empty() {
            for q in q.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
                self.notes.invalid_quantile(param.span, *q);
            }
        }
        let mut groups: Groups<Vec<&Row>> = Groups::new();
        for row in &collected.rows {
            self.work_row(row)?;
            let g = groups.find_group(row, a, Vec::new);
            groups.list[g].2.push(row);
        }
        let mut values = Vec::new();
        for (labels, drop_name, rows) in groups.list {
            let mut col = Column::absent(tl.n);
            for (i, q) in q.iter().enumerate() {
                self.work(SORT_WORK * (1 + rows.len()))?;
                values.clear();
                values.extend(rows.iter().filter_map(|r| match r.col.get(i) {
                    Cell::Float(v) => Some(v),
                    _ => None,
                }));
                if !values.is_empty() {
                    col.set_float(i, quantile(*q, &mut values));
                }
            }
            if !col.is_empty() {
                sink(Row { labels, drop_name, col })?;
            }
        }
        Ok(())
    }
}
