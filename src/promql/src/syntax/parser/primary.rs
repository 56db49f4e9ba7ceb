//! Operands: literals, selectors, calls, aggregations, parentheses, and what may follow an operand.

use crate::syntax::ast::{
    AggOp, AggregateExpr, At, CallExpr, Duration, Edges, Expr, ExprKind, MatrixSelector, NumberLiteral, Span,
    SubqueryExpr,
};
use crate::syntax::functions::function;
use crate::syntax::literal::{duration_ms, parse_number, unquote};
use crate::syntax::token::{Kw, Tok, Token};

use super::{Parsed, Parser};

impl Parser<'_> {
    /// An operand with everything that binds tighter than an operator.
    pub(super) fn operand(&mut self) -> Parsed<Expr> {
        let mut expr = self.primary()?;
        loop {
            expr = match self.peek().tok {
                Tok::LeftBracket => self.bracket(expr)?,
                Tok::Keyword(Kw::Offset) => self.offset(expr)?,
                Tok::At => self.at_modifier(expr)?,
                Tok::Keyword(Kw::Anchored) => self.edges(expr, Edges::Anchored)?,
                Tok::Keyword(Kw::Smoothed) => self.edges(expr, Edges::Smoothed)?,
                _ => return Ok(expr),
            };
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.peek();
        match token.tok {
            Tok::Number | Tok::Duration => {
                let n = self.number_token()?;
                self.node(ExprKind::Number(n), token.start, token.end)
            }
            Tok::String => {
                self.next();
                let text = unquote(self.text(token))
                    .map_err(|e| self.fault(token, format!("error unquoting string: {e}")))?;
                self.node(ExprKind::String(text), token.start, token.end)
            }
            Tok::LeftParen => {
                self.next();
                let inner = self.nested(|p| p.expr(0))?;
                if !self.accept(Tok::RightParen) {
                    return Err(self.unexpected("", ""));
                }
                self.node(ExprKind::Paren(Box::new(inner)), token.start, self.last_end())
            }
            Tok::LeftBrace => self.vector_selector(None),
            Tok::Agg(op) => match self.peek_at(1).tok {
                Tok::LeftParen | Tok::Keyword(Kw::By | Kw::Without) => self.aggregation(op),
                _ => self.vector_selector(Some(token)),
            },
            Tok::Word(_) | Tok::Keyword(_) if self.peek_at(1).tok == Tok::LeftParen => self.call(),
            Tok::Word(_) => self.vector_selector(Some(token)),
            Tok::Keyword(kw) if metric_keyword(kw) => self.vector_selector(Some(token)),
            Tok::Op(op) if op.is_set() => self.vector_selector(Some(token)),
            _ => Err(self.unexpected("", "")),
        }
    }

    /// A number or a duration in seconds.
    pub(super) fn number_token(&mut self) -> Parsed<NumberLiteral> {
        let token = self.next();
        let text = self.text(token);
        if token.tok == Tok::Duration {
            let ms = duration_ms(text).map_err(|e| self.fault(token, e))?;
            return Ok(NumberLiteral { value: ms as f64 / 1000.0, duration: true });
        }
        let value = parse_number(text).map_err(|e| self.fault(token, e))?;
        Ok(NumberLiteral { value, duration: false })
    }

    fn call(&mut self) -> Parsed<Expr> {
        let token = self.next();
        let name = self.text(token);
        let Some(func) = function(name) else {
            let message = format!("unknown function with name {}", koios_model::format::go_quote(name));
            return Err(self.fault(token, message));
        };
        if func.experimental && !self.options.experimental_functions {
            let message = format!("function \"{name}\" is not enabled");
            return Err(self.fault(token, message));
        }
        let args = self.arguments("call")?;
        self.node(ExprKind::Call(CallExpr { func, args }), token.start, self.last_end())
    }

    fn arguments(&mut self, _context: &str) -> Parsed<Vec<Expr>> {
        self.next();
        let mut args = Vec::new();
        if self.accept(Tok::RightParen) {
            return Ok(args);
        }
        loop {
            args.push(self.nested(|p| p.expr(0))?);
            let separator = self.peek();
            if self.accept(Tok::RightParen) {
                return Ok(args);
            }
            if !self.accept(Tok::Comma) {
                return Err(self.unexpected("", ""));
            }
            if self.peek().tok == Tok::RightParen {
                return Err(self.fault(separator, "trailing commas not allowed in function call args"));
            }
        }
    }

    fn aggregation(&mut self, op: AggOp) -> Parsed<Expr> {
        let token = self.next();
        if matches!(op, AggOp::Limitk | AggOp::LimitRatio) && !self.options.experimental_functions {
            let message = format!(
                "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                op.as_str()
            );
            return Err(self.fault(token, message));
        }
        let mut modifier = self.aggregate_modifier()?;
        if self.peek().tok != Tok::LeftParen {
            return Err(self.unexpected("aggregation", ""));
        }
        let args = self.arguments("aggregation")?;
        if modifier.is_none() {
            modifier = self.aggregate_modifier()?;
        }
        let (without, grouping) = modifier.unwrap_or_default();
        let span = Span::bytes(token.start, self.last_end());
        if args.is_empty() {
            return Err(self.fault_at(span, "no arguments for aggregate expression provided"));
        }
        let wanted = 1 + usize::from(op.has_param());
        if args.len() != wanted {
            let got = args.len();
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {got}"
            );
            return Err(self.fault_at(span, message));
        }
        let mut args = args.into_iter();
        let param = if op.has_param() { args.next() } else { None };
        let Some(expr) = args.next() else {
            return Err(self.fault_at(span, "no arguments for aggregate expression provided"));
        };
        let aggregate = AggregateExpr { op, expr, param, grouping, without };
        self.node(ExprKind::Aggregate(Box::new(aggregate)), span.start, span.end)
    }

    fn aggregate_modifier(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        let without = match self.peek().tok {
            Tok::Keyword(Kw::By) => false,
            Tok::Keyword(Kw::Without) => true,
            _ => return Ok(None),
        };
        self.next();
        Ok(Some((without, self.grouping_labels()?)))
    }

    /// `[5m]`, `[1h:5m]`
    fn bracket(&mut self, expr: Expr) -> Parsed<Expr> {
        let open = self.next();
        let range =
            self.duration_in_brackets("subquery or range selector", "number, duration, step(), or range()")?;
        if self.accept(Tok::RightBracket) {
            return self.matrix(expr, range, open);
        }
        if !self.accept(Tok::Colon) {
            return Err(self.unexpected("subquery or range", "\":\" or \"]\""));
        }
        let step =
            if self.peek().tok == Tok::RightBracket {
                None
            } else {
                Some(self.duration_in_brackets(
                    "subquery selector",
                    "number, duration, step(), range(), or \"]\"",
                )?)
            };
        if !self.accept(Tok::RightBracket) {
            return Err(self.unexpected("subquery selector", "\"]\""));
        }
        let start = expr.span.start;
        let subquery = SubqueryExpr { expr, range, step, offset: Duration::Fixed(0), at: None };
        self.node(ExprKind::Subquery(Box::new(subquery)), start, self.last_end())
    }

    fn matrix(&mut self, expr: Expr, range: Duration, open: Token) -> Parsed<Expr> {
        let brackets = Span::bytes(open.start, self.last_end());
        let ExprKind::Vector(v) = expr.kind else {
            return Err(self.fault_at(brackets, "ranges only allowed for vector selectors"));
        };
        if !v.offset.is_zero() {
            return Err(self.fault_at(brackets, "no offset modifiers allowed before range"));
        }
        if v.at.is_some() {
            return Err(self.fault_at(brackets, "no @ modifiers allowed before range"));
        }
        if v.edges != Edges::Plain {
            return Err(self.fault_at(brackets, "no anchored or smoothed modifiers allowed before range"));
        }
        let matrix = MatrixSelector { selector: *v, selector_span: expr.span, range };
        self.node(ExprKind::Matrix(Box::new(matrix)), expr.span.start, self.last_end())
    }

    fn offset(&mut self, mut expr: Expr) -> Parsed<Expr> {
        self.next();
        let value = self.duration_operand("offset", "number, duration, step(), or range()")?;
        let span = expr.span;
        let target = match &mut expr.kind {
            ExprKind::Vector(v) => &mut v.offset,
            ExprKind::Matrix(m) => &mut m.selector.offset,
            ExprKind::Subquery(s) => &mut s.offset,
            _ => {
                let message = "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
                return Err(self.fault_at(span, message));
            }
        };
        if !target.is_zero() {
            return Err(self.fault_at(span, "offset may not be set multiple times"));
        }
        *target = value;
        expr.span.end = self.last_end();
        Ok(expr)
    }

    fn at_modifier(&mut self, mut expr: Expr) -> Parsed<Expr> {
        self.next();
        let at = self.at_value()?;
        let span = expr.span;
        let target = match &mut expr.kind {
            ExprKind::Vector(v) => &mut v.at,
            ExprKind::Matrix(m) => &mut m.selector.at,
            ExprKind::Subquery(s) => &mut s.at,
            _ => {
                let message = "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
                return Err(self.fault_at(span, message));
            }
        };
        if target.is_some() {
            return Err(self.fault_at(span, "@ <timestamp> may not be set multiple times"));
        }
        *target = Some(at);
        expr.span.end = self.last_end();
        Ok(expr)
    }

    fn at_value(&mut self) -> Parsed<At> {
        let token = self.peek();
        if let Tok::Keyword(kw @ (Kw::Start | Kw::End)) = token.tok {
            self.next();
            if !(self.accept(Tok::LeftParen) && self.accept(Tok::RightParen)) {
                return Err(self.unexpected("@", "timestamp"));
            }
            return Ok(if kw == Kw::Start { At::Start } else { At::End });
        }
        let negative = match token.tok {
            Tok::Op(crate::syntax::ast::BinaryOp::Sub) => true,
            Tok::Op(crate::syntax::ast::BinaryOp::Add) => false,
            _ => {
                self.at = self.at.wrapping_sub(1);
                false
            }
        };
        self.at = self.at.wrapping_add(1);
        if !matches!(self.peek().tok, Tok::Number | Tok::Duration) {
            return Err(self.unexpected("@", "timestamp"));
        }
        let value = self.number_token()?.value;
        let seconds = if negative { -value } else { value };
        if !seconds.is_finite() || seconds.abs() >= i64::MAX as f64 / 1000.0 {
            let text = koios_model::format::float_f(seconds);
            return Err(self.fault(token, format!("timestamp out of bounds for @ modifier: {text}")));
        }
        Ok(At::Time((seconds * 1000.0).round() as i64))
    }

    fn edges(&mut self, mut expr: Expr, edges: Edges) -> Parsed<Expr> {
        let token = self.next();
        if !self.options.extended_range_selectors {
            let message =
                format!("{} modifier is experimental and not enabled", self.text(token).to_ascii_lowercase());
            return Err(self.fault(token, message));
        }
        let span = expr.span;
        let name = self.text(token).to_ascii_lowercase();
        let target = match &mut expr.kind {
            ExprKind::Vector(v) => &mut v.edges,
            ExprKind::Matrix(m) => &mut m.selector.edges,
            ExprKind::Subquery(_) => {
                return Err(self.fault_at(span, format!("{name} modifier is not supported for subqueries")));
            }
            _ => {
                let message = format!("{name} modifier not implemented");
                return Err(self.fault_at(span, message));
            }
        };
        match (*target, edges) {
            (Edges::Plain, _) => {}
            (a, b) if a == b => {
                return Err(self.fault_at(span, format!("{name} modifier may not be set multiple times")));
            }
            _ => return Err(self.fault_at(span, "anchored and smoothed modifiers cannot be used together")),
        }
        *target = edges;
        expr.span.end = self.last_end();
        Ok(expr)
    }
}

/// Keywords that may name a metric.
fn metric_keyword(kw: Kw) -> bool {
    !matches!(kw, Kw::Bool | Kw::On | Kw::Ignoring | Kw::GroupLeft | Kw::GroupRight)
}
