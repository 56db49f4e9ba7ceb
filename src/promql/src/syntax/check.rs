//! The type check: what the grammar cannot say.

use koios_model::METRIC_NAME;
use koios_model::format::go_quote;

use super::ast::{
    AggOp, AggregateExpr, BinaryExpr, CallExpr, Cardinality, Expr, ExprKind, Span, ValueType, VectorSelector,
};
use super::parser::{Fault, Parsed};

/// Checks a whole tree and settles what depends on types (cardinality of set operators, matching).
pub(super) fn check(expr: &mut Expr, input: &str) -> Parsed<ValueType> {
    let span = expr.span;
    match &mut expr.kind {
        ExprKind::Number(_) => Ok(ValueType::Scalar),
        ExprKind::String(_) => Ok(ValueType::String),
        ExprKind::Paren(inner) => check(inner, input),
        ExprKind::Unary(_, inner) => {
            let ty = check(inner, input)?;
            if !matches!(ty, ValueType::Scalar | ValueType::Vector) {
                let message = format!(
                    "unary expression only allowed on expressions of type scalar or instant vector, got {}",
                    go_quote(ty.documented())
                );
                return fault(span, message);
            }
            Ok(ty)
        }
        ExprKind::Vector(v) => selector(v, span),
        ExprKind::Matrix(m) => {
            selector(&m.selector, m.selector_span)?;
            Ok(ValueType::Matrix)
        }
        ExprKind::Subquery(s) => {
            let ty = check(&mut s.expr, input)?;
            if ty != ValueType::Vector {
                let message =
                    format!("subquery is only allowed on instant vector, got {} instead", ty.as_str());
                return fault(span, message);
            }
            Ok(ValueType::Matrix)
        }
        ExprKind::Call(c) => call(c, span, input),
        ExprKind::Aggregate(a) => aggregate(a, input),
        ExprKind::Binary(b) => binary(b, span, input),
    }
}

fn fault<T>(span: Span, message: impl Into<String>) -> Parsed<T> {
    Err(Fault { span, message: message.into() })
}

fn expect(expr: &mut Expr, want: ValueType, context: &str, input: &str) -> Parsed<()> {
    let span = expr.span;
    let got = check(expr, input)?;
    if got == want {
        return Ok(());
    }
    fault(span, format!("expected type {} in {context}, got {}", want.documented(), got.documented()))
}

fn selector(v: &VectorSelector, span: Span) -> Parsed<ValueType> {
    if v.name.is_empty() {
        if v.matchers.iter().all(koios_model::Matcher::matches_empty) {
            return fault(span, "vector selector must contain at least one non-empty matcher");
        }
        let names: Vec<_> = v
            .matchers
            .iter()
            .filter(|m| m.name == METRIC_NAME && m.kind == koios_model::MatchType::Equal)
            .collect();
        if let [a, b, ..] = names.as_slice()
            && a.value != b.value
        {
            return twice(span, &a.value, &b.value);
        }
        return Ok(ValueType::Vector);
    }
    let before = &v.matchers[..v.matchers.len() - 1];
    match before.iter().find(|m| m.name == METRIC_NAME) {
        Some(m) => twice(span, &v.name, &m.value),
        None => Ok(ValueType::Vector),
    }
}

fn twice<T>(span: Span, a: &str, b: &str) -> Parsed<T> {
    fault(span, format!("metric name must not be set twice: {} or {}", go_quote(a), go_quote(b)))
}

fn call(c: &mut CallExpr, span: Span, input: &str) -> Parsed<ValueType> {
    let f = c.func;
    let (declared, got, name) = (f.args.len(), c.args.len(), go_quote(f.name));
    let least = declared - usize::from(f.variadic != 0 && declared > 0);
    if f.variadic == 0 && got != declared {
        return fault(span, format!("expected {declared} argument(s) in call to {name}, got {got}"));
    }
    if got < least {
        return fault(span, format!("expected at least {least} argument(s) in call to {name}, got {got}"));
    }
    if let Ok(more @ 1..) = usize::try_from(f.variadic)
        && got > least + more
    {
        let most = least + more;
        return fault(span, format!("expected at most {most} argument(s) in call to {name}, got {got}"));
    }
    if f.name == "info" && got > 1 {
        info_selector(&c.args[1])?;
    }
    let context = format!("call to function {name}");
    for (i, arg) in c.args.iter_mut().enumerate() {
        let want = f.args[i.min(declared - 1)];
        if f.name == "info" && i == 1 {
            continue;
        }
        expect(arg, want, &context, input)?;
    }
    Ok(f.returns)
}

/// The second argument of `info` is a bare `{…}`, which may match everything.
fn info_selector(arg: &Expr) -> Parsed<()> {
    match &arg.kind {
        ExprKind::Vector(v) if v.name.is_empty() => Ok(()),
        ExprKind::Vector(_) => fault(arg.span, "expected label selectors only, got vector selector instead"),
        _ => {
            let got = arg.value_type().documented();
            fault(
                arg.span,
                format!("expected label selectors as the second argument to \"info\" function, got {got}"),
            )
        }
    }
}

fn aggregate(a: &mut AggregateExpr, input: &str) -> Parsed<ValueType> {
    expect(&mut a.expr, ValueType::Vector, "aggregation expression", input)?;
    if let Some(param) = &mut a.param {
        let want = if a.op == AggOp::CountValues { ValueType::String } else { ValueType::Scalar };
        expect(param, want, "aggregation parameter", input)?;
    }
    Ok(ValueType::Vector)
}

fn binary(b: &mut BinaryExpr, span: Span, input: &str) -> Parsed<ValueType> {
    let lt = check(&mut b.lhs, input)?;
    let rt = check(&mut b.rhs, input)?;
    let op_span = operator_span(b, input);
    let scalars = lt == ValueType::Scalar && rt == ValueType::Scalar;
    if b.return_bool && !b.op.is_comparison() {
        return fault(op_span, "bool modifier can only be used on comparison operators");
    }
    if b.op.is_comparison() && !b.return_bool && scalars {
        return fault(op_span, "comparisons between scalars must use BOOL modifier");
    }
    if let Some(m) = &mut b.matching {
        if b.op.is_set() && m.card == Cardinality::OneToOne {
            m.card = Cardinality::ManyToMany;
        }
        if m.on
            && let Some(l) = m.labels.iter().find(|l| m.include.contains(l))
        {
            let message = format!("label {} must not occur in ON and GROUP clause at once", go_quote(l));
            return fault(op_span, message);
        }
    }
    for (ty, side) in [(lt, &b.lhs), (rt, &b.rhs)] {
        if !matches!(ty, ValueType::Scalar | ValueType::Vector) {
            return fault(side.span, "binary expression must contain only scalar and instant vector types");
        }
    }
    let vectors = lt == ValueType::Vector && rt == ValueType::Vector;
    let op = go_quote(b.op.as_str());
    if !vectors {
        if let Some(m) = b.matching.take() {
            if !m.labels.is_empty() {
                return fault(span, "vector matching only allowed between instant vectors");
            }
            if m.fill_left.is_some() || m.fill_right.is_some() {
                return fault(span, "filling in missing series only allowed between instant vectors");
            }
        }
        if b.op.is_set() {
            return fault(span, format!("set operator {op} not allowed in binary scalar expression"));
        }
    } else if b.op.is_set() {
        let m = b.matching.as_ref();
        if m.is_some_and(|m| m.card != Cardinality::ManyToMany) {
            return fault(span, format!("no grouping allowed for {op} operation"));
        }
        if m.is_some_and(|m| m.fill_left.is_some() || m.fill_right.is_some()) {
            return fault(span, format!("filling in missing series not allowed for {op} operation"));
        }
    }
    Ok(if scalars { ValueType::Scalar } else { ValueType::Vector })
}

/// The bytes between both operands without the blanks around them.
fn operator_span(b: &BinaryExpr, input: &str) -> Span {
    let (from, to) = (b.lhs.span.end, b.rhs.span.start);
    let between = input.get(from..to).unwrap_or("");
    let lead = between.len() - between.trim_start().len();
    let tail = between.len() - between.trim_end().len();
    Span::bytes(from + lead, to.saturating_sub(tail).max(from + lead))
}
