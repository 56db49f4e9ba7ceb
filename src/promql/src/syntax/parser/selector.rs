//! Vector selectors, label matchers and lists of label names.

use koios_model::{METRIC_NAME, MatchType, Matcher};

use crate::syntax::ast::{BinaryOp, Duration, Edges, Expr, ExprKind, VectorSelector};
use crate::syntax::literal::unquote;
use crate::syntax::token::{Tok, Token};

use super::{Parsed, Parser};

impl Parser<'_> {
    /// A selector; the current token is the metric name or the left brace.
    pub(super) fn vector_selector(&mut self, name: Option<Token>) -> Parsed<Expr> {
        let start = self.peek().start;
        let mut matchers = Vec::new();
        let name = match name {
            Some(token) => {
                self.next();
                self.text(token).to_owned()
            }
            None => String::new(),
        };
        if self.accept(Tok::LeftBrace) {
            self.matchers(&mut matchers)?;
        }
        if !name.is_empty() {
            matchers.push(Matcher::equal(METRIC_NAME, name.clone()));
        }
        let selector =
            VectorSelector { name, matchers, offset: Duration::Fixed(0), at: None, edges: Edges::Plain };
        self.node(ExprKind::Vector(Box::new(selector)), start, self.last_end())
    }

    fn matchers(&mut self, out: &mut Vec<Matcher>) -> Parsed<()> {
        if self.accept(Tok::RightBrace) {
            return Ok(());
        }
        loop {
            let m = self.matcher()?;
            out.push(m);
            if self.accept(Tok::RightBrace) {
                return Ok(());
            }
            if !self.accept(Tok::Comma) {
                return Err(self.unexpected("label matching", "\",\" or \"}\""));
            }
            if self.accept(Tok::RightBrace) {
                return Ok(());
            }
        }
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let token = self.peek();
        let name = match token.tok {
            Tok::Word(_) => self.text(token).to_owned(),
            Tok::String => self.unquoted(token)?,
            _ => return Err(self.unexpected("label matching", "identifier or \"}\"")),
        };
        self.next();
        let kind = match self.peek().tok {
            Tok::Assign => MatchType::Equal,
            Tok::Op(BinaryOp::Ne) => MatchType::NotEqual,
            Tok::EqRegex => MatchType::Regex,
            Tok::NeRegex => MatchType::NotRegex,
            Tok::Comma | Tok::RightBrace if token.tok == Tok::String => {
                return Ok(Matcher::equal(METRIC_NAME, name));
            }
            _ if token.tok == Tok::String => {
                return Err(self.unexpected("label matching", "\",\" or \"}\""));
            }
            _ => return Err(self.unexpected("label matching", "label matching operator")),
        };
        self.next();
        let value = self.peek();
        if value.tok != Tok::String {
            return Err(self.unexpected("label matching", "string"));
        }
        self.next();
        let text = self.unquoted(value)?;
        Matcher::new(kind, name, text).map_err(|e| {
            let span = crate::syntax::ast::Span::bytes(token.start, value.end);
            self.fault_at(span, e.to_string())
        })
    }

    fn unquoted(&self, token: Token) -> Parsed<String> {
        unquote(self.text(token)).map_err(|e| self.fault(token, format!("error unquoting string: {e}")))
    }

    /// `(a, "b", c)`
    pub(super) fn grouping_labels(&mut self) -> Parsed<Vec<String>> {
        if !self.accept(Tok::LeftParen) {
            return Err(self.unexpected("grouping opts", "\"(\""));
        }
        let mut labels = Vec::new();
        if self.accept(Tok::RightParen) {
            return Ok(labels);
        }
        loop {
            labels.push(self.grouping_label()?);
            if self.accept(Tok::RightParen) {
                return Ok(labels);
            }
            if !self.accept(Tok::Comma) {
                return Err(self.unexpected("grouping opts", "\",\" or \")\""));
            }
            if self.accept(Tok::RightParen) {
                return Ok(labels);
            }
        }
    }

    fn grouping_label(&mut self) -> Parsed<String> {
        let token = self.peek();
        let name = match token.tok {
            Tok::String => {
                let name = self.unquoted(token)?;
                if name.is_empty() {
                    let message = format!("invalid label name for grouping: {}", self.text(token));
                    return Err(self.fault(token, message));
                }
                name
            }
            Tok::Word(false) | Tok::Keyword(_) | Tok::Agg(_) => self.text(token).to_owned(),
            Tok::Number | Tok::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2)
                if self.text(token).starts_with(|c: char| c.is_ascii_alphabetic()) =>
            {
                self.text(token).to_owned()
            }
            _ => return Err(self.unexpected("grouping opts", "label")),
        };
        self.next();
        Ok(name)
    }
}
