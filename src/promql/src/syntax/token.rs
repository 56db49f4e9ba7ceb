//! Tokens and how error messages call them.

use super::ast::{AggOp, BinaryOp};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tok {
    Eof,
    /// The index of a lexer message.
    Error,
    /// Identifier; `true` when it contains a colon.
    Word(bool),
    Keyword(Kw),
    Agg(AggOp),
    Op(BinaryOp),
    String,
    Number,
    Duration,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    At,
    /// `=` alone
    Assign,
    /// `=~`
    EqRegex,
    /// `!~`
    NeRegex,
}

/// Words with a meaning of their own in some places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kw {
    Offset,
    Smoothed,
    Anchored,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Bool,
    Start,
    End,
    Step,
    Range,
    Fill,
    FillLeft,
    FillRight,
}

/// A token with its byte range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub tok: Tok,
    pub start: usize,
    pub end: usize,
}

/// The keyword, operator or aggregator that a word is, regardless of case.
pub(crate) fn keyword(word: &str) -> Option<Tok> {
    let lower = word.to_ascii_lowercase();
    let kw = match lower.as_str() {
        "offset" => Kw::Offset,
        "smoothed" => Kw::Smoothed,
        "anchored" => Kw::Anchored,
        "by" => Kw::By,
        "without" => Kw::Without,
        "on" => Kw::On,
        "ignoring" => Kw::Ignoring,
        "group_left" => Kw::GroupLeft,
        "group_right" => Kw::GroupRight,
        "bool" => Kw::Bool,
        "start" => Kw::Start,
        "end" => Kw::End,
        "step" => Kw::Step,
        "range" => Kw::Range,
        "fill" => Kw::Fill,
        "fill_left" => Kw::FillLeft,
        "fill_right" => Kw::FillRight,
        "and" => return Some(Tok::Op(BinaryOp::And)),
        "or" => return Some(Tok::Op(BinaryOp::Or)),
        "unless" => return Some(Tok::Op(BinaryOp::Unless)),
        "atan2" => return Some(Tok::Op(BinaryOp::Atan2)),
        "inf" | "nan" => return Some(Tok::Number),
        other => return AggOp::from_name(other).map(Tok::Agg),
    };
    Some(Tok::Keyword(kw))
}

impl Token {
    /// The name that messages use: `identifier "foo"`, `<op:+>`, `end of input`, …
    pub fn describe(&self, input: &str) -> String {
        let text = &input[self.start..self.end];
        match self.tok {
            Tok::Eof => "end of input".to_owned(),
            Tok::Error => "error".to_owned(),
            Tok::Word(false) => format!("identifier {}", quoted(text)),
            Tok::Word(true) => format!("metric identifier {}", quoted(text)),
            Tok::Keyword(_) => format!("<{text}>"),
            Tok::Agg(_) => format!("<aggr:{text}>"),
            Tok::Op(_) | Tok::EqRegex | Tok::NeRegex => format!("<op:{text}>"),
            Tok::Assign => "<op:=>".to_owned(),
            Tok::String => format!("string {}", shortened(text)),
            Tok::Number => format!("number {}", shortened(text)),
            Tok::Duration => format!("duration {}", shortened(text)),
            Tok::At => "<op:@>".to_owned(),
            _ => quoted(text),
        }
    }
}

fn quoted(text: &str) -> String {
    koios_model::format::go_quote(text)
}

/// Long texts are cut after ten characters.
fn shortened(text: &str) -> String {
    if text.len() <= 10 {
        return quoted(text);
    }
    let cut: String = text.chars().take(10).collect();
    format!("{}...", quoted(&cut))
}
