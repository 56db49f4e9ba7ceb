//! Operators and their modifiers.

use crate::syntax::ast::{BinaryExpr, BinaryOp, Cardinality, Expr, ExprKind, NumberLiteral, VectorMatching};
use crate::syntax::token::{Kw, Tok};

use super::{Parsed, Parser};

impl Parser<'_> {
    /// An expression of operators that bind at least as tight as `min`.
    pub(super) fn expr(&mut self, min: u8) -> Parsed<Expr> {
        let mut lhs = self.unary()?;
        loop {
            let Tok::Op(op) = self.peek().tok else {
                return Ok(lhs);
            };
            let strength = op.precedence();
            if strength < min {
                return Ok(lhs);
            }
            self.next();
            let return_bool = self.accept(Tok::Keyword(Kw::Bool));
            let matching = self.matching()?;
            let next_min = if op == BinaryOp::Pow { strength } else { strength + 1 };
            let rhs = self.nested(|p| p.expr(next_min))?;
            let (start, end) = (lhs.span.start, rhs.span.end);
            let binary = BinaryExpr { op, lhs, rhs, matching: Some(matching), return_bool };
            lhs = self.node(ExprKind::Binary(Box::new(binary)), start, end)?;
        }
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let token = self.peek();
        let negative = match token.tok {
            Tok::Op(BinaryOp::Sub) => true,
            Tok::Op(BinaryOp::Add) => false,
            _ => return self.operand(),
        };
        self.next();
        // A sign binds like `*`, so only `^` goes before it.
        let inner = self.nested(|p| p.expr(BinaryOp::Pow.precedence()))?;
        let end = inner.span.end;
        if let ExprKind::Number(n) = inner.kind {
            let value = if negative { -n.value } else { n.value };
            return self.node(ExprKind::Number(NumberLiteral { value, ..n }), token.start, end);
        }
        self.node(ExprKind::Unary(negative, Box::new(inner)), token.start, end)
    }

    /// `on (…) group_left (…) fill (…)` and relatives.
    fn matching(&mut self) -> Parsed<VectorMatching> {
        let mut m = VectorMatching::default();
        let has_labels = match self.peek().tok {
            Tok::Keyword(Kw::On) => {
                m.on = true;
                true
            }
            Tok::Keyword(Kw::Ignoring) => true,
            _ => false,
        };
        if has_labels {
            self.next();
            m.labels = self.grouping_labels()?;
            let card = match self.peek().tok {
                Tok::Keyword(Kw::GroupLeft) => Some(Cardinality::ManyToOne),
                Tok::Keyword(Kw::GroupRight) => Some(Cardinality::OneToMany),
                _ => None,
            };
            if let Some(card) = card {
                self.next();
                m.card = card;
                if self.peek().tok == Tok::LeftParen {
                    m.include = self.include_labels()?;
                }
            }
        }
        self.fills(&mut m)?;
        Ok(m)
    }

    /// The labels after `group_left`; an operand in parentheses may stand there instead.
    fn include_labels(&mut self) -> Parsed<Vec<String>> {
        self.grouping_labels()
    }

    fn fills(&mut self, m: &mut VectorMatching) -> Parsed<()> {
        loop {
            let token = self.peek();
            let Tok::Keyword(kw @ (Kw::Fill | Kw::FillLeft | Kw::FillRight)) = token.tok else {
                return Ok(());
            };
            if !self.options.fill_modifiers {
                return Err(self.fault(token, "binop fill modifiers are experimental and not enabled"));
            }
            self.next();
            self.next();
            let negative = match self.peek().tok {
                Tok::Op(BinaryOp::Sub) => Some(true),
                Tok::Op(BinaryOp::Add) => Some(false),
                _ => None,
            };
            if negative.is_some() {
                self.next();
            }
            if !matches!(self.peek().tok, Tok::Number | Tok::Duration) {
                return Err(self.unexpected("fill modifier", "number"));
            }
            let mut n = self.number_token()?;
            if negative == Some(true) {
                n.value = -n.value;
            }
            if !self.accept(Tok::RightParen) {
                return Err(self.unexpected("fill modifier", "\")\""));
            }
            if kw != Kw::FillRight {
                m.fill_left = Some(n);
            }
            if kw != Kw::FillLeft {
                m.fill_right = Some(n);
            }
        }
    }
}
