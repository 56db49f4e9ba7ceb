//! Nodes of the logical plan.

use std::sync::Arc;

use koios_model::Matcher;

use crate::syntax::ast::{AggOp, BinaryOp, Edges, Span, ValueType, VectorMatching};
use crate::syntax::functions::Function;

/// An operator with its place in the query.
#[derive(Debug)]
pub(crate) struct Node {
    pub kind: NodeKind,
    pub span: Span,
    pub ty: ValueType,
    /// The value is the same at every step.
    pub invariant: bool,
}

#[derive(Debug)]
pub(crate) enum NodeKind {
    Number(f64),
    Text(String),
    Select(SelectNode),
    Matrix(MatrixArg),
    Paren(Box<Node>),
    Unary(bool, Box<Node>),
    Binary(Box<Binary>),
    Call(Box<Call>),
    Aggregate(Box<Aggregate>),
}

/// A selector, instant or the base of a range.
#[derive(Clone, Debug)]
pub(crate) struct SelectNode {
    /// Which select answers it.
    pub input: usize,
    pub matchers: Arc<[Matcher]>,
    pub offset: i64,
    pub at: Option<i64>,
    pub edges: Edges,
    /// Only count and sum of histograms matter, so resets are detected while reading.
    pub stats_only: bool,
    /// Where it stands.
    pub span: Span,
    /// Sample times that the select covers.
    pub bounds: (i64, i64),
    /// The only labels that anybody looks at; `None` means all.
    pub labels: Option<Arc<[String]>>,
}

/// What gives a range vector.
#[derive(Debug)]
pub(crate) enum MatrixArg {
    Select { select: SelectNode, range: i64 },
    Subquery(Box<SubqueryNode>),
}

#[derive(Debug)]
pub(crate) struct SubqueryNode {
    pub expr: Node,
    pub range: i64,
    pub step: i64,
    pub offset: i64,
    pub at: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct Binary {
    pub op: BinaryOp,
    pub lhs: Node,
    pub rhs: Node,
    pub matching: Option<VectorMatching>,
    pub return_bool: bool,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub func: &'static Function,
    pub args: Vec<Node>,
    /// Stands directly in an aggregation by labels other than those that make up a metric's name, so nobody sees
    /// whether the name is still there.
    pub name_unseen: bool,
}

#[derive(Debug)]
pub(crate) struct Aggregate {
    pub op: AggOp,
    pub expr: Node,
    pub param: Option<Node>,
    pub grouping: Vec<String>,
    pub without: bool,
}

impl Node {
    /// Without parentheses around it.
    pub fn unwrap_parens(&self) -> &Node {
        match &self.kind {
            NodeKind::Paren(inner) => inner.unwrap_parens(),
            _ => self,
        }
    }

    /// The first node for which `f` holds, from the outside to the inside.
    pub fn find<'n>(&'n self, f: &dyn Fn(&Node) -> bool) -> Option<&'n Node> {
        if f(self) {
            return Some(self);
        }
        match &self.kind {
            NodeKind::Number(_) | NodeKind::Text(_) | NodeKind::Select(_) => None,
            NodeKind::Matrix(MatrixArg::Select { .. }) => None,
            NodeKind::Matrix(MatrixArg::Subquery(s)) => s.expr.find(f),
            NodeKind::Paren(e) | NodeKind::Unary(_, e) => e.find(f),
            NodeKind::Binary(b) => b.lhs.find(f).or_else(|| b.rhs.find(f)),
            NodeKind::Call(c) => c.args.iter().find_map(|a| a.find(f)),
            NodeKind::Aggregate(a) => a.expr.find(f).or_else(|| a.param.as_ref()?.find(f)),
        }
    }

    /// The range vector argument that this is.
    pub fn as_matrix(&self) -> Option<&MatrixArg> {
        match &self.unwrap_parens().kind {
            NodeKind::Matrix(m) => Some(m),
            _ => None,
        }
    }
}

impl SubqueryNode {
    /// End of the window of an evaluation at `t`.
    pub fn reference(&self, t: i64) -> i64 {
        self.at.unwrap_or(t).saturating_sub(self.offset)
    }
}

impl SelectNode {
    /// The time that an evaluation at `t` looks at.
    pub fn reference(&self, t: i64) -> i64 {
        self.at.unwrap_or(t).saturating_sub(self.offset)
    }
}
