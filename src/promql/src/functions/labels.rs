//! `label_replace` and `label_join`.

use koios_model::{LabelsBuilder, METRIC_NAME, Regexp};

use crate::api::EvalError;
use crate::engine::{Ctx, Res, Row, Sink, Timeline, merge_rows};
use crate::plan::Call;
use crate::syntax::valid_label_name;

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
        self.relabelled(c, tl, sink, |row| {
            let value = regexp.expand(row.labels.value(src), replacement)?;
            Some((dst, value))
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
        self.relabelled(c, tl, sink, |row| {
            let values: Vec<&str> = sources.iter().map(|s| row.labels.value(s)).collect();
            Some((dst, values.join(separator)))
        })
    }

    /// Sets a label on every row. A name that is set anew is no longer to be dropped.
    fn relabelled<'t>(
        &self,
        c: &Call,
        tl: &Timeline,
        sink: Sink<'_>,
        f: impl Fn(&Row) -> Option<(&'t str, String)>,
    ) -> Res<()> {
        let mut collected = self.collect(&c.args[0], tl)?;
        for row in &mut collected.rows {
            let Some((name, value)) = f(row) else {
                continue;
            };
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
