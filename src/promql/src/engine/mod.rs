//! Evaluation of a plan.
//!
//! Rows (one series over all steps) flow from selectors through functions into whatever consumes them, one
//! at a time: a rate below a sum never exists as a whole. Operators that need all rows at once collect them
//! against the budget. Pure and single-threaded per plan; the order of inputs does not matter because every
//! select is sorted by labels first.

mod column;
mod finish;
mod notes;
mod order;
mod rows;
mod scalar;
mod select;
mod smooth;
mod timeline;
mod window;
mod work;

use std::cell::Cell as StdCell;
use std::sync::Arc;

use crate::api::{Budget, Charge, Control, EvalError, QueryOutput, QueryStats, SeriesSource, Value};
use crate::plan::{Node, NodeKind, Plan};
use crate::syntax::ast::ValueType;

pub(crate) use column::{Cell, Column, Point, Row};
pub(crate) use notes::{Forced, HistOp, Notes};
pub(crate) use rows::drop_metadata;
pub(crate) use scalar::{go_max, go_min};
pub(crate) use smooth::{interpolate, interpolate_hist};
pub(crate) use timeline::Timeline;
pub(crate) use window::{Samples, Window};
pub(crate) use work::sorted;

pub(crate) type Res<T> = Result<T, EvalError>;
/// Where rows go.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(Row) -> Res<()>;

/// Everything an evaluation shares.
pub(crate) struct Ctx<'a> {
    pub plan: &'a Plan,
    pub inputs: Vec<Vec<Box<dyn SeriesSource>>>,
    pub control: &'a Control,
    pub budget: Arc<Budget>,
    pub notes: Notes,
    pub samples_read: StdCell<u64>,
    pub samples_queryable: StdCell<u64>,
    /// Units of work since the last look at the control block.
    pub worked: StdCell<usize>,
}

/// Rows held together, and their share of the budget.
pub(crate) struct Rows {
    pub rows: Vec<Row>,
    _charge: Charge,
}

/// Runs a plan.
pub(crate) fn run(
    plan: &Plan,
    inputs: Vec<Vec<Box<dyn SeriesSource>>>,
    control: &Control,
) -> Res<QueryOutput> {
    crate::stack::with_room(plan.height as usize, || run_here(plan, inputs, control))
        .map_err(EvalError::exec)?
}

fn run_here(plan: &Plan, mut inputs: Vec<Vec<Box<dyn SeriesSource>>>, control: &Control) -> Res<QueryOutput> {
    if inputs.len() != plan.selects.len() {
        let (want, got) = (plan.selects.len(), inputs.len());
        return Err(EvalError::exec(format!("plan has {want} selects, got series for {got}")));
    }
    let series: u64 = inputs.iter().map(|i| i.len() as u64).sum();
    if series > plan.params.limits.series_max {
        return Err(EvalError::TooManySeries(plan.params.limits.series_max));
    }
    for list in &mut inputs {
        control.check()?;
        *list = order::sort_series(std::mem::take(list), control)?;
    }
    let ctx = Ctx {
        plan,
        inputs,
        control,
        budget: Budget::new(&plan.params.limits),
        notes: Notes::default(),
        samples_read: StdCell::new(0),
        samples_queryable: StdCell::new(0),
        worked: StdCell::new(0),
    };
    let value = ctx.top_level()?;
    let stats = QueryStats {
        samples_read: ctx.samples_read.get(),
        samples_queryable: ctx.samples_queryable.get(),
        samples_peak: ctx.budget.peak(),
        series,
    };
    let (warnings, infos) = ctx.notes.finish();
    Ok(QueryOutput { value, warnings, infos, stats })
}

impl Ctx<'_> {
    fn top_level(&self) -> Res<Value> {
        let p = &self.plan.params;
        let step = if p.is_instant() { 1 } else { p.step_ms };
        let tl = Timeline::new(p.start_ms, p.end_ms, step);
        let root = &self.plan.root;
        match root.ty {
            ValueType::String => Ok(Value::String(p.start_ms, self.text(root).to_owned())),
            ValueType::Scalar => self.scalar_result(root, &tl),
            ValueType::Vector => self.vector_result(root, &tl),
            ValueType::Matrix => self.matrix_result(root, &tl),
        }
    }

    /// The content of a string literal.
    pub fn text<'n>(&self, node: &'n Node) -> &'n str {
        match &node.unwrap_parens().kind {
            NodeKind::Text(s) => s,
            _ => "",
        }
    }

    /// All rows of a vector expression.
    pub fn collect(&self, node: &Node, tl: &Timeline) -> Res<Rows> {
        let mut rows = Vec::new();
        let mut charge = self.budget.charge(0)?;
        self.rows(node, tl, &mut |row| {
            self.work_row(&row)?;
            charge.add(row.col.weight())?;
            charge.add_bytes(row.labels.heap_bytes() as u64)?;
            rows.push(row);
            Ok(())
        })?;
        Ok(Rows { rows, _charge: charge })
    }

    /// Whether metric names stay until the end.
    pub fn delayed(&self) -> bool {
        self.plan.params.options.delayed_name_removal
    }

    /// Whether this is a range query.
    pub fn is_range(&self) -> bool {
        !self.plan.params.is_instant()
    }
}
