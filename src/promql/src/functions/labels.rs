//! `label_replace` and `label_join`.

use koios_model::{LabelsBuilder, METRIC_NAME, Regexp};

use crate::api::EvalError;
use crate::engine::{Ctx, Res, Row, Sink, Timeline};
use crate::plan::Call;
use crate::syntax::valid_label_name;

/// Longest value that a function may give to a label, and that a regexp is run on, bytes. Without it,
/// doubling a label 40 times would take a terabyte; and one run of a regexp cannot be stopped.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// What an expansion may come to before it is known exactly.
const EXPANSION_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a value times bytes of a regexp's program: what one run of it may take, about 50 ms.
const REGEXP_RUN_MAX: usize = 128 << 20;
/// Units of work of a regexp on one byte, and of building labels on one byte.
const REGEXP_WORK: usize = 64;
const BUILD_WORK: usize = 4;

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
        let program = regexp.program_bytes();
        let groups = replacement.bytes().filter(|b| *b == b'$').count();
        self.relabelled(c, tl, sink, dst, |row| {
            let value = row.labels.value(src);
            if value.len() > VALUE_BYTES_MAX {
                return Err(too_long(c.func.name, src));
            }
            if value.len().saturating_mul(program) > REGEXP_RUN_MAX {
                return Err(EvalError::exec(format!(
                    "regular expression in label_replace() is too complex for a label value of {} bytes",
                    value.len()
                )));
            }
            self.work(REGEXP_WORK * value.len())?;
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
        for row in &mut collected.rows {
            self.work(BUILD_WORK * row.labels.heap_bytes())?;
            let Some(value) = f(row)? else {
                continue;
            };
            if value.len() > VALUE_BYTES_MAX {
                return Err(too_long(c.func.name, name));
            }
            self.work(BUILD_WORK * value.len())?;
            charge.add_bytes(value.len() as u64)?;
            let mut builder = LabelsBuilder::from_labels(&row.labels);
            builder.set(name, &value);
            row.labels = builder.build();
            if name == METRIC_NAME {
                row.drop_name = false;
            }
        }
        let rows = std::mem::take(&mut collected.rows);
        self.emit_merged(rows, sink)
    }
}
