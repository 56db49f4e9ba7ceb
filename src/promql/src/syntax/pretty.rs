//! A query over several lines, for people.
//!
//! A subtree that fits into `LINE_MAX` characters stays on one line; otherwise each operand gets its own,
//! indented by two blanks per level.

use super::ast::{Expr, ExprKind};
use super::print::{aggregate_head, infinite_base, operator_text, subquery_tail};

const LINE_MAX: usize = 100;

/// Formats a query over several lines; the result parses to the same tree.
pub fn prettify(expr: &Expr) -> String {
    pretty(expr, 0)
}

fn indent(level: usize) -> String {
    "  ".repeat(level)
}

fn pretty(expr: &Expr, level: usize) -> String {
    let pad = indent(level);
    let flat = expr.to_string();
    if flat.len() <= LINE_MAX {
        return format!("{pad}{flat}");
    }
    match &expr.kind {
        ExprKind::Aggregate(a) => {
            let mut inner: Vec<String> = a.param.iter().map(|p| pretty(p, level + 1)).collect();
            inner.push(pretty(&a.expr, level + 1));
            format!("{pad}{}(\n{}\n{pad})", aggregate_head(a), inner.join(",\n"))
        }
        ExprKind::Binary(b) => format!(
            "{}\n{}{}\n{}",
            if infinite_base(b) { format!("{}Inf", indent(level + 1)) } else { pretty(&b.lhs, level + 1) },
            indent(level),
            operator_text(b),
            pretty(&b.rhs, level + 1)
        ),
        ExprKind::Call(c) if !c.args.is_empty() => {
            let args: Vec<String> = c.args.iter().map(|a| pretty(a, level + 1)).collect();
            format!("{pad}{}(\n{}\n{pad})", c.func.name, args.join(",\n"))
        }
        ExprKind::Paren(e) => format!("{pad}(\n{}\n{pad})", pretty(e, level + 1)),
        ExprKind::Unary(negative, e) => {
            let inner = pretty(e, level);
            format!("{pad}{}{}", if *negative { '-' } else { '+' }, inner.trim_start())
        }
        ExprKind::Subquery(s) => format!("{}{}", pretty(&s.expr, level), subquery_tail(expr)),
        _ => format!("{pad}{flat}"),
    }
}
