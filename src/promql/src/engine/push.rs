//! Parts of a plan that are evaluated where the series are.
//!
//! Owns which parts those are (`pushable`), their evaluation over some of the series (`run_part`), and how their rows
//! take the place of the part (`Given`). Only parts whose rows come from one series each are given away, and the rows come
//! back with the labels of their series, so whoever consumes them sees the rows, and the order, that it would see without.
//! Directly below `count`, `group`, `min` and `max` the rows of a group travel as one: those do not depend on how their
//! elements are divided, but for which of equal zeros and of NaNs is kept; where there is one of those, as where there
//! are histograms or warnings, nothing is given away.

use std::sync::Arc;

use koios_model::Labels;

use crate::aggregates::PartialGroups;
use crate::api::{Budget, Control, EvalError, Pushable, PushedRow, PushedRows, SeriesSet};
use crate::plan::{Aggregate, MatrixArg, Node, NodeKind, Plan};
use crate::syntax::ast::{AggOp, ValueType};

use super::shards::{LEVELS, Part};
use super::{Column, Ctx, Inputs, Res, Row, Sets, Timeline, sorted_inputs};

/// Rows of a part that others evaluated.
pub(crate) struct Given {
    node: usize,
    pub partial: bool,
    rows: Vec<Row>,
    infos: Vec<String>,
    read: u64,
    queryable: u64,
}

/// A part of a plan that may be given away.
struct Spot<'p> {
    what: Pushable,
    node: &'p Node,
    around: Option<&'p Aggregate>,
}

/// The parts of a plan that may be evaluated elsewhere.
pub(crate) fn pushable(plan: &Plan) -> Vec<Pushable> {
    spots(plan).into_iter().map(|s| s.what).collect()
}

fn spots(plan: &Plan) -> Vec<Spot<'_>> {
    let control = Control::new();
    let ctx = Ctx::new(plan, Arc::default(), &control, Budget::new(&plan.params.limits));
    let mut spots = Vec::new();
    ctx.find_spots(&plan.root, true, None, &mut spots);
    spots.retain(|s| uses(&plan.root, s.what.input) == 1);
    spots
}

/// How many selectors a select answers.
fn uses(node: &Node, input: usize) -> usize {
    let of = |nodes: &mut dyn Iterator<Item = &Node>| nodes.map(|n| uses(n, input)).sum();
    match &node.kind {
        NodeKind::Number(_) | NodeKind::Text(_) => 0,
        NodeKind::Select(s) | NodeKind::Matrix(MatrixArg::Select { select: s, .. }) => {
            usize::from(s.input == input)
        }
        NodeKind::Matrix(MatrixArg::Subquery(s)) => uses(&s.expr, input),
        NodeKind::Paren(e) | NodeKind::Unary(_, e) => uses(e, input),
        NodeKind::Binary(b) => of(&mut [&b.lhs, &b.rhs].into_iter()),
        NodeKind::Call(c) => of(&mut c.args.iter()),
        NodeKind::Aggregate(a) => of(&mut std::iter::once(&a.expr).chain(a.param.as_ref())),
    }
}

impl Ctx<'_> {
    /// `rows` tells whether whoever is above looks at nothing but the rows of `node`.
    fn find_spots<'p>(
        &self,
        node: &'p Node,
        rows: bool,
        around: Option<&'p Aggregate>,
        spots: &mut Vec<Spot<'p>>,
    ) {
        if node.ty != ValueType::Vector {
            return;
        }
        if rows
            && (!node.invariant || !self.is_range())
            && let Some(input) = self.row_by_row(node, LEVELS)
        {
            let exact =
                |a: &&Aggregate| matches!(a.op, AggOp::Count | AggOp::Group | AggOp::Min | AggOp::Max);
            let around = around.filter(exact);
            let place = (u64::from(node.span.line), u64::from(node.span.col));
            spots.push(Spot { what: Pushable { input, place, partial: around.is_some() }, node, around });
            return;
        }
        match &node.kind {
            NodeKind::Paren(e) | NodeKind::Unary(_, e) => self.find_spots(e, rows, None, spots),
            NodeKind::Binary(b) => {
                [&b.lhs, &b.rhs].into_iter().for_each(|e| self.find_spots(e, true, None, spots))
            }
            NodeKind::Aggregate(a) => self.find_spots(&a.expr, true, Some(a), spots),
            // What a function does with its arguments it may do in its own way.
            NodeKind::Call(c) => c.args.iter().for_each(|e| self.find_spots(e, false, None, spots)),
            _ => {}
        }
    }

    /// The rows of a node that were evaluated elsewhere.
    pub fn given(&self, node: &Node) -> Option<&Given> {
        let at = std::ptr::from_ref(node).addr();
        self.given.iter().find(|g| g.node == at)
    }

    /// Streams rows that were evaluated elsewhere.
    pub(super) fn given_rows(&self, given: &Given, sink: super::Sink<'_>) -> Res<()> {
        self.samples_read.set(self.samples_read.get() + given.read);
        self.samples_queryable.set(self.samples_queryable.get() + given.queryable);
        given.infos.iter().for_each(|text| self.notes.told(text));
        given.rows.iter().try_for_each(|row| {
            self.work_row(row)?;
            sink(row.clone())
        })
    }
}

/// Evaluates a part of a plan over some of its series; `None` when its rows could not stand for it.
pub(crate) fn run_part(
    plan: &Plan,
    what: &Pushable,
    set: Box<dyn SeriesSet>,
    control: &Control,
) -> Res<Option<PushedRows>> {
    crate::stack::with_room(plan.height as usize, || {
        let Some(spot) = spots(plan).into_iter().find(|s| s.what == *what) else { return Ok(None) };
        let mut sets: Sets =
            (0..plan.selects.len()).map(|_| Box::new(Vec::new()) as Box<dyn SeriesSet>).collect();
        sets[what.input] = set;
        let inputs = sorted_inputs(plan, sets, control)?;
        let ctx = Ctx::new(plan, inputs.clone(), control, Budget::new(&plan.params.limits));
        ctx.part_rows(&spot, &inputs)
    })
    .map_err(EvalError::exec)?
}

impl Ctx<'_> {
    fn part_rows(self, spot: &Spot<'_>, inputs: &Inputs) -> Res<Option<PushedRows>> {
        let tl = self.timeline();
        let input = &inputs[spot.what.input];
        let mut charge = self.budget.charge(0)?;
        let mut groups = spot.around.map(PartialGroups::new);
        let (mut rows, mut exact) = (Vec::new(), true);
        let mut reader = input.set.reader(None);
        for i in 0..input.len() {
            let ctx = self.restricted(Part { input: spot.what.input, series: i..i + 1 });
            let mut row = None;
            ctx.raw_rows(spot.node, &tl, &mut |r| {
                row = Some(r);
                Ok(())
            })?;
            self.absorb(ctx.notes, ctx.samples_read.get(), ctx.samples_queryable.get());
            let Some(row) = row else { continue };
            exact &= !row.col.has_hists();
            let key = reader.labels(input.position(i)).map_err(EvalError::Source)?;
            let held = match &mut groups {
                Some(groups) => groups.add(key, &row, &self.notes, spot.node.span),
                None => {
                    let held = (row.col.weight(), key.heap_bytes() + row.labels.heap_bytes());
                    rows.push(pushed(key, row));
                    Some(held)
                }
            };
            if let Some((samples, bytes)) = held {
                charge.add(samples)?;
                charge.add_bytes(bytes as u64)?;
            }
        }
        if let Some(groups) = groups {
            exact &= groups.finish(&self.notes, spot.node.span, |key, row| rows.push(pushed(key, row)));
        }
        let (samples_read, samples_queryable) = (self.samples_read.get(), self.samples_queryable.get());
        let (warnings, infos) = self.notes.finish();
        if !exact || !warnings.is_empty() {
            return Ok(None);
        }
        Ok(Some(PushedRows { rows, infos, samples_read, samples_queryable }))
    }
}

fn pushed(key: Labels, row: Row) -> PushedRow {
    PushedRow { key, labels: row.labels, drop_name: row.drop_name, values: row.col.into_raw() }
}

/// Rows from all who evaluated parts, in the order of their series.
pub(crate) fn given(plan: &Plan, what: &Pushable, parts: Vec<PushedRows>) -> Res<Given> {
    let spot = spots(plan).into_iter().find(|s| s.what == *what);
    let spot = spot.ok_or_else(|| EvalError::exec("rows for a part that the plan does not have"))?;
    let p = &plan.params;
    let steps = Timeline::new(p.start_ms, p.end_ms, p.step_ms).n;
    let node = std::ptr::from_ref(spot.node).addr();
    let (mut all, mut infos, mut read, mut queryable) = (Vec::new(), Vec::new(), 0, 0);
    for part in parts {
        all.extend(part.rows);
        infos.extend(part.infos);
        read += part.samples_read;
        queryable += part.samples_queryable;
    }
    all.sort_by(|a, b| a.key.cmp(&b.key));
    let rows = all.into_iter().map(|r| {
        if r.values.len() != steps {
            return Err(EvalError::exec(format!("a row of {} steps instead of {steps}", r.values.len())));
        }
        Ok(Row { labels: r.labels, drop_name: r.drop_name, col: Column::of_raw(r.values) })
    });
    let rows = rows.collect::<Res<Vec<Row>>>()?;
    Ok(Given { node, partial: spot.what.partial, rows, infos, read, queryable })
}
