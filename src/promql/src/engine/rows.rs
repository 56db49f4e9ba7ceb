//! The row stream: which operator makes the rows of a node, and how metric names leave them.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use koios_model::{Labels, METRIC_NAME, MatchType};

use crate::api::EvalError;
use crate::plan::{MatrixArg, Node, NodeKind};

use super::{Cell, Ctx, Point, Res, Row, Sink, Timeline};

/// Units of work that a function of one element counts for.
const MAP_WORK: usize = 16;

/// Labels that describe the metric itself.
pub(crate) const METADATA: [&str; 3] = [METRIC_NAME, "__type__", "__unit__"];

/// Without the metric name and what describes it.
pub(crate) fn drop_metadata(labels: &Labels) -> Labels {
    if METADATA.iter().any(|n| labels.get(n).is_some()) { labels.without(&METADATA) } else { labels.clone() }
}

pub(crate) fn same_labelset() -> EvalError {
    EvalError::exec("vector cannot contain metrics with the same labelset")
}

impl Ctx<'_> {
    /// Joins rows with equal labels whose values do not meet at any step.
    ///
    /// # Errors
    /// `Execution` when they meet.
    pub fn merge_rows(&self, rows: Vec<Row>) -> Res<Vec<Row>> {
        let mut seen: HashMap<Labels, usize> = HashMap::with_capacity(rows.len());
        let mut out: Vec<Row> = Vec::with_capacity(rows.len());
        for row in rows {
            self.work_row(&row)?;
            match seen.entry(row.labels.clone()) {
                Entry::Vacant(v) => {
                    v.insert(out.len());
                    out.push(row);
                }
                Entry::Occupied(o) => {
                    if !out[*o.get()].col.merge(&row.col) {
                        return Err(same_labelset());
                    }
                }
            }
        }
        Ok(out)
    }

    /// As `merge_rows`, straight into `sink`.
    pub fn emit_merged(&self, rows: Vec<Row>, sink: Sink<'_>) -> Res<()> {
        self.merge_rows(rows)?.into_iter().try_for_each(sink)
    }

    /// Streams the rows of a vector expression into `sink`.
    pub fn rows(&self, node: &Node, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        if node.invariant && tl.n > 1 {
            return self.raw_rows(node, &tl.first(), &mut |mut row| {
                row.col = row.col.repeat(tl.n);
                sink(row)
            });
        }
        self.raw_rows(node, tl, sink)
    }

    pub(super) fn raw_rows(&self, node: &Node, tl: &Timeline, sink: Sink<'_>) -> Res<()> {
        self.control.check()?;
        if let Some(given) = self.given(node) {
            return self.given_rows(given, sink);
        }
        if self.shared_rows(node, tl, sink)? {
            return Ok(());
        }
        match &node.kind {
            NodeKind::Select(s) => self.instant_rows(s, tl, sink),
            NodeKind::Paren(inner) => self.rows(inner, tl, sink),
            NodeKind::Unary(false, inner) => self.rows(inner, tl, sink),
            NodeKind::Unary(true, inner) => self.mapped(inner, tl, true, sink, |_, c| negate(c)),
            NodeKind::Binary(b) => self.binary_rows(b, node.span, tl, sink),
            NodeKind::Call(c) => self.call_rows(c, node, tl, sink),
            NodeKind::Aggregate(a) => self.aggregate_rows(a, tl, sink),
            NodeKind::Number(_) | NodeKind::Text(_) | NodeKind::Matrix(_) => {
                Err(EvalError::exec("expression is not an instant vector"))
            }
        }
    }

    /// Every value of `node` through `f`; with `drop` the metric name goes.
    pub fn mapped(
        &self,
        node: &Node,
        tl: &Timeline,
        drop: bool,
        sink: Sink<'_>,
        mut f: impl FnMut(usize, Cell<'_>) -> Option<Point>,
    ) -> Res<()> {
        let mut map = |mut row: Row| -> Res<Row> {
            self.work(MAP_WORK * row.col.len())?;
            row.col = row.col.map(&mut f);
            Ok(if drop { self.unnamed(row) } else { row })
        };
        if !drop || self.stays_unique(node) {
            return self.rows(node, tl, &mut |row| {
                let row = map(row)?;
                if row.col.is_empty() { Ok(()) } else { sink(row) }
            });
        }
        let all = self.collect(node, tl)?;
        let mut rows = all.rows.into_iter().map(map).collect::<Res<Vec<Row>>>()?;
        rows.retain(|r| !r.col.is_empty());
        self.emit_merged(rows, sink)
    }

    /// Removes the metric name, or marks it for removal.
    pub fn unnamed(&self, mut row: Row) -> Row {
        if self.delayed() {
            row.drop_name = true;
        } else {
            row.labels = drop_metadata(&row.labels);
        }
        row
    }

    /// Whether rows of `node` are still told apart when they lose their names.
    pub fn stays_unique(&self, node: &Node) -> bool {
        if self.delayed() {
            return true;
        }
        let select = match &node.unwrap_parens().kind {
            NodeKind::Select(s) | NodeKind::Matrix(MatrixArg::Select { select: s, .. }) => s,
            _ => return false,
        };
        !self.plan.params.options.type_and_unit_labels
            && select.matchers.iter().any(|m| m.name == METRIC_NAME && m.kind == MatchType::Equal)
    }
}

fn negate(c: Cell<'_>) -> Option<Point> {
    match c {
        Cell::None => None,
        Cell::Float(v) => Some((-v).into()),
        Cell::Hist(h) => {
            let mut h = (**h).clone();
            h.mul(-1.0);
            Some(h.into())
        }
    }
}
