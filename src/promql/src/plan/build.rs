//! From the syntax tree to the plan.
//!
//! Walks with the timeline of evaluation at hand, so that each select knows exactly which sample times can
//! matter, however deep in subqueries it stands.

use std::sync::Arc;

use koios_model::{METRIC_NAME, MatchType, Matcher};

use crate::api::{EvalError, Hints, QueryParams, Select};
use crate::engine::{METADATA, Timeline};
use crate::functions::maps_windows;
use crate::syntax::ast::{
    AggregateExpr, At, BinaryExpr, CallExpr, Edges, Expr, ExprKind, MatrixSelector, Span, SubqueryExpr,
    ValueType, VectorSelector,
};

use super::TIME_MAX_MS;
use super::duration::{resolve, resolve_positive};
use super::node::{Aggregate, Binary, Call, MatrixArg, Node, NodeKind, SelectNode, SubqueryNode};

/// Functions that understand `anchored`, and of those the ones that understand `smoothed`.
const ANCHORED: [&str; 5] = ["changes", "delta", "increase", "rate", "resets"];
const SMOOTHED: [&str; 3] = ["delta", "increase", "rate"];

/// Aggregations in whose results nothing of the elements is left but the labels they are grouped by.
const NAMELESS: [&str; 5] = ["sum", "avg", "count", "min", "max"];

/// Functions whose value may differ between steps though their arguments do not.
const STEP_DEPENDENT: [&str; 19] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "info",
    "minute",
    "month",
    "predict_linear",
    "range",
    "start",
    "start_timestamp",
    "step",
    "time",
    "timestamp",
    "year",
    "vector",
    "scalar",
];

pub(super) fn build(expr: &Expr, params: &QueryParams) -> Result<(Node, Vec<Select>), EvalError> {
    let asked = (params.start_ms, params.end_ms);
    let mut b = Builder { params, selects: Vec::new(), path: Vec::new(), asked };
    let step = if params.is_instant() { 1 } else { params.step_ms };
    let timeline = Timeline::new(params.start_ms, params.end_ms, step);
    b.check_steps(&timeline)?;
    let root = b.node(expr, &timeline)?;
    Ok((root, b.selects))
}

/// What stands around a selector, outermost first.
enum Around {
    Call(&'static str),
    Aggregate(String, Vec<String>, bool),
    Subquery,
    Binary,
    Unary,
}

struct Builder<'a> {
    params: &'a QueryParams,
    selects: Vec<Select>,
    path: Vec<Around>,
    /// The times that the selectors of this place are asked about, before their own ranges and offsets: of subqueries
    /// all they span, not only from their first step on. Which replica of others goes on where depends on where one begins
    /// to look, and they begin here.
    asked: (i64, i64),
}

type Built<T> = Result<T, EvalError>;

impl Builder<'_> {
    fn check_steps(&self, timeline: &Timeline) -> Built<()> {
        let max = self.params.limits.steps_max;
        if timeline.n as u64 > max {
            let n = timeline.n;
            return Err(EvalError::exec(format!("evaluation needs {n} steps, more than the limit of {max}")));
        }
        Ok(())
    }

    fn node(&mut self, expr: &Expr, tl: &Timeline) -> Built<Node> {
        let ty = expr.value_type();
        let (kind, invariant) = match &expr.kind {
            ExprKind::Number(n) => (NodeKind::Number(n.value), true),
            ExprKind::String(s) => (NodeKind::Text(s.clone()), true),
            ExprKind::Paren(e) => {
                let inner = self.node(e, tl)?;
                let invariant = inner.invariant;
                (NodeKind::Paren(Box::new(inner)), invariant)
            }
            ExprKind::Unary(negative, e) => {
                self.path.push(Around::Unary);
                let inner = self.node(e, tl)?;
                self.path.pop();
                let invariant = inner.invariant;
                (NodeKind::Unary(*negative, Box::new(inner)), invariant)
            }
            ExprKind::Vector(v) => {
                let select = self.select(v, expr.span, tl, 0)?;
                let invariant = select.at.is_some();
                (NodeKind::Select(select), invariant)
            }
            ExprKind::Matrix(m) => self.matrix(m, tl)?,
            ExprKind::Subquery(s) => self.subquery(s, tl)?,
            ExprKind::Call(c) => self.call(c, expr.span, tl)?,
            ExprKind::Aggregate(a) => self.aggregate(a, tl)?,
            ExprKind::Binary(b) => self.binary(b, tl)?,
        };
        Ok(Node { kind, span: expr.span, ty, invariant })
    }

    fn matrix(&mut self, m: &MatrixSelector, tl: &Timeline) -> Built<(NodeKind, bool)> {
        let range = resolve_positive(&m.range, self.params)?;
        let select = self.select(&m.selector, m.selector_span, tl, range)?;
        let invariant = select.at.is_some();
        Ok((NodeKind::Matrix(MatrixArg::Select { select, range }), invariant))
    }

    fn subquery(&mut self, s: &SubqueryExpr, tl: &Timeline) -> Built<(NodeKind, bool)> {
        let range = resolve_positive(&s.range, self.params)?;
        let step = match &s.step {
            Some(step) => resolve_positive(step, self.params)?,
            None => self.params.default_subquery_step_ms.max(1),
        };
        let offset = resolve(&s.offset, self.params)?;
        let at = self.at(s.at);
        let placeholder = Node {
            kind: NodeKind::Number(0.0),
            span: Span::default(),
            ty: ValueType::Vector,
            invariant: true,
        };
        let mut node = SubqueryNode { expr: placeholder, range, step, offset, at };
        let inner = node.timeline(tl);
        self.check_steps(&inner)?;
        self.path.push(Around::Subquery);
        let (first, last) = at.map_or(self.asked, |t| (t, t));
        let (first, last) = (first.saturating_sub(offset), last.saturating_sub(offset));
        let asked = std::mem::replace(&mut self.asked, (first.saturating_sub(range), last));
        node.expr = self.node(&s.expr, &inner)?;
        self.asked = asked;
        self.path.pop();
        Ok((NodeKind::Matrix(MatrixArg::Subquery(Box::new(node))), at.is_some()))
    }

    fn call(&mut self, c: &CallExpr, span: Span, tl: &Timeline) -> Built<(NodeKind, bool)> {
        let name_unseen = matches!(self.path.last(), Some(Around::Aggregate(op, by_labels, true))
            if NAMELESS.contains(&op.as_str()) && !by_labels.iter().any(|l| l.starts_with("__")));
        self.path.push(Around::Call(c.func.name));
        let mut args = Vec::with_capacity(c.args.len());
        for arg in &c.args {
            if let ExprKind::Matrix(m) = &arg.unwrap_parens().kind {
                edges_allowed(m.selector.edges, c.func.name)?;
            }
            args.push(self.node(arg, tl)?);
        }
        self.path.pop();
        if c.func.name == "info" {
            let base = Self::info_time(&args[0]);
            let info = self.info_select(c, base, tl)?;
            let node = Node { kind: NodeKind::Select(info), span, ty: ValueType::Vector, invariant: false };
            args.truncate(1);
            args.push(node);
        }
        let invariant = match c.func.name {
            "vector" | "scalar" => args.iter().all(|a| a.invariant),
            "info" => args.iter().all(|a| a.invariant),
            name => !STEP_DEPENDENT.contains(&name) && args.iter().all(|a| a.invariant),
        };
        Ok((NodeKind::Call(Box::new(Call { func: c.func, args, name_unseen })), invariant))
    }

    fn aggregate(&mut self, a: &AggregateExpr, tl: &Timeline) -> Built<(NodeKind, bool)> {
        self.path.push(Around::Aggregate(a.op.as_str().to_owned(), a.grouping.clone(), !a.without));
        let expr = self.node(&a.expr, tl)?;
        let param = match &a.param {
            Some(p) => Some(self.node(p, tl)?),
            None => None,
        };
        self.path.pop();
        let invariant = expr.invariant && param.as_ref().is_none_or(|p| p.invariant);
        let node = Aggregate { op: a.op, expr, param, grouping: a.grouping.clone(), without: a.without };
        Ok((NodeKind::Aggregate(Box::new(node)), invariant))
    }

    fn binary(&mut self, b: &BinaryExpr, tl: &Timeline) -> Built<(NodeKind, bool)> {
        self.path.push(Around::Binary);
        let lhs = self.node(&b.lhs, tl)?;
        let rhs = self.node(&b.rhs, tl)?;
        self.path.pop();
        let invariant = lhs.invariant && rhs.invariant;
        let node = Binary { op: b.op, lhs, rhs, matching: b.matching.clone(), return_bool: b.return_bool };
        Ok((NodeKind::Binary(Box::new(node)), invariant))
    }

    fn at(&self, at: Option<At>) -> Option<i64> {
        at.map(|at| match at {
            At::Time(t) => t.clamp(-TIME_MAX_MS, TIME_MAX_MS),
            At::Start => self.params.start_ms,
            At::End => self.params.end_ms,
        })
    }

    /// A select of its own for this selector; `range` is 0 for an instant selector.
    fn select(&mut self, v: &VectorSelector, span: Span, tl: &Timeline, range: i64) -> Built<SelectNode> {
        let offset = resolve(&v.offset, self.params)?;
        let at = self.at(v.at);
        let mut node = SelectNode {
            input: 0,
            matchers: v.matchers.clone().into(),
            offset,
            at,
            edges: v.edges,
            stats_only: self.stats_only(),
            span,
            bounds: (0, 0),
            labels: self.labels_seen(&v.matchers),
        };
        self.register(&mut node, tl, range);
        Ok(node)
    }

    /// Gives a selector its select, shared with an equal one.
    fn register(&mut self, node: &mut SelectNode, tl: &Timeline, range: i64) {
        let lookback = self.params.lookback_ms;
        let back = match (range, node.edges) {
            (0, _) => lookback,
            (r, Edges::Plain) => r,
            (r, _) => r.saturating_add(lookback),
        };
        let ahead = if node.edges == Edges::Smoothed { lookback } else { 0 };
        let (first, last) = (node.reference(tl.start), node.reference(tl.end()));
        let min = first.saturating_sub(back).saturating_add(1);
        let max = last.saturating_add(ahead);
        node.bounds = (min, max);
        let begin = node.reference(self.asked.0).saturating_sub(back).saturating_add(1);
        let min = min.min(begin);
        let hints = self.hints(range, tl.step);
        let same = |s: &&Select| {
            s.matchers[..] == node.matchers[..]
                && (s.min_time_ms, s.max_time_ms) == (min, max)
                && s.hints == hints
        };
        if let Some(s) = self.selects.iter().find(same) {
            node.input = s.id;
            return;
        }
        node.input = self.selects.len();
        self.selects.push(Select {
            id: node.input,
            matchers: node.matchers.to_vec(),
            min_time_ms: min,
            max_time_ms: max,
            hints,
        });
    }

    fn hints(&self, range: i64, step: i64) -> Hints {
        let mut hints = Hints { range_ms: range, step_ms: step, ..Hints::default() };
        if let Some(Around::Aggregate(_, grouping, by)) = self.path.last() {
            hints.grouping.clone_from(grouping);
            hints.by = *by;
        }
        for around in self.path.iter().rev() {
            match around {
                Around::Call(name) => hints.func = (*name).to_owned(),
                Around::Aggregate(op, ..) => hints.func.clone_from(op),
                // What a subquery or a sign passes on is still of one selector.
                Around::Subquery | Around::Unary => continue,
                Around::Binary => {}
            }
            break;
        }
        hints
    }

    /// The labels of a selector's series that anybody looks at: when an aggregation by labels takes its elements, or
    /// what a function of a range makes of each, one by one, those and what describes the metric. Without a name that
    /// is settled the function has to see that no two series become one.
    fn labels_seen(&self, matchers: &[Matcher]) -> Option<Arc<[String]>> {
        if self.params.options.type_and_unit_labels
            || !matchers.iter().any(|m| m.name == METRIC_NAME && m.kind == MatchType::Equal)
        {
            return None;
        }
        let around = match self.path.as_slice() {
            [.., around, Around::Call(name)] if maps_windows(name) => around,
            [.., around] => around,
            [] => return None,
        };
        match around {
            Around::Aggregate(op, by, true) if NAMELESS.contains(&op.as_str()) => {
                let all = by.iter().map(String::as_str).chain(METADATA);
                Some(all.map(str::to_owned).collect())
            }
            _ => None,
        }
    }

    /// Whether the buckets of histograms are never looked at on the way up.
    fn stats_only(&self) -> bool {
        let mut stats = false;
        for around in self.path.iter().rev() {
            match around {
                Around::Subquery => return false,
                Around::Binary => break,
                Around::Call("histogram_count" | "histogram_sum" | "histogram_avg") => stats = true,
                Around::Call("histogram_quantile" | "histogram_quantiles" | "histogram_fraction") => {
                    return false;
                }
                _ => {}
            }
        }
        stats
    }
}

fn edges_allowed(edges: Edges, func: &str) -> Built<()> {
    let (name, allowed): (_, &[&str]) = match edges {
        Edges::Plain => return Ok(()),
        Edges::Anchored => ("anchored", &ANCHORED),
        Edges::Smoothed => ("smoothed", &SMOOTHED),
    };
    if allowed.contains(&func) {
        return Ok(());
    }
    let list = allowed.join(", ");
    Err(EvalError::exec(format!("{name} modifier can only be used with: {list} - not with {func}")))
}

impl SubqueryNode {
    /// The evaluation times needed for all windows of the outer times.
    pub(crate) fn timeline(&self, outer: &Timeline) -> Timeline {
        let from = self.reference(outer.start).saturating_sub(self.range);
        let to = self.reference(outer.end());
        let mut start = from.saturating_sub(from.rem_euclid(self.step));
        if start <= from {
            start = start.saturating_add(self.step);
        }
        Timeline::new(start, to, self.step)
    }
}

mod info {
    //! `info` brings a select of its own: the info metrics, at the times that its argument is read at.

    use std::sync::Arc;

    use koios_model::{METRIC_NAME, MatchType, Matcher};

    use super::{Builder, Built, Timeline};
    use crate::plan::node::{MatrixArg, Node, NodeKind, SelectNode};
    use crate::syntax::ast::{CallExpr, Edges, ExprKind};

    impl Builder<'_> {
        /// `@` and offset that the samples of the argument are read with: those of its first selector.
        pub(super) fn info_time(node: &Node) -> (Option<i64>, i64) {
            fn find(node: &Node, at: Option<i64>, offset: i64) -> Option<(Option<i64>, i64)> {
                match &node.kind {
                    NodeKind::Number(_) | NodeKind::Text(_) => None,
                    NodeKind::Select(s) => Some(joined(at, offset, s)),
                    NodeKind::Matrix(MatrixArg::Select { select, .. }) => Some(joined(at, offset, select)),
                    NodeKind::Matrix(MatrixArg::Subquery(s)) => {
                        let (at, offset) = match s.at {
                            Some(t) => (Some(t), s.offset),
                            None => (at, offset.saturating_add(s.offset)),
                        };
                        find(&s.expr, at, offset)
                    }
                    NodeKind::Paren(e) | NodeKind::Unary(_, e) => find(e, at, offset),
                    NodeKind::Binary(b) => find(&b.lhs, at, offset).or_else(|| find(&b.rhs, at, offset)),
                    NodeKind::Call(c) => c.args.iter().find_map(|a| find(a, at, offset)),
                    NodeKind::Aggregate(a) => find(&a.expr, at, offset),
                }
            }
            fn joined(at: Option<i64>, offset: i64, s: &SelectNode) -> (Option<i64>, i64) {
                match s.at {
                    Some(t) => (Some(t), s.offset),
                    None => (at, offset.saturating_add(s.offset)),
                }
            }
            find(node, None, 0).unwrap_or((None, 0))
        }

        pub(super) fn info_select(
            &mut self,
            c: &CallExpr,
            (at, offset): (Option<i64>, i64),
            tl: &Timeline,
        ) -> Built<SelectNode> {
            let mut matchers: Vec<Matcher> = match c.args.get(1).map(|a| &a.kind) {
                Some(ExprKind::Vector(v)) => v.matchers.clone(),
                _ => Vec::new(),
            };
            let names: Vec<&Matcher> = matchers.iter().filter(|m| m.name == METRIC_NAME).collect();
            if names.is_empty() {
                matchers.insert(0, Matcher::equal(METRIC_NAME, "target_info"));
            } else if names.iter().all(|m| matches!(m.kind, MatchType::NotEqual | MatchType::NotRegex)) {
                let suffix = Matcher::new(MatchType::Regex, METRIC_NAME, ".+_info");
                matchers.insert(0, suffix.map_err(|e| crate::api::EvalError::exec(e.to_string()))?);
            }
            let mut node = SelectNode {
                input: 0,
                matchers: Arc::from(matchers),
                offset,
                at,
                edges: Edges::Plain,
                stats_only: false,
                span: c.args[0].span,
                bounds: (0, 0),
                labels: None,
            };
            // Data label matchers do not restrict what is fetched: a series that fails one still counts.
            self.register(&mut node, tl, 0);
            Ok(node)
        }
    }
}
