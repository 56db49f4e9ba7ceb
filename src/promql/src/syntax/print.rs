//! Trees as text, exactly as Prometheus prints them.

use std::fmt::{self, Display, Formatter};

use koios_model::duration::format_duration;
use koios_model::format::{float_f, go_quote};
use koios_model::labels::is_legacy_label_name;
use koios_model::{METRIC_NAME, MatchType};

use super::ast::{
    AggregateExpr, At, BinaryExpr, BinaryOp, Cardinality, Duration, DurationExpr, DurationKind, Edges, Expr,
    ExprKind, NumberLiteral, VectorMatching, VectorSelector,
};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Aggregate(a) => {
                f.write_str(&aggregate_head(a))?;
                f.write_str("(")?;
                if let Some(p) = &a.param {
                    write!(f, "{p}, ")?;
                }
                write!(f, "{})", a.expr)
            }
            ExprKind::Binary(b) if infinite_base(b) => write!(f, "Inf {} {}", operator_text(b), b.rhs),
            ExprKind::Binary(b) => write!(f, "{} {} {}", b.lhs, operator_text(b), b.rhs),
            ExprKind::Call(c) => {
                write!(f, "{}(", c.func.name)?;
                for (i, arg) in c.args.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { ", " })?;
                    write!(f, "{arg}")?;
                }
                f.write_str(")")
            }
            ExprKind::Matrix(m) => {
                let (head, tail) = selector_parts(&m.selector);
                write!(f, "{head}[{}]{tail}", m.range)
            }
            ExprKind::Subquery(s) => write!(f, "{}{}", s.expr, subquery_tail(self)),
            ExprKind::Number(n) => write!(f, "{n}"),
            ExprKind::String(s) => f.write_str(&super::literal::quote(s)),
            ExprKind::Paren(e) => write!(f, "({e})"),
            ExprKind::Unary(negative, e) => write!(f, "{}{e}", if *negative { '-' } else { '+' }),
            ExprKind::Vector(v) => {
                let (head, tail) = selector_parts(v);
                write!(f, "{head}{tail}")
            }
        }
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.duration {
            return f.write_str(&format_duration((self.value * 1000.0).round() as i64));
        }
        f.write_str(&float_f(self.value))
    }
}

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Duration::Fixed(ms) => f.write_str(&format_duration(*ms)),
            Duration::Expr(e) => write!(f, "{e}"),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.wrapped {
            f.write_str("(")?;
        }
        match &self.kind {
            DurationKind::Number(n) => write!(f, "{n}")?,
            DurationKind::Step => f.write_str("step()")?,
            DurationKind::Range => f.write_str("range()")?,
            DurationKind::Unary(negative, e) => write!(f, "{}{e}", if *negative { '-' } else { '+' })?,
            DurationKind::Binary(op, a, b) => write!(f, "{a} {} {b}", op.as_str())?,
            DurationKind::Min(a, b) => write!(f, "min_of({a}, {b})")?,
            DurationKind::Max(a, b) => write!(f, "max_of({a}, {b})")?,
        }
        f.write_str(if self.wrapped { ")" } else { "" })
    }
}

/// Whether this is a power of the number `Inf`, whose usual sign would be read as applied to the power.
pub(super) fn infinite_base(b: &BinaryExpr) -> bool {
    let infinite = |n: &NumberLiteral| n.value == f64::INFINITY;
    b.op == BinaryOp::Pow && matches!(&b.lhs.kind, ExprKind::Number(n) if infinite(n))
}

/// `sum by (a) `, up to the parenthesis.
pub(super) fn aggregate_head(a: &AggregateExpr) -> String {
    let op = a.op.as_str();
    if a.without {
        format!("{op} without ({}) ", label_list(&a.grouping))
    } else if a.grouping.is_empty() {
        op.to_owned()
    } else {
        format!("{op} by ({}) ", label_list(&a.grouping))
    }
}

/// The operator with everything up to the right operand.
pub(super) fn operator_text(b: &BinaryExpr) -> String {
    let mut out = b.op.as_str().to_owned();
    if b.return_bool {
        out.push_str(" bool");
    }
    if let Some(m) = &b.matching {
        out.push_str(&matching_text(m));
    }
    out
}

fn matching_text(m: &VectorMatching) -> String {
    let mut out = String::new();
    let grouped = matches!(m.card, Cardinality::ManyToOne | Cardinality::OneToMany);
    if !m.labels.is_empty() || m.on || grouped {
        let kind = if m.on { "on" } else { "ignoring" };
        out.push_str(&format!(" {kind} ({})", label_list(&m.labels)));
        if grouped {
            let side = if m.card == Cardinality::ManyToOne { "left" } else { "right" };
            out.push_str(&format!(" group_{side} ({})", label_list(&m.include)));
        }
    }
    match (&m.fill_left, &m.fill_right) {
        (Some(l), Some(r)) if l == r => out.push_str(&format!(" fill ({l})")),
        (l, r) => {
            if let Some(l) = l {
                out.push_str(&format!(" fill_left ({l})"));
            }
            if let Some(r) = r {
                out.push_str(&format!(" fill_right ({r})"));
            }
        }
    }
    out
}

fn label_list(labels: &[String]) -> String {
    let one = |l: &String| if is_legacy_label_name(l) { l.clone() } else { go_quote(l) };
    labels.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Name and matchers; and what follows a range.
fn selector_parts(v: &VectorSelector) -> (String, String) {
    let mut matchers: Vec<String> = v
        .matchers
        .iter()
        .filter(|m| {
            !(m.name == METRIC_NAME && m.kind == MatchType::Equal && m.value == v.name && !v.name.is_empty())
        })
        .map(ToString::to_string)
        .collect();
    matchers.sort();
    let mut head = v.name.clone();
    if !matchers.is_empty() || head.is_empty() {
        head.push_str(&format!("{{{}}}", matchers.join(",")));
    }
    let edges = match v.edges {
        Edges::Plain => "",
        Edges::Anchored => " anchored",
        Edges::Smoothed => " smoothed",
    };
    (head, format!("{edges}{}", time_text(v.at, &v.offset)))
}

/// `[1h:5m] @ 1.000 offset 5m`
pub(super) fn subquery_tail(expr: &Expr) -> String {
    let ExprKind::Subquery(s) = &expr.kind else {
        return String::new();
    };
    let step = s.step.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("[{}:{step}]{}", s.range, time_text(s.at, &s.offset))
}

fn time_text(at: Option<At>, offset: &Duration) -> String {
    let mut out = match at {
        None => String::new(),
        Some(At::Start) => " @ start()".to_owned(),
        Some(At::End) => " @ end()".to_owned(),
        Some(At::Time(ms)) => {
            let sign = if ms < 0 { "-" } else { "" };
            let abs = ms.unsigned_abs();
            format!(" @ {sign}{}.{:03}", abs / 1000, abs % 1000)
        }
    };
    if !offset.is_zero() {
        out.push_str(&format!(" offset {offset}"));
    }
    out
}
