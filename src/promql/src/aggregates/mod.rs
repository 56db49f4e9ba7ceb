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

use crate::engine::{Ctx, Res, Row, Sink, Timeline};
use crate::plan::Aggregate;
use crate::syntax::ast::AggOp;

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
        let mut charge = self.budget.charge(0)?;
        self.rows(&a.expr, tl, &mut |row: Row| {
            self.work_row(&row)?;
            let before = groups.list.len();
            let g = groups.find_group(&row, a, || fold::Fold::new(a.op, tl.n));
            if groups.list.len() > before {
                charge.add(3 * tl.n as u64)?;
                charge.add_bytes(2 * row.labels.heap_bytes() as u64)?;
            }
            groups.list[g].2.add(&row, &self.notes, a.expr.span);
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
