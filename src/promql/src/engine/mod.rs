//! Evaluation of a plan.
//!
//! Rows (one series over all steps) flow from selectors through functions into whatever consumes them, one
//! at a time: a rate below a sum never exists as a whole. Operators that need all rows at once collect them
//! against the budget. The order of inputs does not matter because every select is sorted by labels first, and
//! neither does the number of threads, see `shards`.

mod column;
mod finish;
mod notes;
mod order;
mod push;
mod rows;
mod scalar;
mod select;
mod shards;
mod smooth;
mod timeline;
mod window;
mod work;

use std::cell::Cell as StdCell;
use std::sync::Arc;

use crate::api::{Budget, Charge, Control, EvalError, Helpers, QueryOutput, QueryStats, SeriesSet, Value};
use crate::plan::{Node, NodeKind, Plan};
use crate::syntax::ast::ValueType;
use order::Input;
use shards::{Part, Shared};

pub(crate) use column::{Cell, Column, Point, Row};
pub use notes::bare as bare_notes;
pub(crate) use notes::{Forced, HistOp, Notes};
pub(crate) use push::{Given, given, pushable, run_part};
pub(crate) use rows::{METADATA, drop_metadata};
pub(crate) use scalar::{go_max, go_min};
pub(crate) use smooth::{interpolate, interpolate_hist};
pub(crate) use timeline::Timeline;
pub(crate) use window::{Frame, RangeSeries, Samples, Slide, Window};
pub(crate) use work::sorted;

pub(crate) type Res<T> = Result<T, EvalError>;
/// Where rows go.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(Row) -> Res<()>;

/// Everything an evaluation shares.
pub(crate) struct Ctx<'a> {
    pub plan: &'a Plan,
    pub inputs: Arc<Inputs>,
    pub control: &'a Control,
    pub budget: Arc<Budget>,
    pub notes: Notes,
    pub samples_read: StdCell<u64>,
    pub samples_queryable: StdCell<u64>,
    /// Units of work since the last look at the control block.
    pub worked: StdCell<usize>,
    /// The only series of one select that are to be read.
    pub part: Option<Part>,
    /// What other threads need to help.
    pub shared: Option<Arc<Shared>>,
    /// Rows of parts that were evaluated elsewhere.
    pub given: Vec<Given>,
}

/// Rows held together, and their share of the budget.
pub(crate) struct Rows {
    pub rows: Vec<Row>,
    _charge: Charge,
}

/// Series of all selects.
pub(crate) type Inputs = Vec<Input>;

/// Series of all selects as the caller gives them.
pub(crate) type Sets = Vec<Box<dyn SeriesSet>>;

/// Runs a plan on this thread.
pub(crate) fn run(plan: &Plan, inputs: Sets, control: &Control) -> Res<QueryOutput> {
    crate::stack::with_room(plan.height as usize, || {
        let inputs = sorted_inputs(plan, inputs, control)?;
        Ctx::new(plan, inputs, control, Budget::new(&plan.params.limits)).output()
    })
    .map_err(EvalError::exec)?
}

/// Runs a plan on this thread and on what others lend.
pub(crate) fn run_helped(
    plan: &Arc<Plan>,
    inputs: Sets,
    given: Vec<Given>,
    control: &Control,
    helpers: Arc<dyn Helpers>,
) -> Res<QueryOutput> {
    crate::stack::with_room(plan.height as usize, || {
        let inputs = sorted_inputs(plan, inputs, control)?;
        let budget = Budget::new(&plan.params.limits);
        let mut ctx = Ctx::new(plan, inputs.clone(), control, budget.clone());
        ctx.given = given;
        let control = control.clone();
        ctx.shared = Some(Arc::new(Shared { plan: plan.clone(), inputs, control, budget, helpers }));
        ctx.output()
    })
    .map_err(EvalError::exec)?
}

fn sorted_inputs(plan: &Plan, inputs: Sets, control: &Control) -> Res<Arc<Inputs>> {
    if inputs.len() != plan.selects.len() {
        let (want, got) = (plan.selects.len(), inputs.len());
        return Err(EvalError::exec(format!("plan has {want} selects, got series for {got}")));
    }
    let series: u64 = inputs.iter().map(|i| i.len() as u64).sum();
    if series > plan.params.limits.series_max {
        return Err(EvalError::TooManySeries(plan.params.limits.series_max));
    }
    let sorted = inputs.into_iter().map(|set| {
        control.check()?;
        Input::new(set, control)
    });
    Ok(Arc::new(sorted.collect::<Res<Inputs>>()?))
}

impl<'a> Ctx<'a> {
    /// Nothing evaluated yet; no help.
    pub fn new(plan: &'a Plan, inputs: Arc<Inputs>, control: &'a Control, budget: Arc<Budget>) -> Self {
        Self {
            plan,
            inputs,
            control,
            budget,
            notes: Notes::default(),
            samples_read: StdCell::new(0),
            samples_queryable: StdCell::new(0),
            worked: StdCell::new(0),
            part: None,
            shared: None,
            given: Vec::new(),
        }
    }

    fn output(self) -> Res<QueryOutput> {
        let value = self.top_level()?;
        let stats = QueryStats {
            samples_read: self.samples_read.get(),
            samples_queryable: self.samples_queryable.get(),
            samples_peak: self.budget.peak(),
            series: self.inputs.iter().map(|i| i.len() as u64).sum(),
        };
        let (warnings, infos) = self.notes.finish();
        Ok(QueryOutput { value, warnings, infos, stats })
    }
}

impl Ctx<'_> {
    fn top_level(&self) -> Res<Value> {
        let tl = self.timeline();
        let root = &self.plan.root;
        match root.ty {
            ValueType::String => Ok(Value::String(tl.start, self.text(root).to_owned())),
            ValueType::Scalar => self.scalar_result(root, &tl),
            ValueType::Vector => self.vector_result(root, &tl),
            ValueType::Matrix => self.matrix_result(root, &tl),
        }
    }

    /// The evaluation times of the query.
    fn timeline(&self) -> Timeline {
        let p = &self.plan.params;
        Timeline::new(p.start_ms, p.end_ms, p.step_ms)
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
