//! One evaluation on several threads.
//!
//! Where a part of a plan gives each row from one series alone, the sorted series are cut into blocks. Helpers
//! compute blocks ahead; the evaluation takes their rows in the order of the series, and computes itself each
//! block that nobody has begun. So whatever consumes the rows sees the same rows in the same order as without
//! helpers, down to the bits, and never waits for a thread that has not started.
//!
//! Bounds: a few blocks ahead of the consumer, whose rows count against the budget of the query. A helper gives
//! its thread back after every block, so other queries get their turn.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::api::{Budget, Charge, Control, EvalError, Helpers};
use crate::binary::changes_schema;
use crate::functions::{maps_elements, maps_windows};
use crate::plan::{MatrixArg, Node, NodeKind, Plan};
use crate::syntax::ast::ValueType;

use super::{Ctx, Inputs, Notes, Res, Row, Sink, Timeline};

/// Cells of all rows of a block, about: half a megabyte.
const BLOCK_CELLS: usize = 1 << 16;
/// Most and least series of a block.
const BLOCK_SERIES_MAX: usize = 2048;
const BLOCK_SERIES_MIN: usize = 4;
/// Blocks computed ahead of the consumer for each helper.
const AHEAD: usize = 2;
/// Fewer blocks are not worth another thread.
const BLOCKS_MIN: usize = 4;

/// What all threads of an evaluation share.
pub(crate) struct Shared {
    pub plan: Arc<Plan>,
    pub inputs: Arc<Inputs>,
    pub control: Control,
    pub budget: Arc<Budget>,
    pub helpers: Arc<dyn Helpers>,
}

/// Series of one select that a context is restricted to.
#[derive(Clone)]
pub(crate) struct Part {
    pub input: usize,
    pub series: Range<usize>,
}

/// The rows of a block, and what computing them left behind.
struct Block {
    rows: Vec<Row>,
    _charge: Charge,
    notes: Notes,
    read: u64,
    queryable: u64,
}

#[derive(Default)]
enum Slot {
    #[default]
    Open,
    Begun,
    Done(Res<Block>),
}

struct State {
    slots: Vec<Slot>,
    /// Blocks that the consumer is through with.
    consumed: usize,
    helping: usize,
    over: bool,
}

/// A part of a plan that is evaluated block by block.
struct Stage {
    shared: Arc<Shared>,
    /// Which node of the plan, by its place in memory.
    node: usize,
    tl: Timeline,
    input: usize,
    block: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// Ends a stage whatever happens to the consumer.
struct Consumer<'s>(&'s Arc<Stage>);

impl Drop for Consumer<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.over = true;
        state.slots.clear();
    }
}

/// Says that a block failed when its helper did not come to an end.
struct Begun<'s> {
    stage: &'s Stage,
    at: usize,
    result: Option<Res<Block>>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let panicked = || Err(EvalError::exec("the evaluation failed inside (a bug; see the log)"));
        let result = self.result.take().unwrap_or_else(panicked);
        let mut state = self.stage.state.lock();
        if let Some(slot) = state.slots.get_mut(self.at) {
            *slot = Slot::Done(result);
        }
        state.helping -= 1;
        self.stage.changed.notify_all();
    }
}

impl Ctx<'_> {
    /// Streams the rows of a node with the help of other threads; false when it is none that can be divided.
    pub(super) fn shared_rows(&self, node: &Node, tl: &Timeline, sink: Sink<'_>) -> Res<bool> {
        let Some(shared) = self.shared.as_ref().filter(|_| self.part.is_none()) else { return Ok(false) };
        let Some(input) = self.row_by_row(node, LEVELS) else { return Ok(false) };
        let series = self.inputs[input].len();
        let given = shared.helpers.block_series();
        let usual = (BLOCK_CELLS / tl.n.max(1)).clamp(BLOCK_SERIES_MIN, BLOCK_SERIES_MAX);
        let block = given.unwrap_or(usual).max(1);
        let blocks = series.div_ceil(block);
        if blocks < given.map_or(BLOCKS_MIN, |_| 2) || shared.helpers.most() == 0 {
            return Ok(false);
        }
        let slots = (0..blocks).map(|_| Slot::Open).collect();
        let stage = Arc::new(Stage {
            shared: shared.clone(),
            node: std::ptr::from_ref(node).addr(),
            tl: *tl,
            input,
            block,
            state: Mutex::new(State { slots, consumed: 0, helping: 0, over: false }),
            changed: Condvar::new(),
        });
        let _consumer = Consumer(&stage);
        for at in 0..blocks {
            stage.call_helpers();
            self.control.check()?;
            match stage.take(at) {
                None => {
                    let ctx = self.restricted(stage.part(at));
                    ctx.raw_rows(node, tl, sink)?;
                    self.absorb(ctx.notes, ctx.samples_read.get(), ctx.samples_queryable.get());
                }
                Some(done) => {
                    let block = done?;
                    self.absorb(block.notes, block.read, block.queryable);
                    block.rows.into_iter().try_for_each(&mut *sink)?;
                }
            }
            stage.state.lock().consumed = at + 1;
        }
        Ok(true)
    }

    pub(super) fn absorb(&self, notes: Notes, read: u64, queryable: u64) {
        self.notes.absorb(notes);
        self.samples_read.set(self.samples_read.get() + read);
        self.samples_queryable.set(self.samples_queryable.get() + queryable);
    }
}

/// Levels of functions around a select that are still computed row by row.
pub(super) const LEVELS: usize = 8;

impl Ctx<'_> {
    /// The select that gives the rows of a node, when each row comes from one series of it alone and their order
    /// is that of the series.
    pub(super) fn row_by_row(&self, node: &Node, levels: usize) -> Option<usize> {
        let levels = levels.checked_sub(1)?;
        let apart = |kept: bool, e: &Node| kept || self.stays_unique(e);
        match &node.kind {
            NodeKind::Select(s) => Some(s.input),
            NodeKind::Paren(e) | NodeKind::Unary(false, e) => self.row_by_row(e, levels),
            NodeKind::Unary(true, e) if apart(false, e) => self.row_by_row(e, levels),
            NodeKind::Binary(b) => {
                let (vector, scalar) = match (b.lhs.ty, b.rhs.ty) {
                    (ValueType::Vector, ValueType::Scalar) => (&b.lhs, &b.rhs),
                    (ValueType::Scalar, ValueType::Vector) => (&b.rhs, &b.lhs),
                    _ => return None,
                };
                let kept = !changes_schema(b.op) && !b.return_bool;
                (apart(kept, vector) && !selects(scalar)).then(|| self.row_by_row(vector, levels))?
            }
            NodeKind::Call(c) => {
                let mut ranges = c.args.iter().filter(|a| a.as_matrix().is_some());
                let arg = match (ranges.next(), maps_elements(c.func.name)) {
                    (Some(range), _) if maps_windows(c.func.name) => range,
                    (None, true) => c.args.first()?,
                    _ => return None,
                };
                let others = c.args.iter().filter(|a| !std::ptr::eq(*a, arg));
                if !apart(false, arg) || others.into_iter().any(selects) {
                    return None;
                }
                match arg.as_matrix() {
                    Some(MatrixArg::Select { select, .. }) => Some(select.input),
                    Some(MatrixArg::Subquery(_)) => None,
                    None => self.row_by_row(arg, levels),
                }
            }
            _ => None,
        }
    }

    /// A context for some of the series.
    pub(super) fn restricted(&self, part: Part) -> Ctx<'_> {
        let mut ctx = Ctx::new(self.plan, self.inputs.clone(), self.control, self.budget.clone());
        ctx.part = Some(part);
        ctx
    }
}

/// Whether a node reads any series.
fn selects(node: &Node) -> bool {
    node.find(&|n| matches!(n.kind, NodeKind::Select(_) | NodeKind::Matrix(_))).is_some()
}

impl Stage {
    fn part(&self, at: usize) -> Part {
        let end = self.shared.inputs[self.input].len();
        Part { input: self.input, series: at * self.block..((at + 1) * self.block).min(end) }
    }

    /// The rows of a block; `None` when nobody has begun with it, and it is the caller's from now on.
    fn take(&self, at: usize) -> Option<Res<Block>> {
        let mut state = self.state.lock();
        loop {
            match std::mem::replace(&mut state.slots[at], Slot::Begun) {
                Slot::Open => return None,
                Slot::Done(block) => return Some(block),
                Slot::Begun => self.changed.wait(&mut state),
            }
        }
    }

    /// Sends for as many helpers as there is work for.
    fn call_helpers(self: &Arc<Self>) {
        let most = self.shared.helpers.most();
        let missing = {
            let mut state = self.state.lock();
            let ahead = (state.consumed + 1 + AHEAD * most).min(state.slots.len());
            let open = (state.consumed + 1..ahead).filter(|i| matches!(state.slots[*i], Slot::Open)).count();
            let missing = open.min(most.saturating_sub(state.helping));
            state.helping += missing;
            missing
        };
        for _ in 0..missing {
            let called = Called(Some(self.clone()));
            self.shared.helpers.take(Box::new(move || called.help()));
        }
    }

    /// The first block that nobody has begun, not far ahead of the consumer.
    fn begin(&self) -> Option<usize> {
        let mut state = self.state.lock();
        if state.over {
            return None;
        }
        let ahead = (state.consumed + 1 + AHEAD * self.shared.helpers.most()).min(state.slots.len());
        let at = (state.consumed..ahead).find(|i| matches!(state.slots[*i], Slot::Open))?;
        state.slots[at] = Slot::Begun;
        Some(at)
    }

    fn compute(&self, at: usize) -> Res<Block> {
        let s = &*self.shared;
        let node = s.plan.root.find(&|n| std::ptr::from_ref(n).addr() == self.node);
        let node = node.expect("BUG: a node of another plan");
        let mut ctx = Ctx::new(&s.plan, s.inputs.clone(), &s.control, s.budget.clone());
        ctx.part = Some(self.part(at));
        let mut rows = Vec::new();
        let mut charge = s.budget.charge(0)?;
        ctx.raw_rows(node, &self.tl, &mut |row| {
            charge.add(row.col.weight())?;
            rows.push(row);
            Ok(())
        })?;
        let (read, queryable) = (ctx.samples_read.get(), ctx.samples_queryable.get());
        Ok(Block { rows, _charge: charge, notes: ctx.notes, read, queryable })
    }
}

/// A helper that was sent for. When it is dropped without having run, it counts no longer.
struct Called(Option<Arc<Stage>>);

impl Called {
    fn help(mut self) {
        let Some(stage) = self.0.take() else { return };
        let Some(at) = stage.begin() else {
            stage.state.lock().helping -= 1;
            return;
        };
        let mut begun = Begun { stage: &stage, at, result: None };
        begun.result = Some(stage.compute(at));
        drop(begun);
        stage.call_helpers();
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        if let Some(stage) = &self.0 {
            stage.state.lock().helping -= 1;
        }
    }
}
