//! `timestamp` and `start_timestamp`: times of the samples that a selector sees.

use crate::engine::{Column, Ctx, Res, Row, Sink, Timeline};
use crate::plan::{Call, NodeKind};
use crate::syntax::ast::Edges;

impl Ctx<'_> {
    /// On a plain selector the time of the sample, else that of the evaluation (and no start time).
    pub(super) fn timestamp_rows(&self, c: &Call, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let start = c.func.name == "start_timestamp";
        let arg = &c.args[0];
        let seconds = |ms: i64| ms as f64 / 1000.0;
        let select = match &arg.unwrap_parens().kind {
            NodeKind::Select(s) if s.edges == Edges::Plain => s,
            _ => {
                return self.mapped(arg, tl, true, sink, |i, cell| {
                    let t = if start { 0 } else { tl.at(i) };
                    cell.is_some().then(|| seconds(t).into())
                });
            }
        };
        let mut rows = Vec::new();
        let unique = self.stays_unique(arg);
        self.each_series(select, |labels, columns| {
            let mut col = Column::absent(tl.n);
            self.each_instant(select, tl, columns, |i, at| {
                let t = if start { columns.start(at) } else { columns.times[at] };
                col.set_float(i, seconds(t));
            })?;
            if col.is_empty() {
                return Ok(());
            }
            let row = self.unnamed(Row { labels: labels.clone(), drop_name: false, col });
            if unique {
                return sink(row);
            }
            rows.push(row);
            Ok(())
        })?;
        self.emit_merged(rows, sink)
    }
}
