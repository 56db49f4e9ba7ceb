//! Durations and arithmetic on them.
//!
//! In brackets any expression may stand; after `offset` only one operand, so that `x offset 1m + 2` adds 2
//! to the vector.

use crate::syntax::ast::{BinaryOp, Duration, DurationExpr, DurationKind, NumberLiteral, Span};
use crate::syntax::token::{Kw, Tok};

use super::{Fault, Parsed, Parser};

impl Parser<'_> {
    /// The duration of a range or of a subquery step; must be positive.
    pub(super) fn duration_in_brackets(&mut self, context: &str, expected: &str) -> Parsed<Duration> {
        if !self.starts_duration() {
            return Err(self.unexpected(context, expected));
        }
        let expr = self.duration_expr(0, context, expected)?;
        let span = expr.span;
        let value = self.simplified(expr)?;
        if matches!(value, Duration::Fixed(ms) if ms <= 0) {
            return Err(self.fault_at(span, "duration must be greater than 0"));
        }
        Ok(value)
    }

    /// The duration after `offset`.
    pub(super) fn duration_operand(&mut self, context: &str, expected: &str) -> Parsed<Duration> {
        let token = self.peek();
        let negative = match token.tok {
            Tok::Op(BinaryOp::Sub) => Some(true),
            Tok::Op(BinaryOp::Add) => Some(false),
            _ => None,
        };
        if negative.is_some() {
            self.next();
        }
        if !self.starts_duration() || matches!(self.peek().tok, Tok::Op(_)) {
            return Err(self.unexpected(context, expected));
        }
        let mut expr = self.duration_primary(context, expected)?;
        if let Some(negative) = negative {
            let span = Span::bytes(token.start, expr.span.end);
            expr = signed(expr, negative, span);
        }
        self.simplified(expr)
    }

    fn starts_duration(&self) -> bool {
        let word_call =
            |t: Tok| matches!(t, Tok::Keyword(Kw::Step | Kw::Range)) || matches!(t, Tok::Word(false));
        let tok = self.peek().tok;
        matches!(tok, Tok::Number | Tok::Duration | Tok::LeftParen)
            || matches!(tok, Tok::Op(BinaryOp::Add | BinaryOp::Sub))
            || (word_call(tok) && self.peek_at(1).tok == Tok::LeftParen)
    }

    fn duration_expr(&mut self, min: u8, context: &str, expected: &str) -> Parsed<DurationExpr> {
        let mut lhs = self.duration_unary(context, expected)?;
        let mut links = 0;
        loop {
            let op = match self.peek().tok {
                Tok::Op(op) if op.precedence() >= 4 && op != BinaryOp::Atan2 => op,
                _ => return Ok(lhs),
            };
            if op.precedence() < min {
                return Ok(lhs);
            }
            links += 1;
            if links > super::NESTING_MAX {
                return Err(self.fault(self.peek(), "duration expression is too long"));
            }
            self.next();
            let next_min = op.precedence() + u8::from(op != BinaryOp::Pow);
            let rhs = self.nested(|p| p.duration_expr(next_min, context, expected))?;
            let span = Span::bytes(lhs.span.start, rhs.span.end);
            let kind = DurationKind::Binary(op, Box::new(lhs), Box::new(rhs));
            lhs = DurationExpr { kind, wrapped: false, span };
        }
    }

    fn duration_unary(&mut self, context: &str, expected: &str) -> Parsed<DurationExpr> {
        let token = self.peek();
        let negative = match token.tok {
            Tok::Op(BinaryOp::Sub) => true,
            Tok::Op(BinaryOp::Add) => false,
            _ => return self.duration_primary(context, expected),
        };
        self.next();
        let pow = BinaryOp::Pow.precedence();
        let inner = self.nested(|p| p.duration_expr(pow, context, expected))?;
        let span = Span::bytes(token.start, inner.span.end);
        Ok(signed(inner, negative, span))
    }

    fn duration_primary(&mut self, context: &str, expected: &str) -> Parsed<DurationExpr> {
        let token = self.peek();
        let kind = match token.tok {
            Tok::Number | Tok::Duration => DurationKind::Number(self.number_token()?),
            Tok::LeftParen => {
                self.next();
                let mut inner = self.nested(|p| p.duration_expr(0, context, expected))?;
                if !self.accept(Tok::RightParen) {
                    return Err(self.unexpected(context, "\")\""));
                }
                inner.wrapped = true;
                inner.span = Span::bytes(token.start, self.last_end());
                return Ok(inner);
            }
            Tok::Keyword(Kw::Step | Kw::Range) | Tok::Word(false)
                if self.peek_at(1).tok == Tok::LeftParen =>
            {
                self.duration_call(context, expected)?
            }
            _ => return Err(self.unexpected(context, expected)),
        };
        Ok(DurationExpr { kind, wrapped: false, span: Span::bytes(token.start, self.last_end()) })
    }

    fn duration_call(&mut self, context: &str, expected: &str) -> Parsed<DurationKind> {
        let token = self.next();
        let name = self.text(token).to_ascii_lowercase();
        if !matches!(name.as_str(), "step" | "range" | "min_of" | "max_of") {
            self.at -= 1;
            return Err(self.unexpected(context, expected));
        }
        if !self.options.duration_expressions {
            return Err(self.duration_disabled(Span::bytes(token.start, token.end)));
        }
        self.next();
        if name == "step" || name == "range" {
            if !self.accept(Tok::RightParen) {
                return Err(self.unexpected(context, "\")\""));
            }
            return Ok(if name == "step" { DurationKind::Step } else { DurationKind::Range });
        }
        let a = self.nested(|p| p.duration_expr(0, context, expected))?;
        if !self.accept(Tok::Comma) {
            return Err(self.unexpected(context, "\",\""));
        }
        let b = self.nested(|p| p.duration_expr(0, context, expected))?;
        if !self.accept(Tok::RightParen) {
            return Err(self.unexpected(context, "\")\""));
        }
        let (a, b) = (Box::new(a), Box::new(b));
        Ok(if name == "min_of" { DurationKind::Min(a, b) } else { DurationKind::Max(a, b) })
    }

    fn duration_disabled(&self, span: Span) -> Fault {
        self.fault_at(span, "experimental duration expression is not enabled")
    }

    /// A plain number becomes a fixed duration.
    fn simplified(&self, expr: DurationExpr) -> Parsed<Duration> {
        if let (DurationKind::Number(n), false) = (&expr.kind, expr.wrapped) {
            return duration_from_seconds(n.value)
                .map(Duration::Fixed)
                .ok_or_else(|| self.fault_at(expr.span, "duration out of range"));
        }
        if !self.options.duration_expressions {
            return Err(self.duration_disabled(expr.span));
        }
        Ok(Duration::Expr(Box::new(expr)))
    }
}

fn signed(inner: DurationExpr, negative: bool, span: Span) -> DurationExpr {
    let kind = match inner.kind {
        DurationKind::Number(n) if !inner.wrapped => {
            let value = if negative { -n.value } else { n.value };
            DurationKind::Number(NumberLiteral { value, ..n })
        }
        _ => DurationKind::Unary(negative, Box::new(inner)),
    };
    DurationExpr { kind, wrapped: false, span }
}

/// Seconds to milliseconds, `None` beyond what a duration can hold (292 years).
pub(crate) fn duration_from_seconds(seconds: f64) -> Option<i64> {
    const SECONDS_MAX: f64 = (i64::MAX / 1_000_000_000) as f64;
    (seconds.is_finite() && seconds.abs() <= SECONDS_MAX).then(|| (seconds * 1000.0).round() as i64)
}
