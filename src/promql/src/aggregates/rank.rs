//! `topk` and `bottomk`: the elements that rank first.
//!
//! Rows are looked at as they come. A group with few rows keeps them; once it has many, it keeps only the best
//! candidates of each step, so that memory does not grow with the number of series. Equal values rank by the
//! order of their series, NaN last.

use std::cmp::Ordering;
use std::sync::Arc;

use hashbrown::HashMap;
use koios_model::Labels;

use crate::api::{Budget, Charge};
use crate::engine::{Cell, Column, Ctx, Res, Row, Sink, Timeline};
use crate::plan::Aggregate;
use crate::syntax::ast::AggOp;

use super::Groups;

/// Units of work of ranking one element.
const RANK_WORK: usize = 8;
/// Rows that a group may keep whole whatever is asked for, and how many times what is asked for.
const FEW: usize = 64;
const FEW_TIMES: usize = 8;

/// A value and the number of its row.
type Ranked = (f64, u32);

fn order(top: bool, a: &Ranked, b: &Ranked) -> Ordering {
    let by_value = match (a.0.is_nan(), b.0.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) if top => b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal),
        (false, false) => a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal),
    };
    by_value.then(a.1.cmp(&b.1))
}

/// The candidates of one step: at least the best `k` seen so far, at most twice as many.
#[derive(Default)]
struct Best {
    kept: Vec<Ranked>,
    /// What does not rank before this is not among the best.
    worst: Option<Ranked>,
}

impl Best {
    #[inline]
    fn add(&mut self, top: bool, k: usize, new: Ranked) {
        if k == 0 || self.worst.is_some_and(|w| order(top, &new, &w) == Ordering::Greater) {
            return;
        }
        self.kept.push(new);
        if self.kept.len() >= 2 * k {
            self.kept.select_nth_unstable_by(k - 1, |a, b| order(top, a, b));
            self.kept.truncate(k);
            self.worst = self.kept.last().copied();
        }
    }
}

/// The state of one group.
struct Ranking {
    few: Vec<(u32, Column)>,
    best: Vec<Best>,
    held: Charge,
}

impl Ranking {
    fn add(&mut self, n: u32, col: Column, top: bool, counts: &[usize], budget: &Arc<Budget>) -> Res<()> {
        let most = counts.iter().copied().max().unwrap_or(0);
        if self.best.is_empty() {
            if self.few.len() < most.saturating_mul(FEW_TIMES).saturating_add(FEW) {
                self.held.add(col.len() as u64)?;
                self.few.push((n, col));
                return Ok(());
            }
            let candidates: u64 = counts.iter().map(|k| 2 * *k as u64 + 3).sum();
            let held = budget.charge(candidates)?;
            self.best = counts.iter().map(|_| Best::default()).collect();
            for (n, col) in std::mem::take(&mut self.few) {
                self.rank(n, &col, top, counts);
            }
            self.held = held;
        }
        self.rank(n, &col, top, counts);
        Ok(())
    }

    fn rank(&mut self, n: u32, col: &Column, top: bool, counts: &[usize]) {
        for ((best, k), (_, v)) in self.best.iter_mut().zip(counts).zip(floats(col)) {
            if let Some(v) = v {
                best.add(top, *k, (v, n));
            }
        }
    }

    /// The best of a step, in order.
    fn chosen(&mut self, step: usize, top: bool, k: usize) -> Vec<Ranked> {
        let mut all = match self.best.get_mut(step) {
            Some(best) => std::mem::take(&mut best.kept),
            None => {
                let value = |(n, col): &(u32, Column)| match col.get(step) {
                    Cell::Float(v) => Some((v, *n)),
                    _ => None,
                };
                self.few.iter().filter_map(value).collect()
            }
        };
        if k > 0 && k < all.len() {
            all.select_nth_unstable_by(k - 1, |a, b| order(top, a, b));
        }
        all.truncate(k);
        all.sort_by(|a, b| order(top, a, b));
        all
    }
}

/// The float of every step, if there is one.
fn floats(col: &Column) -> impl Iterator<Item = (usize, Option<f64>)> + '_ {
    (0..col.len()).map(|i| match col.get(i) {
        Cell::Float(v) => (i, Some(v)),
        _ => (i, None),
    })
}

impl Ctx<'_> {
    pub(super) fn ranked_rows(
        &self,
        a: &Aggregate,
        counts: &[usize],
        tl: &Timeline,
        sink: Sink<'_>,
    ) -> Res<()> {
        let top = a.op == AggOp::Topk;
        let mut groups: Groups<Ranking> = Groups::new();
        let mut rows: Vec<(Labels, bool)> = Vec::new();
        let mut charge = self.budget.charge(0)?;
        self.rows(&a.expr, tl, &mut |row| {
            self.work_row(&row)?;
            self.work(RANK_WORK * tl.n)?;
            if row.col.has_hists() {
                self.notes.histogram_ignored(a.expr.span, a.op.as_str());
            }
            charge.add_bytes(row.labels.heap_bytes() as u64)?;
            let held = self.budget.charge(0)?;
            let new = || Ranking { few: Vec::new(), best: Vec::new(), held };
            let g = groups.find_group(&row, a, new);
            groups.list[g].2.add(rows.len() as u32, row.col, top, counts, &self.budget)?;
            rows.push((row.labels, row.drop_name));
            Ok(())
        })?;
        // Most rows are among the best at a few steps only.
        let mut picked: HashMap<u32, Vec<(u32, f64)>> = HashMap::new();
        let mut order = Vec::new();
        for (_, _, ranking) in &mut groups.list {
            for (step, k) in counts.iter().enumerate() {
                self.work(RANK_WORK * (1 + ranking.few.len() + 2 * k))?;
                for (v, n) in ranking.chosen(step, top, *k) {
                    charge.add(1)?;
                    let steps = picked.entry(n).or_default();
                    if steps.is_empty() {
                        order.push(n);
                    }
                    steps.push((step as u32, v));
                }
            }
            (ranking.few, ranking.best) = (Vec::new(), Vec::new());
        }
        // The ranks show only where there is one step.
        if tl.n > 1 {
            order.sort_unstable();
        }
        for n in order {
            let (Some(steps), (labels, drop_name)) = (picked.remove(&n), &rows[n as usize]) else { continue };
            let mut col = Column::absent(tl.n);
            steps.into_iter().for_each(|(step, v)| col.set_float(step as usize, v));
            sink(Row { labels: labels.clone(), drop_name: *drop_name, col })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Limits;

    #[test]
    fn many_rows_rank_as_few_do() {
        let budget = Budget::new(&Limits::default());
        let values = |n: u32| {
            vec![f64::from(n * 7919 % 101), if n.is_multiple_of(7) { f64::NAN } else { f64::from(n % 5) }]
        };
        for (top, k) in [(true, 3), (false, 3), (true, 1), (false, 40), (true, 2000)] {
            let counts = [k, k];
            let held = budget.charge(0).unwrap();
            let mut ranking = Ranking { few: Vec::new(), best: Vec::new(), held };
            for n in 0..1000 {
                ranking.add(n, Column::floats(values(n)), top, &counts, &budget).unwrap();
            }
            assert_eq!(ranking.best.is_empty(), k == 2000);
            for step in 0..2 {
                let mut want: Vec<Ranked> = (0..1000).map(|n| (values(n)[step], n)).collect();
                want.sort_by(|a, b| order(top, a, b));
                want.truncate(k);
                let got = ranking.chosen(step, top, k);
                let rows = |r: &[Ranked]| r.iter().map(|r| r.1).collect::<Vec<_>>();
                assert_eq!(rows(&got), rows(&want), "top {top}, k {k}, step {step}");
            }
        }
    }
}
