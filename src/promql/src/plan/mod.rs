//! The logical plan: the syntax tree with every duration, `@` and selector settled.
//!
//! Owns the decision which series and which sample times a query needs (`Plan::selects`), which parts do not
//! depend on the step, and nothing of how values are computed.

mod build;
mod duration;
mod node;

use std::sync::Arc;

use crate::api::{
    Control, EvalError, Helpers, Pushable, PushedRows, QueryOutput, QueryParams, Select, SeriesSet,
    SeriesSource,
};
use crate::engine;
use crate::syntax::ast::{Expr, ValueType};

pub(crate) use node::{Aggregate, Binary, Call, MatrixArg, Node, NodeKind, SelectNode, SubqueryNode};

/// Farthest that a time may be from the epoch, and longest duration, ms: differences of times stay numbers.
pub(crate) const TIME_MAX_MS: i64 = 1 << 60;

/// A query that is ready to run once its selects are answered.
#[derive(Debug)]
pub struct Plan {
    pub(crate) root: Node,
    pub(crate) selects: Vec<Select>,
    pub(crate) params: QueryParams,
    pub(crate) height: u32,
}

impl Plan {
    /// Plans a checked expression.
    ///
    /// # Errors
    /// `BadData` for impossible times, steps beyond the limit or a type that a range query cannot have;
    /// `Execution` for durations that come out non-positive.
    pub fn new(expr: &Expr, params: &QueryParams) -> Result<Self, EvalError> {
        if params.end_ms < params.start_ms {
            return Err(EvalError::BadData("end timestamp must not be before start time".to_owned()));
        }
        if params.step_ms < 0 || (params.step_ms == 0 && params.end_ms != params.start_ms) {
            let text =
                "zero or negative query resolution step widths are not accepted. Try a positive integer";
            return Err(EvalError::BadData(text.to_owned()));
        }
        let times = [params.start_ms, params.end_ms, params.step_ms, params.lookback_ms];
        if times.iter().any(|t| t.unsigned_abs() > TIME_MAX_MS as u64) {
            let text = "time, step or lookback is too far from the epoch, must be within 36 million years";
            return Err(EvalError::BadData(text.to_owned()));
        }
        let ty = expr.value_type();
        if !params.is_instant() && !matches!(ty, ValueType::Scalar | ValueType::Vector) {
            let text = format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                ty.documented()
            );
            return Err(EvalError::BadData(text));
        }
        let height = expr.height.0 as usize;
        let built = crate::stack::with_room(height, || build::build(expr, params));
        let (root, selects) = built.map_err(EvalError::exec)??;
        Ok(Self { root, selects, params: params.clone(), height: expr.height.0 })
    }

    /// What must be fetched.
    pub fn selects(&self) -> &[Select] {
        &self.selects
    }

    /// The type of the result of an instant query; a range query gives a matrix.
    pub fn value_type(&self) -> ValueType {
        self.root.ty
    }

    /// Runs the plan. `inputs[i]` answers `selects()[i]`; the order of series does not matter.
    ///
    /// # Errors
    /// See `EvalError`.
    pub fn evaluate(
        &self,
        inputs: Vec<Vec<Box<dyn SeriesSource>>>,
        control: &Control,
    ) -> Result<QueryOutput, EvalError> {
        engine::run(self, boxed(inputs), control)
    }

    /// As `evaluate`, with the same result to the bit, on more threads than the caller's own.
    ///
    /// # Errors
    /// See `EvalError`.
    pub fn evaluate_helped(
        self: &Arc<Self>,
        inputs: Vec<Vec<Box<dyn SeriesSource>>>,
        control: &Control,
        helpers: Arc<dyn Helpers>,
    ) -> Result<QueryOutput, EvalError> {
        engine::run_helped(self, boxed(inputs), Vec::new(), control, helpers)
    }

    /// As `evaluate_helped`, over series that are read only when they are needed, and maybe more than once.
    ///
    /// # Errors
    /// See `EvalError`.
    pub fn evaluate_sets(
        self: &Arc<Self>,
        inputs: Vec<Box<dyn SeriesSet>>,
        control: &Control,
        helpers: Arc<dyn Helpers>,
    ) -> Result<QueryOutput, EvalError> {
        engine::run_helped(self, inputs, Vec::new(), control, helpers)
    }

    /// The parts that may be evaluated where their series are, each over some of the series and as often as one likes,
    /// with the same result of the whole to the bit. Each reads a select that nothing else reads.
    pub fn pushable(&self) -> Vec<Pushable> {
        crate::stack::with_room(self.height as usize, || engine::pushable(self)).unwrap_or_default()
    }

    /// Evaluates a part over some of its series; `None` when it has to be evaluated where the rest is.
    ///
    /// # Errors
    /// See `EvalError`.
    pub fn evaluate_part(
        &self,
        what: &Pushable,
        set: Box<dyn SeriesSet>,
        control: &Control,
    ) -> Result<Option<PushedRows>, EvalError> {
        engine::run_part(self, what, set, control)
    }

    /// As `evaluate_sets`, with rows for some parts, whose selects are answered with empty sets. All series of such a
    /// select are in exactly one of the rows' parts.
    ///
    /// # Errors
    /// See `EvalError`.
    pub fn evaluate_pushed(
        self: &Arc<Self>,
        inputs: Vec<Box<dyn SeriesSet>>,
        pushed: Vec<(Pushable, Vec<PushedRows>)>,
        control: &Control,
        helpers: Arc<dyn Helpers>,
    ) -> Result<QueryOutput, EvalError> {
        let given = pushed.into_iter().map(|(what, rows)| engine::given(self, &what, rows));
        engine::run_helped(self, inputs, given.collect::<Result<_, _>>()?, control, helpers)
    }
}

fn boxed(lists: Vec<Vec<Box<dyn SeriesSource>>>) -> Vec<Box<dyn SeriesSet>> {
    lists.into_iter().map(|list| Box::new(list) as Box<dyn SeriesSet>).collect()
}
