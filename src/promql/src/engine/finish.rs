//! Results as the caller wants them.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use koios_model::Labels;

use crate::api::{Floats, MatrixSeries, SampleValue, Value, VectorSample};
use crate::plan::Node;

use super::rows::same_labelset;
use super::{Cell, Column, Ctx, Res, Row, Timeline, drop_metadata, sorted};

/// A series with points at less than one of so many steps keeps their times instead of all steps.
const SPARSE: usize = 4;

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
        if !self.is_range() {
            let rows = self.collect(root, tl)?;
            let named = rows.rows.into_iter().map(named).collect();
            let rows = self.merge_rows(named)?;
            return Ok(Value::Vector(rows.iter().filter_map(|r| sample(r, tl.start)).collect()));
        }
        let mut series: Vec<MatrixSeries> = Vec::new();
        let mut seen: HashMap<Labels, usize> = HashMap::new();
        let mut charge = self.budget.charge(0)?;
        self.rows(root, tl, &mut |row| {
            self.work_row(&row)?;
            let row = named(row);
            if row.col.is_empty() {
                return Ok(());
            }
            let new = matrix_series(row, tl);
            match seen.entry(new.labels.clone()) {
                Entry::Vacant(v) => {
                    charge.add(new.weight())?;
                    charge.add_bytes(new.labels.heap_bytes() as u64)?;
                    v.insert(series.len());
                    series.push(new);
                    Ok(())
                }
                Entry::Occupied(o) => series[*o.get()].join(new),
            }
        })?;
        drop(seen);
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
            return Err(same_labelset());
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

fn named(mut row: Row) -> Row {
    if row.drop_name {
        row.labels = drop_metadata(&row.labels);
    }
    row
}

fn matrix_series(row: Row, tl: &Timeline) -> MatrixSeries {
    let mut out = MatrixSeries { labels: row.labels, ..MatrixSeries::default() };
    if !row.col.has_hists() {
        let present = row.col.raw().iter().filter(|v| Floats::is_point(**v)).count();
        if present > tl.n / SPARSE {
            out.floats = Floats::at_steps(tl.start, tl.step, row.col.into_raw());
            return out;
        }
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

impl MatrixSeries {
    /// How many samples this counts for.
    fn weight(&self) -> u64 {
        let hists: usize = self.histograms.iter().map(|(_, h)| 1 + h.size_in_samples()).sum();
        (self.floats.held() + hists) as u64
    }

    /// Takes over the points of a series with the same labels.
    ///
    /// # Errors
    /// `Execution` when both have one at the same time.
    fn join(&mut self, other: Self) -> Res<()> {
        let mut floats: Vec<(i64, f64)> = self.floats.iter().chain(other.floats.iter()).collect();
        floats.sort_by_key(|p| p.0);
        self.histograms.extend(other.histograms);
        self.histograms.sort_by_key(|p| p.0);
        let mut times: Vec<i64> = floats.iter().map(|p| p.0).collect();
        times.extend(self.histograms.iter().map(|p| p.0));
        times.sort_unstable();
        if times.windows(2).any(|w| w[0] == w[1]) {
            return Err(same_labelset());
        }
        self.floats = floats.into_iter().collect();
        Ok(())
    }
}
