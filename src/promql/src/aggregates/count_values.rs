//! `count_values`: how many elements have the same value.

use hashbrown::HashMap;
use koios_model::{Labels, LabelsBuilder};

use crate::api::EvalError;
use crate::engine::{Cell, Column, Ctx, Res, Row, Sink, Timeline};
use crate::plan::Aggregate;

use super::group_labels;

/// Units of work of writing one value as text, and of building labels on one byte.
const VALUE_WORK: usize = 256;
const BUILD_WORK: usize = 4;

impl Ctx<'_> {
    pub(super) fn count_values_rows(&self, a: &Aggregate, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let label = a.param.as_ref().map_or("", |p| self.text(p));
        if !crate::syntax::valid_label_name(label) {
            return Err(EvalError::exec(format!("invalid label name {}", crate::syntax::quote(label))));
        }
        let mut grouping = a.grouping.clone();
        if !a.without {
            grouping.push(label.to_owned());
        }
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut out: Vec<Row> = Vec::new();
        let mut counts: Vec<Vec<f64>> = Vec::new();
        let mut charge = self.budget.charge(0)?;
        self.rows(&a.expr, tl, &mut |row| {
            for (i, c) in row.col.present() {
                let text = match c {
                    Cell::Float(v) => koios_model::format::float_f(v),
                    Cell::Hist(h) => h.to_string(),
                    Cell::None => continue,
                };
                self.work(VALUE_WORK + BUILD_WORK * row.labels.heap_bytes())?;
                let mut builder = LabelsBuilder::from_labels(&row.labels);
                builder.set(label, &text);
                let labels = group_labels(&builder.build(), &grouping, a.without);
                let known = index.get(&labels).copied();
                let at = match known {
                    Some(at) => at,
                    None => {
                        self.work(2 * tl.n)?;
                        charge.add(2 * tl.n as u64)?;
                        charge.add_bytes(2 * labels.heap_bytes() as u64)?;
                        index.insert(labels.clone(), out.len());
                        out.push(Row { labels, drop_name: false, col: Column::absent(tl.n) });
                        counts.push(vec![0.0; tl.n]);
                        out.len() - 1
                    }
                };
                out[at].drop_name |= row.drop_name;
                counts[at][i] += 1.0;
            }
            Ok(())
        })?;
        for (row, counts) in out.iter_mut().zip(counts) {
            self.work_row(row)?;
            for (i, n) in counts.into_iter().enumerate().filter(|(_, n)| *n > 0.0) {
                row.col.set_float(i, n);
            }
        }
        self.emit_merged(out, sink)
    }
}
