//! Aggregations that hand on some of the elements: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::cmp::Ordering;

use koios_model::Labels;
use koios_model::format::float_g;
use xxhash_rust::xxh64::xxh64;

use crate::api::EvalError;
use crate::engine::{Cell, Column, Ctx, Res, Row, Sink, Timeline};
use crate::plan::Aggregate;
use crate::syntax::ast::AggOp;

use super::Groups;

/// Units of work of ranking one element.
const RANK_WORK: usize = 16;

impl Ctx<'_> {
    pub(super) fn pick_rows(&self, a: &Aggregate, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let Some(param) = &a.param else {
            return Ok(());
        };
        let params = self.scalar(param, tl)?;
        if a.op == AggOp::LimitRatio {
            return self.ratio_rows(a, &params, tl, sink);
        }
        let counts = counts(&params)?;
        if counts.iter().all(|k| *k < 1) {
            return Ok(());
        }
        let collected = self.collect(&a.expr, tl)?;
        let rows = &collected.rows;
        let ranked = a.op != AggOp::Limitk;
        if ranked && rows.iter().any(|r| r.col.has_hists()) {
            self.notes.histogram_ignored(a.expr.span, a.op.as_str());
        }
        let mut groups: Groups<Vec<usize>> = Groups::new();
        for (i, row) in rows.iter().enumerate() {
            self.work_row(row)?;
            let g = groups.find_group(row, a, Vec::new);
            groups.list[g].2.push(i);
        }
        let mut picked: Vec<Column> = rows.iter().map(|_| Column::absent(tl.n)).collect();
        let mut order = Vec::new();
        for (_, _, members) in &groups.list {
            for (step, k) in counts.iter().enumerate() {
                self.work(RANK_WORK * (1 + members.len()))?;
                let chosen = choose(a.op, rows, members, step, usize::try_from(*k).unwrap_or(0));
                for &i in &chosen {
                    if let Some(p) = rows[i].col.get(step).to_point() {
                        picked[i].set(step, p);
                    }
                }
                if tl.n == 1 {
                    order.extend(chosen);
                }
            }
        }
        if tl.n > 1 {
            order = (0..rows.len()).collect();
        }
        for i in order {
            let col = std::mem::replace(&mut picked[i], Column::absent(0));
            if !col.is_empty() {
                sink(Row { labels: rows[i].labels.clone(), drop_name: rows[i].drop_name, col })?;
            }
        }
        Ok(())
    }

    fn ratio_rows(&self, a: &Aggregate, params: &[f64], tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        if params.iter().any(|r| r.is_nan()) {
            return Err(EvalError::exec("Ratio value is NaN"));
        }
        let span = a.param.as_ref().map_or(a.expr.span, |p| p.span);
        let mut ratios = params.to_vec();
        for r in &mut ratios {
            let capped = r.clamp(-1.0, 1.0);
            if capped != *r {
                self.notes.invalid_ratio(span, *r, capped);
                *r = capped;
            }
        }
        if ratios.iter().all(|r| *r == 0.0) {
            return Ok(());
        }
        self.rows(&a.expr, tl, &mut |mut row| {
            self.work_row(&row)?;
            let offset = go_labels_hash(&row.labels) as f64 / u64::MAX as f64;
            row.col = row.col.map(|i, c| {
                let r = ratios[i];
                let keep = if r >= 0.0 { offset < r } else { offset >= 1.0 + r };
                if keep { c.to_point() } else { None }
            });
            if row.col.is_empty() { Ok(()) } else { sink(row) }
        })
    }
}

/// The parameter as whole numbers.
fn counts(params: &[f64]) -> Res<Vec<i64>> {
    if params.iter().any(|v| v.is_nan()) {
        return Err(EvalError::exec("Parameter value is NaN"));
    }
    let limit = i64::MAX as f64;
    for v in params {
        if *v >= limit {
            return Err(EvalError::exec(format!("Scalar value {} overflows int64", float_g(*v))));
        }
        if *v <= -limit - 1.0 {
            return Err(EvalError::exec(format!("Scalar value {} underflows int64", float_g(*v))));
        }
    }
    Ok(params.iter().map(|v| *v as i64).collect())
}

/// The members to keep at a step, best first.
fn choose(op: AggOp, rows: &[Row], members: &[usize], step: usize, k: usize) -> Vec<usize> {
    if op == AggOp::Limitk {
        return members.iter().copied().filter(|&i| rows[i].col.get(step).is_some()).take(k).collect();
    }
    let mut values: Vec<(f64, usize)> = members
        .iter()
        .filter_map(|&i| match rows[i].col.get(step) {
            Cell::Float(v) => Some((v, i)),
            _ => None,
        })
        .collect();
    let rank = |a: &(f64, usize), b: &(f64, usize)| match (a.0.is_nan(), b.0.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) if op == AggOp::Topk => b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal),
        (false, false) => a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal),
    };
    let full = |a: &(f64, usize), b: &(f64, usize)| rank(a, b).then(a.1.cmp(&b.1));
    if k == 0 {
        return Vec::new();
    }
    if k < values.len() {
        values.select_nth_unstable_by(k - 1, full);
        values.truncate(k);
    }
    values.sort_by(full);
    values.into_iter().map(|(_, i)| i).collect()
}

/// The hash that decides about `limit_ratio`: xxHash64 over length-prefixed names and values, the memory
/// layout of label sets in Prometheus, so that both pick the same series.
fn go_labels_hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::with_capacity(labels.heap_bytes());
    for part in labels.iter().flat_map(|(n, v)| [n, v]) {
        match u8::try_from(part.len()) {
            Ok(len) if len < 255 => bytes.push(len),
            _ => {
                bytes.push(255);
                bytes.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
            }
        }
        bytes.extend_from_slice(part.as_bytes());
    }
    xxh64(&bytes, 0)
}
