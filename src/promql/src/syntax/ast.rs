//! The syntax tree.
//!
//! Nodes carry byte ranges of the text they came from; ranges are no part of equality, so a tree equals the
//! tree of its printed form.

use koios_model::Matcher;

use super::functions::Function;

/// A byte range of the query text. All spans are equal to each other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Line of the first byte, from 1; 0 where nobody needs it.
    pub line: u32,
    /// Column of the first byte in bytes, from 1.
    pub col: u32,
}

impl Span {
    pub(crate) fn bytes(start: usize, end: usize) -> Self {
        Self { start, end, line: 0, col: 0 }
    }
}

impl PartialEq for Span {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The four types of values, and what a function without result would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One float.
    Scalar,
    /// One value per series.
    Vector,
    /// A range of values per series.
    Matrix,
    /// Text.
    String,
}

impl ValueType {
    /// As error messages call it.
    pub fn documented(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
            ValueType::String => "string",
        }
    }

    /// As the API calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
            ValueType::String => "string",
        }
    }
}

/// An expression with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it is.
    pub span: Span,
    pub(crate) height: Height,
}

/// Levels below and including a node; no part of equality.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Height(pub u32);

impl PartialEq for Height {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The kinds of expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `sum by (a) (x)`
    Aggregate(Box<AggregateExpr>),
    /// `a + b`
    Binary(Box<BinaryExpr>),
    /// `f(x)`
    Call(CallExpr),
    /// `x[5m]`
    Matrix(Box<MatrixSelector>),
    /// `expr[1h:5m]`
    Subquery(Box<SubqueryExpr>),
    /// `1.5`, or `5m` when `duration`
    Number(NumberLiteral),
    /// `"text"`
    String(String),
    /// `(x)`
    Paren(Box<Expr>),
    /// `-x` or `+x`
    Unary(bool, Box<Expr>),
    /// `name{a="b"}`
    Vector(Box<VectorSelector>),
}

/// A number as written.
#[derive(Clone, Copy, Debug)]
pub struct NumberLiteral {
    /// The value; seconds for a duration.
    pub value: f64,
    /// Whether it was written as a duration.
    pub duration: bool,
}

impl PartialEq for NumberLiteral {
    fn eq(&self, other: &Self) -> bool {
        self.duration == other.duration
            && (self.value == other.value || (self.value.is_nan() && other.value.is_nan()))
    }
}

/// `@ t`, `@ start()`, `@ end()`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Milliseconds since the epoch.
    Time(i64),
    /// Start of the query.
    Start,
    /// End of the query.
    End,
}

/// A duration in a range, step or offset.
#[derive(Clone, Debug, PartialEq)]
pub enum Duration {
    /// Known from the text, ms.
    Fixed(i64),
    /// To be computed from the query's step and range.
    Expr(Box<DurationExpr>),
}

impl Duration {
    /// Whether this is literally zero.
    pub fn is_zero(&self) -> bool {
        matches!(self, Duration::Fixed(0))
    }
}

/// Arithmetic on durations.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// What it is.
    pub kind: DurationKind,
    /// Whether it stood in parentheses.
    pub wrapped: bool,
    /// Where it is.
    pub span: Span,
}

/// The kinds of duration expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationKind {
    /// Seconds, or a duration.
    Number(NumberLiteral),
    /// `step()`
    Step,
    /// `range()`
    Range,
    /// `+x`, or `-x` when `true`
    Unary(bool, Box<DurationExpr>),
    /// Arithmetic.
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>),
    /// `min_of(a, b)`
    Min(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`
    Max(Box<DurationExpr>, Box<DurationExpr>),
}

/// How a selector treats the edges of its window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edges {
    /// Samples inside only.
    #[default]
    Plain,
    /// With the last sample at or before the start.
    Anchored,
    /// Interpolated at both ends.
    Smoothed,
}

/// An instant selector; the order of matchers is no part of equality.
#[derive(Clone, Debug)]
pub struct VectorSelector {
    /// The name written before the braces, empty when there was none.
    pub name: String,
    /// All matchers; that of `name` is the last.
    pub matchers: Vec<Matcher>,
    /// `offset`
    pub offset: Duration,
    /// `@`
    pub at: Option<At>,
    /// `anchored`, `smoothed`
    pub edges: Edges,
}

impl PartialEq for VectorSelector {
    fn eq(&self, other: &Self) -> bool {
        let sorted = |v: &Self| {
            let mut all: Vec<String> = v.matchers.iter().map(ToString::to_string).collect();
            all.sort();
            all
        };
        self.name == other.name
            && self.offset == other.offset
            && self.at == other.at
            && self.edges == other.edges
            && sorted(self) == sorted(other)
    }
}

/// A range selector.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// Which series, with offset and `@`.
    pub selector: VectorSelector,
    /// Range of the text of `selector` alone.
    pub selector_span: Span,
    /// How far back.
    pub range: Duration,
}

/// A subquery.
#[derive(Clone, Debug, PartialEq)]
pub struct SubqueryExpr {
    /// What is evaluated.
    pub expr: Expr,
    /// How far back.
    pub range: Duration,
    /// Distance of evaluations; `None` takes the default.
    pub step: Option<Duration>,
    /// `offset`
    pub offset: Duration,
    /// `@`
    pub at: Option<At>,
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallExpr {
    /// What is called.
    pub func: &'static Function,
    /// Arguments.
    pub args: Vec<Expr>,
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateExpr {
    /// Which.
    pub op: AggOp,
    /// Over what.
    pub expr: Expr,
    /// The parameter of `topk` and others.
    pub param: Option<Expr>,
    /// Labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether `grouping` is to be left out.
    pub without: bool,
}

/// An operator between two expressions.
#[derive(Clone, Debug, PartialEq)]
pub struct BinaryExpr {
    /// Which.
    pub op: BinaryOp,
    /// Left.
    pub lhs: Expr,
    /// Right.
    pub rhs: Expr,
    /// Between two vectors.
    pub matching: Option<VectorMatching>,
    /// `bool`
    pub return_bool: bool,
}

/// How many elements match how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cardinality {
    /// One to one.
    #[default]
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

impl Cardinality {
    /// As the API calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::ManyToMany => "many-to-many",
        }
    }
}

/// How elements of two vectors find each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VectorMatching {
    /// Cardinality.
    pub card: Cardinality,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Whether `labels` is `on`.
    pub on: bool,
    /// Labels of `group_left` or `group_right`.
    pub include: Vec<String>,
    /// Value for a missing left side.
    pub fill_left: Option<NumberLiteral>,
    /// Value for a missing right side.
    pub fill_right: Option<NumberLiteral>,
}

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// As the language writes it.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// The one that is written like this.
            pub fn from_name(text: &str) -> Option<Self> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }
    };
}

named_enum! {
    /// Aggregation operators.
    AggOp {
        /// Sum.
        Sum = "sum",
        /// Mean.
        Avg = "avg",
        /// Smallest.
        Min = "min",
        /// Largest.
        Max = "max",
        /// Number of elements.
        Count = "count",
        /// 1 per group.
        Group = "group",
        /// Population standard deviation.
        Stddev = "stddev",
        /// Population variance.
        Stdvar = "stdvar",
        /// Largest k.
        Topk = "topk",
        /// Smallest k.
        Bottomk = "bottomk",
        /// φ-quantile.
        Quantile = "quantile",
        /// Number of elements per value.
        CountValues = "count_values",
        /// Any k.
        Limitk = "limitk",
        /// A pseudo-random share.
        LimitRatio = "limit_ratio",
    }
}

impl AggOp {
    /// Whether a parameter comes first.
    pub fn has_param(self) -> bool {
        use AggOp::{Bottomk, CountValues, LimitRatio, Limitk, Quantile, Topk};
        matches!(self, Topk | Bottomk | Quantile | CountValues | Limitk | LimitRatio)
    }
}

named_enum! {
    /// Binary operators.
    BinaryOp {
        /// Addition.
        Add = "+",
        /// Subtraction.
        Sub = "-",
        /// Multiplication.
        Mul = "*",
        /// Division.
        Div = "/",
        /// Remainder with the sign of the dividend.
        Mod = "%",
        /// Power.
        Pow = "^",
        /// Arc tangent of both.
        Atan2 = "atan2",
        /// Equal.
        Eq = "==",
        /// Not equal.
        Ne = "!=",
        /// Greater.
        Gt = ">",
        /// Less.
        Lt = "<",
        /// Greater or equal.
        Ge = ">=",
        /// Less or equal.
        Le = "<=",
        /// Remove observations above.
        TrimUpper = "</",
        /// Remove observations below.
        TrimLower = ">/",
        /// Intersection.
        And = "and",
        /// Union.
        Or = "or",
        /// Difference.
        Unless = "unless",
    }
}

impl BinaryOp {
    /// Binding strength, larger binds tighter.
    pub fn precedence(self) -> u8 {
        use BinaryOp::{Add, And, Atan2, Div, Mod, Mul, Or, Pow, Sub, Unless};
        match self {
            Or => 1,
            And | Unless => 2,
            Add | Sub => 4,
            Mul | Div | Mod | Atan2 => 5,
            Pow => 6,
            _ => 3,
        }
    }

    /// `== != > < >= <=`
    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Eq, Ge, Gt, Le, Lt, Ne};
        matches!(self, Eq | Ne | Gt | Lt | Ge | Le)
    }

    /// `and or unless`
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }

    /// `</ >/`
    pub fn is_trim(self) -> bool {
        matches!(self, BinaryOp::TrimUpper | BinaryOp::TrimLower)
    }
}

impl Expr {
    /// The type of the value; exact once the tree has been checked.
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Aggregate(_) | ExprKind::Vector(_) => ValueType::Vector,
            ExprKind::Binary(b) => match (b.lhs.value_type(), b.rhs.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
            ExprKind::Call(c) => c.func.returns,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Paren(e) | ExprKind::Unary(_, e) => e.value_type(),
        }
    }

    /// The direct subexpressions.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Aggregate(a) => a.param.iter().chain([&a.expr]).collect(),
            ExprKind::Binary(b) => vec![&b.lhs, &b.rhs],
            ExprKind::Call(c) => c.args.iter().collect(),
            ExprKind::Subquery(s) => vec![&s.expr],
            ExprKind::Paren(e) | ExprKind::Unary(_, e) => vec![e],
            ExprKind::Matrix(_) | ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_) => {
                Vec::new()
            }
        }
    }

    /// The matchers of every selector in the expression, in the order of the text.
    pub fn selectors(&self) -> Vec<&[Matcher]> {
        match &self.kind {
            ExprKind::Vector(v) => vec![&v.matchers],
            ExprKind::Matrix(m) => vec![&m.selector.matchers],
            _ => self.children().into_iter().flat_map(Expr::selectors).collect(),
        }
    }

    /// The direct subexpressions, to be changed.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.kind {
            ExprKind::Aggregate(a) => a.param.iter_mut().chain([&mut a.expr]).collect(),
            ExprKind::Binary(b) => vec![&mut b.lhs, &mut b.rhs],
            ExprKind::Call(c) => c.args.iter_mut().collect(),
            ExprKind::Subquery(s) => vec![&mut s.expr],
            ExprKind::Paren(e) | ExprKind::Unary(_, e) => vec![e],
            ExprKind::Matrix(_) | ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Vector(_) => {
                Vec::new()
            }
        }
    }

    /// Without surrounding parentheses.
    pub fn unwrap_parens(&self) -> &Expr {
        match &self.kind {
            ExprKind::Paren(e) => e.unwrap_parens(),
            _ => self,
        }
    }
}
