//! Aggregation operators.
//!
//! Simple aggregations fold each arriving row into the accumulators of its group and forget it, and so do `topk`
//! and `bottomk` once there are many; `limitk` and `quantile` collect the rows of their argument.

mod count_values;
mod fold;
mod pick;
mod quantile;
mod rank;

use hashbrown::HashMap;
use koios_model::{Labels, METRIC_NAME};

use crate::engine::{Column, Ctx, Notes, Res, Row, Sink, Timeline};
use crate::plan::Aggregate;
use crate::syntax::ast::{AggOp, Span};

pub(crate) use fold::{add_to_sum, finish_sum};
pub(crate) use quantile::{quantile, quantile_sorted};

/// The labels of the group of a series.
pub(crate) fn group_labels(labels: &Labels, grouping: &[String], without: bool) -> Labels {
    Labels::from_sorted(grouped(labels, grouping, without))
}

fn grouped<'l>(
    labels: &'l Labels,
    grouping: &'l [String],
    without: bool,
) -> impl Iterator<Item = (&'l str, &'l str)> {
    let named = move |n: &str| grouping.iter().any(|g| g == n);
    labels.iter().filter(move |(n, _)| if without { *n != METRIC_NAME && !named(n) } else { named(n) })
}

/// Groups in order of first appearance.
pub(crate) struct Groups<T> {
    index: HashMap<Vec<u8>, usize>,
    /// Scratch for the key of a row, so that finding a known group allocates nothing.
    key: Vec<u8>,
    /// Labels, whether the name is to be dropped, and the state of each group.
    pub list: Vec<(Labels, bool, T)>,
}

impl<T> Groups<T> {
    pub fn new() -> Self {
        Self { index: HashMap::new(), key: Vec::new(), list: Vec::new() }
    }

    /// The group with exactly these labels.
    pub fn find(&mut self, labels: Labels, drop_name: bool, new: impl FnOnce() -> T) -> usize {
        self.find_in(labels.iter(), drop_name, new)
    }

    /// The group of a row by an aggregation.
    pub fn find_group(&mut self, row: &Row, a: &Aggregate, new: impl FnOnce() -> T) -> usize {
        self.find_in(grouped(&row.labels, &a.grouping, a.without), row.drop_name, new)
    }

    /// One row that drops its name makes the group drop it.
    fn find_in<'l>(
        &mut self,
        pairs: impl Iterator<Item = (&'l str, &'l str)>,
        drop_name: bool,
        new: impl FnOnce() -> T,
    ) -> usize {
        self.key.clear();
        for (n, v) in pairs {
            for part in [n, v] {
                self.key.extend_from_slice(part.as_bytes());
                self.key.push(0xff);
            }
        }
        let i = match self.index.get(&self.key) {
            Some(i) => *i,
            None => {
                self.list.push((labels_of_key(&self.key), false, new()));
                self.index.insert(self.key.clone(), self.list.len() - 1);
                self.list.len() - 1
            }
        };
        self.list[i].1 |= drop_name;
        i
    }
}

/// The labels that a key was made of.
fn labels_of_key(key: &[u8]) -> Labels {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let mut parts = key.split(|b| *b == 0xff).map(text);
    let mut pairs = Vec::new();
    while let (Some(n), Some(v)) = (parts.next(), parts.next()) {
        pairs.push((n, v));
    }
    Labels::from_pairs(pairs)
}

/// Groups over some of the series: what can be told of `count`, `group`, `min` and `max` before all are seen.
pub(crate) struct PartialGroups<'a> {
    by: &'a Aggregate,
    groups: Groups<fold::Fold>,
    /// Labels of the first series of each group.
    first: Vec<Labels>,
}

impl<'a> PartialGroups<'a> {
    pub fn new(by: &'a Aggregate) -> Self {
        Self { by, groups: Groups::new(), first: Vec::new() }
    }

    /// Adds the row of a series; samples and bytes that a new group takes.
    pub fn add(&mut self, key: Labels, row: &Row, notes: &Notes, span: Span) -> Option<(u64, usize)> {
        let steps = row.col.len();
        let g = self.groups.find_group(row, self.by, || fold::Fold::new(self.by.op, steps));
        self.groups.list[g].2.add(row, notes, span);
        (g == self.first.len()).then(|| {
            let held = (2 * steps as u64, 2 * row.labels.heap_bytes() + key.heap_bytes());
            self.first.push(key);
            held
        })
    }

    /// Gives key and row of every group; false when the order of the series of other parts could matter.
    pub fn finish(self, notes: &Notes, span: Span, mut give: impl FnMut(Labels, Row)) -> bool {
        let order_matters =
            |v: &f64| Column::is_present(*v) && (v.is_nan() || (*v == 0.0 && v.is_sign_negative()));
        let mut exact = true;
        for ((labels, drop_name, fold), key) in self.groups.list.into_iter().zip(self.first) {
            let col = fold.finish(notes, span);
            exact &= !col.has_hists() && !col.raw().iter().any(order_matters);
            give(key, Row { labels, drop_name, col });
        }
        exact
    }
}

impl Ctx<'_> {
    /// Rows of an aggregation.
    pub fn aggregate_rows(&self, a: &Aggregate, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        match a.op {
            AggOp::Topk | AggOp::Bottomk | AggOp::Limitk | AggOp::LimitRatio => self.pick_rows(a, tl, sink),
            AggOp::CountValues => self.count_values_rows(a, tl, sink),
            AggOp::Quantile => self.quantile_rows(a, tl, sink),
            _ => self.fold_rows(a, tl, sink),
        }
    }

    fn fold_rows(&self, a: &Aggregate, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let mut groups: Groups<fold::Fold> = Groups::new();
        let partial = self.given(&a.expr).is_some_and(|g| g.partial);
        let mut charge = self.budget.charge(0)?;
        self.rows(&a.expr, tl, &mut |row: Row| {
            self.work_row(&row)?;
            let before = groups.list.len();
            let g = groups.find_group(&row, a, || fold::Fold::new(a.op, tl.n));
            if groups.list.len() > before {
                charge.add(3 * tl.n as u64)?;
                charge.add_bytes(2 * row.labels.heap_bytes() as u64)?;
            }
            match partial {
                true => groups.list[g].2.add_partial(&row),
                false => groups.list[g].2.add(&row, &self.notes, a.expr.span),
            }
            Ok(())
        })?;
        for (labels, drop_name, fold) in groups.list {
            self.work(labels.heap_bytes() + tl.n)?;
            let col = fold.finish(&self.notes, a.expr.span);
            if !col.is_empty() {
                sink(Row { labels, drop_name, col })?;
            }
        }
        Ok(())
    }
}
