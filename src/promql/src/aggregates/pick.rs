//! Aggregations that hand on some of the elements: `limitk`, `limit_ratio`; `topk` and `bottomk` are in `rank`.

use koios_model::Labels;
use koios_model::format::float_g;
use xxhash_rust::xxh64::xxh64;

use crate::api::EvalError;
use crate::engine::{Column, Ctx, Res, Row, Sink, Timeline};
use crate::plan::Aggregate;
use crate::syntax::ast::AggOp;

use super::Groups;

/// Units of work of looking at one element.
const PICK_WORK: usize = 16;

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
        if a.op != AggOp::Limitk {
            let counts: Vec<usize> = counts.iter().map(|k| usize::try_from(*k).unwrap_or(0)).collect();
            return self.ranked_rows(a, &counts, tl, sink);
        }
        let collected = self.collect(&a.expr, tl)?;
        let rows = &collected.rows;
        let mut groups: Groups<Vec<usize>> = Groups::new();
        for (i, row) in rows.iter().enumerate() {
            self.work_row(row)?;
            let g = groups.find_group(row, a, Vec::new);
            groups.list[g].2.push(i);
        }
        let mut picked: Vec<Option<Column>> = rows.iter().map(|_| None).collect();
        let mut order = Vec::new();
        for (_, _, members) in &groups.list {
            for (step, k) in counts.iter().enumerate() {
                self.work(PICK_WORK * (1 + members.len()))?;
                let present = members.iter().filter_map(|&i| Some((i, rows[i].col.get(step).to_point()?)));
                for (i, p) in present.take(usize::try_from(*k).unwrap_or(0)) {
                    picked[i].get_or_insert_with(|| Column::absent(tl.n)).set(step, p);
                    if tl.n == 1 {
                        order.push(i);
                    }
                }
            }
        }
        if tl.n > 1 {
            order = (0..rows.len()).collect();
        }
        for i in order {
            if let Some(col) = picked[i].take() {
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
