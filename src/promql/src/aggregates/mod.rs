//! Aggregation operators.
//!
//! Simple aggregations fold each arriving row into the accumulators of its group and forget it; those that
//! rank or pick elements (`topk`, `limitk`, …) collect the rows of their argument.

mod count_values;
mod fold;
mod pick;
mod quantile;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use koios_model::{Labels, METRIC_NAME};

use crate::engine::{Ctx, Res, Row, Sink, Timeline};
use crate::plan::Aggregate;
use crate::syntax::ast::AggOp;

pub(crate) use fold::{add_to_sum, finish_sum};
pub(crate) use quantile::quantile;

/// The labels of the group of a series.
pub(crate) fn group_labels(labels: &Labels, grouping: &[String], without: bool) -> Labels {
    if !without {
        return if grouping.is_empty() { Labels::empty() } else { labels.keep(grouping) };
    }
    Labels::from_sorted(labels.iter().filter(|(n, _)| *n != METRIC_NAME && !grouping.iter().any(|g| g == n)))
}

/// Groups in order of first appearance.
pub(crate) struct Groups<T> {
    index: HashMap<Labels, usize>,
    /// Labels, whether the name is to be dropped, and the state of each group.
    pub list: Vec<(Labels, bool, T)>,
}

impl<T> Groups<T> {
    pub fn new() -> Self {
        Self { index: HashMap::new(), list: Vec::new() }
    }

    /// The group of a row, made by `new` when it is the first one. One row that drops its name makes the
    /// group drop it.
    pub fn find(&mut self, labels: Labels, drop_name: bool, new: impl FnOnce() -> T) -> usize {
        let i = match self.index.entry(labels) {
            Entry::Occupied(o) => *o.get(),
            Entry::Vacant(v) => {
                self.list.push((v.key().clone(), false, new()));
                *v.insert(self.list.len() - 1)
            }
        };
        self.list[i].1 |= drop_name;
        i
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
        let mut charge = self.budget.charge(0)?;
        self.rows(&a.expr, tl, &mut |row: Row| {
            let before = groups.list.len();
            let labels = group_labels(&row.labels, &a.grouping, a.without);
            let g = groups.find(labels, row.drop_name, || fold::Fold::new(a.op, tl.n));
            if groups.list.len() > before {
                charge.add(3 * tl.n as u64)?;
            }
            groups.list[g].2.add(&row, &self.notes, a.expr.span);
            Ok(())
        })?;
        for (labels, drop_name, fold) in groups.list {
            let col = fold.finish(&self.notes, a.expr.span);
            if !col.is_empty() {
                sink(Row { labels, drop_name, col })?;
            }
        }
        Ok(())
    }
}
