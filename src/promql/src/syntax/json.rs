//! The syntax tree as JSON, in the shape that Prometheus' `/api/v1/parse_query` serves to its UI.

use koios_model::format::float_f;

use super::ast::{
    At, BinaryExpr, Duration, DurationExpr, DurationKind, Edges, Expr, ExprKind, ValueType, VectorMatching,
    VectorSelector,
};

/// Writes a tree as one JSON object.
pub fn expr_to_json(expr: &Expr) -> String {
    match &expr.kind {
        ExprKind::Aggregate(a) => Object::new("aggregation")
            .text("op", a.op.as_str())
            .raw("expr", expr_to_json(&a.expr))
            .raw("param", a.param.as_ref().map_or_else(null, expr_to_json))
            .raw("grouping", strings(&a.grouping))
            .raw("without", a.without.to_string())
            .end(),
        ExprKind::Binary(b) => binary(b),
        ExprKind::Call(c) => {
            let types: Vec<String> = c.func.args.iter().map(|t| quote(t.as_str())).collect();
            let func = Object::bare()
                .text("name", c.func.name)
                .raw("argTypes", format!("[{}]", types.join(",")))
                .raw("variadic", c.func.variadic.to_string())
                .text("returnType", c.func.returns.as_str())
                .end();
            let args: Vec<String> = c.args.iter().map(expr_to_json).collect();
            Object::new("call").raw("func", func).raw("args", format!("[{}]", args.join(","))).end()
        }
        ExprKind::Matrix(m) => selector("matrixSelector", &m.selector, Some(&m.range)),
        ExprKind::Vector(v) => selector("vectorSelector", v, None),
        ExprKind::Subquery(s) => {
            let object = Object::new("subquery")
                .raw("expr", expr_to_json(&s.expr))
                .duration("range", &s.range)
                .duration("offset", &s.offset)
                .duration("step", s.step.as_ref().unwrap_or(&Duration::Fixed(0)));
            at(object, s.at).end()
        }
        ExprKind::Number(n) => Object::new("numberLiteral").text("val", &float_f(n.value)).end(),
        ExprKind::String(s) => Object::new("stringLiteral").text("val", s).end(),
        ExprKind::Paren(e) => Object::new("parenExpr").raw("expr", expr_to_json(e)).end(),
        ExprKind::Unary(negative, e) => Object::new("unaryExpr")
            .text("op", if *negative { "-" } else { "+" })
            .raw("expr", expr_to_json(e))
            .end(),
    }
}

fn binary(b: &BinaryExpr) -> String {
    let vectors = b.lhs.value_type() == ValueType::Vector && b.rhs.value_type() == ValueType::Vector;
    let matching = match &b.matching {
        Some(m) if vectors => matching(m),
        _ => null(),
    };
    Object::new("binaryExpr")
        .text("op", b.op.as_str())
        .raw("lhs", expr_to_json(&b.lhs))
        .raw("rhs", expr_to_json(&b.rhs))
        .raw("matching", matching)
        .raw("bool", b.return_bool.to_string())
        .end()
}

fn matching(m: &VectorMatching) -> String {
    let fill = |n: &Option<super::ast::NumberLiteral>| {
        n.as_ref().map_or_else(null, |n| {
            if n.value.is_finite() { float_f(n.value) } else { quote(&float_f(n.value)) }
        })
    };
    let fills = Object::bare().raw("lhs", fill(&m.fill_left)).raw("rhs", fill(&m.fill_right)).end();
    Object::bare()
        .text("card", m.card.as_str())
        .raw("labels", strings(&m.labels))
        .raw("on", m.on.to_string())
        .raw("include", strings(&m.include))
        .raw("fillValues", fills)
        .end()
}

fn selector(kind: &str, v: &VectorSelector, range: Option<&Duration>) -> String {
    let matchers: Vec<String> = v
        .matchers
        .iter()
        .map(|m| {
            Object::bare().text("name", &m.name).text("value", &m.value).text("type", m.kind.as_str()).end()
        })
        .collect();
    let mut object = Object::new(kind).text("name", &v.name);
    if let Some(range) = range {
        object = object.duration("range", range);
    }
    let object = object
        .duration("offset", &v.offset)
        .raw("matchers", format!("[{}]", matchers.join(",")))
        .raw("anchored", (v.edges == Edges::Anchored).to_string())
        .raw("smoothed", (v.edges == Edges::Smoothed).to_string());
    at(object, v.at).end()
}

fn at(object: Object, at: Option<At>) -> Object {
    let (time, word) = match at {
        Some(At::Time(ms)) => (ms.to_string(), null()),
        Some(At::Start) => (null(), quote("start")),
        Some(At::End) => (null(), quote("end")),
        None => (null(), null()),
    };
    object.raw("timestamp", time).raw("startOrEnd", word)
}

fn duration_expr(e: &DurationExpr) -> String {
    let two = |op: &str, l: String, r: String| {
        Object::new("durationExpr")
            .text("op", op)
            .raw("lhs", l)
            .raw("rhs", r)
            .raw("wrapped", e.wrapped.to_string())
            .end()
    };
    match &e.kind {
        DurationKind::Number(n) => Object::new("numberLiteral").text("val", &float_f(n.value)).end(),
        DurationKind::Step => two("step", null(), null()),
        DurationKind::Range => two("range", null(), null()),
        DurationKind::Unary(negative, x) => two(if *negative { "-" } else { "+" }, null(), duration_expr(x)),
        DurationKind::Binary(op, a, b) => two(op.as_str(), duration_expr(a), duration_expr(b)),
        DurationKind::Min(a, b) => two("min_of", duration_expr(a), duration_expr(b)),
        DurationKind::Max(a, b) => two("max_of", duration_expr(a), duration_expr(b)),
    }
}

fn null() -> String {
    "null".to_owned()
}

fn strings(all: &[String]) -> String {
    let quoted: Vec<String> = all.iter().map(|s| quote(s)).collect();
    format!("[{}]", quoted.join(","))
}

fn quote(s: &str) -> String {
    let mut out = String::new();
    koios_model::format::push_json_string(&mut out, s);
    out
}

struct Object(String);

impl Object {
    fn new(kind: &str) -> Self {
        Self::bare().text("type", kind)
    }

    fn bare() -> Self {
        Self("{".to_owned())
    }

    fn raw(mut self, key: &str, value: impl AsRef<str>) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&quote(key));
        self.0.push(':');
        self.0.push_str(value.as_ref());
        self
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, quote(value))
    }

    /// `range` in ms and `rangeExpr`.
    fn duration(self, key: &str, d: &Duration) -> Self {
        let (ms, expr) = match d {
            Duration::Fixed(ms) => (*ms, null()),
            Duration::Expr(e) => (0, duration_expr(e)),
        };
        self.raw(key, ms.to_string()).raw(&format!("{key}Expr"), expr)
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}
