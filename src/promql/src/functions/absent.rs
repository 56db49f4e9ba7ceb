//! `absent` and `absent_over_time`.

use koios_model::{Labels, LabelsBuilder, METRIC_NAME, MatchType};

use crate::engine::{Column, Ctx, Res, Row, Sink, Timeline};
use crate::plan::{MatrixArg, Node, NodeKind};

/// What can be said about a series that is not there: equality matchers on labels that have no other one.
fn labels_of(node: &Node) -> Labels {
    let matchers = match &node.unwrap_parens().kind {
        NodeKind::Select(s) | NodeKind::Matrix(MatrixArg::Select { select: s, .. }) => &s.matchers,
        _ => return Labels::empty(),
    };
    let mut builder = LabelsBuilder::new();
    let mut seen: Vec<&str> = Vec::new();
    for m in matchers.iter().filter(|m| m.name != METRIC_NAME) {
        if m.kind == MatchType::Equal && !seen.contains(&m.name.as_str()) {
            builder.set(&m.name, &m.value);
            seen.push(&m.name);
        } else {
            builder.del(&m.name);
        }
    }
    builder.build()
}

impl Ctx<'_> {
    pub(super) fn absent_rows(&self, arg: &Node, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let mut present = vec![false; tl.n];
        self.rows(arg, tl, &mut |row| {
            self.work_row(&row)?;
            for (i, _) in row.col.present() {
                present[i] = true;
            }
            Ok(())
        })?;
        emit(arg, &present, sink)
    }

    pub(super) fn absent_over_time_rows(&self, arg: &Node, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        let mut present = vec![false; tl.n];
        self.each_range(arg, tl, |series, frame| {
            self.each_window(series, tl, frame, |i, _| {
                present[i] = true;
                Ok(())
            })
        })?;
        emit(arg, &present, sink)
    }
}

fn emit(arg: &Node, present: &[bool], sink: Sink<'_>) -> Res<()> {
    let mut col = Column::absent(present.len());
    for (i, _) in present.iter().enumerate().filter(|(_, p)| !**p) {
        col.set_float(i, 1.0);
    }
    if col.is_empty() {
        return Ok(());
    }
    sink(Row { labels: labels_of(arg), drop_name: false, col })
}
