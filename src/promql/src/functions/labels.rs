//! `label_replace` and `label_join`.

use koios_model::{LabelsBuilder, METRIC_NAME, Regexp};

use crate::api::EvalError;
use crate::engine::{Ctx, Res, Row, Sink, Timeline, merge_rows};
use crate::plan::Call;
use crate::syntax::valid_label_name;

/// Longest value that a function may give to a label, bytes. Without it, doubling a label 40 times would
/// take a terabyte.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// What an expansion may come to before it is known exactly.
const EXPANSION_BYTES_MAX: usize = 16 << 20;
/// Rows between two looks at the control block.
const CHECK_EVERY: usize = 256;

fn too_long(func: &str, label: &str) -> EvalError {
    EvalError::exec(format!(
        "{func}(): value of label {label:?} would be longer than {VALUE_BYTES_MAX} bytes"
    ))
}

impl Ctx<'_> {
    pub(super) fn label_replace_rows(&self, c: &Call, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let text = |i: usize| self.text(&c.args[i]);
        let (dst, replacement, src, pattern) = (text(1), text(2), text(3), text(4));
        let regexp = Regexp::new(pattern).map_err(|_| {
            EvalError::exec(format!("invalid regular expression in label_replace(): {pattern}"))
        })?;
        if !valid_label_name(dst) {
            let message = format!("invalid destination label name in label_replace(): {dst}");
            return Err(EvalError::exec(message));
        }
        let groups = replacement.bytes().filter(|b| *b == b'$').count();
        self.relabelled(c, tl, sink, dst, |row| {
            let value = row.labels.value(src);
            if groups.saturating_mul(value.len()).saturating_add(replacement.len()) > EXPANSION_BYTES_MAX {
                return Err(too_long(c.func.name, dst));
            }
            Ok(regexp.expand(value, replacement))
        })
    }

    pub(super) fn label_join_rows(&self, c: &Call, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let (dst, separator) = (self.text(&c.args[1]), self.text(&c.args[2]));
        let sources: Vec<&str> = c.args[3..].iter().map(|a| self.text(a)).collect();
        if let Some(bad) = sources.iter().find(|s| !valid_label_name(s)) {
            return Err(EvalError::exec(format!("invalid source label name in label_join(): {bad}")));
        }
        if !valid_label_name(dst) {
            return Err(EvalError::exec(format!("invalid destination label name in label_join(): {dst}")));
        }
        self.relabelled(c, tl, sink, dst, |row| {
            let values: Vec<&str> = sources.iter().map(|s| row.labels.value(s)).collect();
            let length = values.iter().map(|v| v.len() + separator.len()).sum::<usize>();
            if length > EXPANSION_BYTES_MAX {
                return Err(too_long(c.func.name, dst));
            }
            Ok(Some(values.join(separator)))
        })
    }

    /// Sets a label on every row. A name that is set anew is no longer to be dropped.
    fn relabelled(
        &self,
        c: &Call,
        tl: &Timeline,
        sink: Sink<'_>,
        name: &str,
        f: impl Fn(&Row) -> Res<Option<String>>,
    ) -> Res<()> {
        let mut collected = self.collect(&c.args[0], tl)?;
        let mut charge = self.budget.charge(0)?;
        for (i, row) in collected.rows.iter_mut().enumerate() {
            if i % CHECK_EVERY == 0 {
                self.control.check()?;
            }
            let Some(value) = f(row)? else {
                continue;
            };
            if value.len() > VALUE_BYTES_MAX {
                return Err(too_long(c.func.name, name));
            }
            charge.add_bytes(value.len() as u64)?;
            let mut builder = LabelsBuilder::from_labels(&row.labels);
            builder.set(name, &value);
            row.labels = builder.build();
            if name == METRIC_NAME {
                row.drop_name = false;
            }
        }
        let rows = std::mem::take(&mut collected.rows);
        merge_rows(rows)?.into_iter().try_for_each(sink)
    }
}
