//! Results as the caller wants them.

use std::sync::Arc;

use crate::api::{Floats, MatrixSeries, SampleValue, Value, VectorSample};
use crate::plan::Node;

use super::{Cell, Column, Ctx, Res, Row, Timeline, drop_metadata, sorted};

impl Ctx<'_> {
    pub(super) fn scalar_result(&self, root: &Node, tl: &Timeline) -> Res<Value> {
        let values = self.scalar(root, tl)?;
        if !self.is_range() {
            return Ok(Value::Scalar(tl.start, values[0]));
        }
        let floats = Floats::at_steps(tl.start, tl.step, Column::floats(values).into_raw());
        Ok(Value::Matrix(vec![MatrixSeries { floats, ..MatrixSeries::default() }]))
    }

    pub(super) fn vector_result(&self, root: &Node, tl: &Timeline) -> Res<Value> {
        let collected = self.collect(root, tl)?;
        let mut rows = collected.rows;
        for row in &mut rows {
            self.work_row(row)?;
            if row.drop_name {
                row.labels = drop_metadata(&row.labels);
            }
        }
        let mut rows = self.merge_rows(rows)?;
        rows.retain(|r| !r.col.is_empty());
        if !self.is_range() {
            return Ok(Value::Vector(rows.iter().filter_map(|r| sample(r, tl.start)).collect()));
        }
        let mut series: Vec<MatrixSeries> = Vec::with_capacity(rows.len());
        for row in rows {
            self.work_row(&row)?;
            series.push(matrix_series(row, tl));
        }
        Ok(Value::Matrix(self.by_labels(series)?))
    }

    fn by_labels(&self, series: Vec<MatrixSeries>) -> Res<Vec<MatrixSeries>> {
        let longest = series.iter().map(|s| s.labels.heap_bytes()).max().unwrap_or(0);
        sorted(series, longest, self.control, |a, b| a.labels.cmp(&b.labels))
    }

    /// Raw samples of a range selector or subquery at an instant.
    pub(super) fn matrix_result(&self, root: &Node, tl: &Timeline) -> Res<Value> {
        let mut all = Vec::new();
        let mut charge = self.budget.charge(0)?;
        self.each_range(root, tl, |series, frame| {
            let labels = if series.drop_name { drop_metadata(series.labels) } else { series.labels.clone() };
            let mut out = MatrixSeries { labels, ..MatrixSeries::default() };
            self.each_window(series, tl, frame, |_, w| {
                charge.add(w.len() as u64)?;
                for i in w.from..w.to {
                    let t = w.samples.times[i];
                    match w.samples.cell(i) {
                        Cell::Float(v) => out.floats.push(t, v),
                        Cell::Hist(h) => out.histograms.push((t, Arc::clone(h))),
                        Cell::None => {}
                    }
                }
                Ok(())
            })?;
            if !(out.floats.is_empty() && out.histograms.is_empty()) {
                all.push(out);
            }
            Ok(())
        })?;
        let all = self.by_labels(all)?;
        if all.windows(2).any(|w| w[0].labels == w[1].labels) {
            return Err(super::rows::same_labelset());
        }
        Ok(Value::Matrix(all))
    }
}

fn sample(row: &Row, t_ms: i64) -> Option<VectorSample> {
    let value = match row.col.get(0) {
        Cell::None => return None,
        Cell::Float(v) => SampleValue::Float(v),
        Cell::Hist(h) => SampleValue::Histogram(h.clone()),
    };
    Some(VectorSample { labels: row.labels.clone(), t_ms, value })
}

fn matrix_series(row: Row, tl: &Timeline) -> MatrixSeries {
    let mut out = MatrixSeries { labels: row.labels, ..MatrixSeries::default() };
    if !row.col.has_hists() {
        out.floats = Floats::at_steps(tl.start, tl.step, row.col.into_raw());
        return out;
    }
    for (i, c) in row.col.present() {
        match c {
            Cell::Float(v) => out.floats.push(tl.at(i), v),
            Cell::Hist(h) => out.histograms.push((tl.at(i), h.clone())),
            Cell::None => {}
        }
    }
    out
}
