//! The parser: recursive descent with operator precedence.
//!
//! Stops at the first fault and reports it as Prometheus words it, with line and column. Bounds: nesting of
//! recursion and height of the tree; a query beyond them is refused, never overflows the stack.

mod binary;
mod duration;
mod primary;
mod selector;

use koios_model::{Code, Coded, Matcher};

use super::ast::{Expr, ExprKind, Height, Span};
use super::lexer::lex;
use super::token::{Tok, Token};

/// How deep parentheses, calls and unary operators may nest.
pub(crate) const NESTING_MAX: u32 = 200;
/// How high a tree may grow, which also bounds chains such as `a + a + …`.
pub(crate) const HEIGHT_MAX: u32 = 500;

/// A query that is not valid PromQL. `Display` is `line:col: parse error: message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: parse error: {message}", position_text(query, *start))]
pub struct ParseError {
    /// First byte the message is about.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// What is wrong.
    pub message: String,
    query: String,
}

impl Coded for ParseError {
    fn code(&self) -> Code {
        Code::BadData
    }
}

/// `line:col` of a byte position, both from 1, columns in bytes.
pub(crate) fn position_text(query: &str, at: usize) -> String {
    let before = &query.as_bytes()[..at.min(query.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let col = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
    format!("{line}:{col}")
}

/// Which guarded parts of the language are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParserOptions {
    /// Experimental functions and aggregators (`promql-experimental-functions`).
    pub experimental_functions: bool,
    /// Arithmetic in durations (`promql-duration-expr`).
    pub duration_expressions: bool,
    /// `anchored`, `smoothed` (`promql-extended-range-selectors`).
    pub extended_range_selectors: bool,
    /// `fill` modifiers (`promql-binop-fill-modifiers`).
    pub fill_modifiers: bool,
}

impl Default for ParserOptions {
    /// Everything allowed.
    fn default() -> Self {
        Self {
            experimental_functions: true,
            duration_expressions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
        }
    }
}

impl ParserOptions {
    /// What Prometheus allows without any feature flag.
    pub fn stable() -> Self {
        Self {
            experimental_functions: false,
            duration_expressions: false,
            extended_range_selectors: false,
            fill_modifiers: false,
        }
    }
}

/// Parses a query with every part of the language allowed.
///
/// # Errors
/// The first fault.
pub fn parse(query: &str) -> Result<Expr, ParseError> {
    parse_with(query, &ParserOptions::default())
}

/// Parses and checks a query.
///
/// # Errors
/// The first fault.
pub fn parse_with(query: &str, options: &ParserOptions) -> Result<Expr, ParseError> {
    let mut p = Parser::new(query, *options);
    let levels = p.levels();
    let parsed = crate::stack::with_room(levels, move || p.whole());
    let nowhere = |message| Fault { span: Span::default(), message };
    parsed.map_err(nowhere).and_then(|r| r).map_err(|f| f.located(query))
}

/// Parses a series selector as `match[]` takes it.
///
/// # Errors
/// The first fault.
pub fn parse_selector(query: &str) -> Result<Vec<Matcher>, ParseError> {
    let expr = parse(query)?;
    match expr.kind {
        ExprKind::Vector(v) => Ok(v.matchers),
        _ => {
            let message = format!("expected type instant vector selector, got {}", kind_name(&expr));
            Err(Fault { span: expr.span, message }.located(query))
        }
    }
}

fn kind_name(expr: &Expr) -> &'static str {
    match expr.kind {
        ExprKind::Matrix(_) | ExprKind::Subquery(_) => "range vector",
        ExprKind::Number(_) => "number",
        ExprKind::String(_) => "string",
        _ => "expression",
    }
}

/// A fault before it knows the query.
#[derive(Debug)]
pub(crate) struct Fault {
    pub span: Span,
    pub message: String,
}

impl Fault {
    pub fn located(self, query: &str) -> ParseError {
        ParseError {
            start: self.span.start,
            end: self.span.end,
            message: self.message,
            query: query.to_owned(),
        }
    }
}

pub(crate) type Parsed<T> = Result<T, Fault>;

pub(crate) struct Parser<'a> {
    input: &'a str,
    tokens: Vec<Token>,
    lex_error: String,
    line_starts: Vec<usize>,
    at: usize,
    depth: u32,
    options: ParserOptions,
}

impl<'a> Parser<'a> {
    fn new(input: &'a str, options: ParserOptions) -> Self {
        let lexed = lex(input);
        let breaks = input.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let line_starts = std::iter::once(0).chain(breaks).collect();
        Self { input, tokens: lexed.tokens, lex_error: lexed.error, line_starts, at: 0, depth: 0, options }
    }

    /// An upper bound of how deep parsing recurses.
    fn levels(&self) -> usize {
        let deeper = |t: &&Token| matches!(t.tok, Tok::LeftParen | Tok::LeftBracket | Tok::Op(_));
        self.tokens.iter().filter(deeper).take(NESTING_MAX as usize + HEIGHT_MAX as usize).count()
    }

    fn whole(&mut self) -> Parsed<Expr> {
        if self.peek().tok == Tok::Eof {
            return Err(self.fault(self.peek(), "no expression found in input"));
        }
        let mut expr = self.expr(0)?;
        if self.peek().tok != Tok::Eof {
            return Err(self.unexpected("", ""));
        }
        super::check::check(&mut expr, self.input)?;
        Ok(expr)
    }

    fn peek(&self) -> Token {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> Token {
        let last = self.tokens.len() - 1;
        self.tokens[(self.at + ahead).min(last)]
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn accept(&mut self, tok: Tok) -> bool {
        let yes = self.peek().tok == tok;
        self.at += usize::from(yes);
        yes
    }

    fn text(&self, token: Token) -> &'a str {
        &self.input[token.start..token.end]
    }

    /// End of the token consumed last.
    fn last_end(&self) -> usize {
        self.tokens[self.at.saturating_sub(1).min(self.tokens.len() - 1)].end
    }

    fn fault(&self, token: Token, message: impl Into<String>) -> Fault {
        self.fault_at(Span::bytes(token.start, token.end), message)
    }

    fn fault_at(&self, span: Span, message: impl Into<String>) -> Fault {
        Fault { span, message: message.into() }
    }

    /// The next token does not fit; the lexer's own complaint goes first.
    fn unexpected(&self, context: &str, expected: &str) -> Fault {
        let token = self.peek();
        if token.tok == Tok::Error {
            return self.fault(token, self.lex_error.clone());
        }
        let mut message = format!("unexpected {}", token.describe(self.input));
        if !context.is_empty() {
            message.push_str(&format!(" in {context}"));
        }
        if !expected.is_empty() {
            message.push_str(&format!(", expected {expected}"));
        }
        self.fault(token, message)
    }

    /// Runs `f` one level deeper.
    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= NESTING_MAX {
            let message = format!("expression is nested deeper than {NESTING_MAX} levels");
            return Err(self.fault(self.peek(), message));
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// A byte range with its line and column.
    fn span(&self, start: usize, end: usize) -> Span {
        let line = self.line_starts.partition_point(|s| *s <= start);
        let col = start - self.line_starts[line - 1] + 1;
        Span { start, end, line: line as u32, col: col as u32 }
    }

    /// Makes a node and bounds the height of the tree.
    fn node(&self, kind: ExprKind, start: usize, end: usize) -> Parsed<Expr> {
        let mut expr = Expr { kind, span: self.span(start, end), height: Height(0) };
        let height = 1 + expr.children().iter().map(|c| c.height.0).max().unwrap_or(0);
        if height > HEIGHT_MAX {
            let message = format!("expression has more than {HEIGHT_MAX} levels of operators");
            return Err(self.fault_at(expr.span, message));
        }
        expr.height = Height(height);
        Ok(expr)
    }
}
