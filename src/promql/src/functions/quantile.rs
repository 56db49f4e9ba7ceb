//! `histogram_quantile`, `histogram_quantiles`, `histogram_fraction`, on classic and native histograms.
//!
//! Classic buckets are grouped by all labels but `le` once; then each step is computed from the bucket rows.

use koios_model::format::{float_om, parse_go_float};
use koios_model::{FloatHistogram, LabelsBuilder};

use crate::aggregates::Groups;
use crate::api::EvalError;
use crate::engine::{Cell, Column, Ctx, Forced, Res, Row, Rows, Sink, Timeline};
use crate::histograms::{Classic, NanEffect, classic_fraction, classic_quantile, fraction, quantile};
use crate::plan::{Call, Node};
use crate::syntax::ast::Span;

/// Label of the upper bound of a classic bucket.
const BUCKET: &str = "le";

/// Rows of one histogram.
#[derive(Default)]
struct Family<'r> {
    /// Bound and row of each classic bucket.
    buckets: Vec<(f64, &'r Row)>,
    native: Vec<&'r Row>,
}

/// One histogram at one step.
enum Hist<'h> {
    Classic(&'h mut Classic),
    Native(&'h FloatHistogram),
}

/// Units of work of one classic bucket at one step, and of one native histogram.
const BUCKET_WORK: usize = 16;
const NATIVE_WORK: usize = 512;

impl Ctx<'_> {
    pub(super) fn quantile_function(&self, c: &Call, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let q = self.scalar(&c.args[0], tl)?;
        self.check_quantiles(&q, c.args[0].span);
        let input = self.collect(&c.args[1], tl)?;
        let rows = self.over_histograms(&input, &c.args[1], tl, |i, h, metric| {
            self.one_quantile(q[i], h, tl.at(i), metric, c.args[1].span)
        })?;
        self.emit_unnamed(rows, sink)
    }

    pub(super) fn quantiles_function(&self, c: &Call, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let label = self.text(&c.args[1]);
        if !crate::syntax::valid_label_name(label) {
            return Err(EvalError::exec(format!("invalid label name {}", crate::syntax::quote(label))));
        }
        let input = self.collect(&c.args[0], tl)?;
        let mut all = Vec::new();
        for arg in &c.args[2..] {
            let q = self.scalar(arg, tl)?;
            self.check_quantiles(&q, arg.span);
            let rows = self.over_histograms(&input, &c.args[0], tl, |i, h, metric| {
                self.one_quantile(q[i], h, tl.at(i), metric, c.args[0].span)
            })?;
            // The quantile may change from step to step, and with it the label.
            for row in rows {
                let mut by_value: Groups<Column> = Groups::new();
                for (i, cell) in row.col.present() {
                    self.work(row.labels.heap_bytes())?;
                    let mut builder = LabelsBuilder::from_labels(&row.labels);
                    builder.set(label, &float_om(q[i]));
                    let g = by_value.find(builder.build(), row.drop_name, || Column::absent(tl.n));
                    if let Cell::Float(v) = cell {
                        by_value.list[g].2.set_float(i, v);
                    }
                }
                all.extend(by_value.list.into_iter().map(|(labels, drop_name, col)| Row {
                    labels,
                    drop_name,
                    col,
                }));
            }
        }
        self.emit_unnamed(all, sink)
    }

    pub(super) fn fraction_function(&self, c: &Call, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let lower = self.scalar(&c.args[0], tl)?;
        let upper = self.scalar(&c.args[1], tl)?;
        let span = c.args[2].span;
        let input = self.collect(&c.args[2], tl)?;
        let rows = self.over_histograms(&input, &c.args[2], tl, |i, h, metric| match h {
            Hist::Classic(buckets) => classic_fraction(lower[i], upper[i], buckets),
            Hist::Native(h) => {
                let (value, nans) = fraction(lower[i], upper[i], h);
                if nans {
                    self.notes.fraction_nan(span, metric);
                }
                value
            }
        })?;
        self.emit_unnamed(rows, sink)
    }

    fn check_quantiles(&self, q: &[f64], span: Span) {
        for q in q.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
            self.notes.invalid_quantile(span, *q);
        }
    }

    fn one_quantile(&self, q: f64, h: Hist<'_>, t: i64, metric: &str, span: Span) -> f64 {
        match h {
            Hist::Classic(buckets) => {
                let (value, forced) = classic_quantile(q, buckets);
                if let Some(f) = forced {
                    let name = if self.delayed() { metric } else { "" };
                    self.notes.forced_monotonicity(span, name, Forced { first_ms: t, last_ms: t, ..f });
                }
                value
            }
            Hist::Native(h) => {
                let (value, effect) = quantile(q, h);
                match effect {
                    NanEffect::None => {}
                    NanEffect::Result => self.notes.quantile_nan(span, metric),
                    NanEffect::Skew => self.notes.quantile_skew(span, metric),
                }
                value
            }
        }
    }

    fn emit_unnamed(&self, rows: Vec<Row>, sink: Sink<'_>) -> Res<()> {
        let rows: Vec<Row> = rows.into_iter().map(|r| self.unnamed(r)).collect();
        if self.delayed() {
            return rows.into_iter().try_for_each(sink);
        }
        self.emit_merged(rows, sink)
    }

    /// Applies `f` to every histogram at every step.
    fn over_histograms(
        &self,
        input: &Rows,
        arg: &Node,
        tl: &Timeline,
        mut f: impl FnMut(usize, Hist<'_>, &str) -> f64,
    ) -> Res<Vec<Row>> {
        let mut families: Groups<Family<'_>> = Groups::new();
        for row in &input.rows {
            self.work_row(row)?;
            let labels = row.labels.without(&[BUCKET]);
            let g = families.find(labels, row.drop_name, Family::default);
            let has_floats = row.col.present().any(|(_, c)| matches!(c, Cell::Float(_)));
            let bound = row.labels.value(BUCKET);
            match parse_go_float(bound) {
                Some(bound) if has_floats => families.list[g].2.buckets.push((bound, row)),
                None if has_floats => {
                    self.notes.bad_bucket_label(arg.span, row.labels.metric_name(), bound);
                }
                _ => {}
            }
            if row.col.has_hists() {
                families.list[g].2.native.push(row);
            }
        }
        let mut out = Vec::new();
        let mut buckets = Classic::new();
        for (labels, drop_name, family) in families.list {
            self.work(tl.n)?;
            let metric = labels.metric_name();
            let mut classic = Column::absent(tl.n);
            let mut native: Vec<Column> = family.native.iter().map(|_| Column::absent(tl.n)).collect();
            for i in 0..tl.n {
                let (buckets_here, natives) = (family.buckets.len(), family.native.len());
                self.work(BUCKET_WORK * (1 + buckets_here) + NATIVE_WORK * natives)?;
                buckets.clear();
                buckets.extend(family.buckets.iter().filter_map(|(bound, r)| match r.col.get(i) {
                    Cell::Float(v) => Some((*bound, v)),
                    _ => None,
                }));
                let mut mixed = false;
                for (row, col) in family.native.iter().zip(&mut native) {
                    let Cell::Hist(h) = row.col.get(i) else {
                        continue;
                    };
                    if buckets.is_empty() {
                        col.set_float(i, f(i, Hist::Native(h), metric));
                    } else {
                        mixed = true;
                        self.notes.mixed_classic_native(arg.span, metric);
                    }
                }
                if !mixed && !buckets.is_empty() {
                    classic.set_float(i, f(i, Hist::Classic(&mut buckets), metric));
                }
            }
            for (row, col) in family.native.iter().zip(native) {
                out.push(Row { labels: row.labels.clone(), drop_name: row.drop_name, col });
            }
            out.push(Row { labels: labels.clone(), drop_name, col: classic });
        }
        out.retain(|r| !r.col.is_empty());
        Ok(out)
    }
}
