//! The context-sensitive lexer.
//!
//! Runs over the whole input first: what a character means depends on open braces and brackets only. A
//! fault ends the token list with an error token, so that an earlier syntax error is still reported first.

use koios_model::format::go_quote;

use super::ast::BinaryOp;
use super::token::{Kw, Tok, Token, keyword};

/// All tokens, closed by `Eof` or `Error`, and the message of the error.
pub(crate) struct Lexed {
    pub tokens: Vec<Token>,
    pub error: String,
}

struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    start: usize,
    parens: usize,
    bracket_open: bool,
    got_colon: bool,
    in_braces: bool,
    tokens: Vec<Token>,
}

/// Splits `input` into tokens.
pub(crate) fn lex(input: &str) -> Lexed {
    let mut lexer = Lexer {
        input,
        pos: 0,
        start: 0,
        parens: 0,
        bracket_open: false,
        got_colon: false,
        in_braces: false,
        tokens: Vec::new(),
    };
    let error = match lexer.run() {
        Ok(()) => String::new(),
        Err(message) => {
            let end = lexer.pos.max(lexer.start);
            lexer.tokens.push(Token { tok: Tok::Error, start: lexer.start, end });
            message
        }
    };
    Lexed { tokens: lexer.tokens, error }
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<(), String> {
        loop {
            self.skip_blank();
            self.start = self.pos;
            let Some(c) = self.next() else {
                return self.finish();
            };
            if self.in_braces { self.inside_braces(c)? } else { self.statement(c)? }
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        if self.in_braces {
            return Err("unexpected end of input inside braces".to_owned());
        }
        if self.parens > 0 {
            return Err("unclosed left parenthesis".to_owned());
        }
        if self.bracket_open {
            return Err("unclosed left bracket".to_owned());
        }
        self.emit(Tok::Eof);
        Ok(())
    }

    fn statement(&mut self, c: char) -> Result<(), String> {
        match c {
            ',' => self.emit(Tok::Comma),
            '*' => self.emit(Tok::Op(BinaryOp::Mul)),
            '/' => self.emit(Tok::Op(BinaryOp::Div)),
            '%' => self.emit(Tok::Op(BinaryOp::Mod)),
            '+' => self.emit(Tok::Op(BinaryOp::Add)),
            '-' => self.emit(Tok::Op(BinaryOp::Sub)),
            '^' => self.emit(Tok::Op(BinaryOp::Pow)),
            '@' => self.emit(Tok::At),
            '=' if self.accept('=') => self.emit(Tok::Op(BinaryOp::Eq)),
            '=' if self.peek() == Some('~') => {
                return Err("unexpected character after '=': '~'".to_owned());
            }
            '=' => self.emit(Tok::Assign),
            '!' if self.accept('=') => self.emit(Tok::Op(BinaryOp::Ne)),
            '!' => return Err(format!("unexpected character after '!': {}", self.quoted_next())),
            '<' if self.accept('=') => self.emit(Tok::Op(BinaryOp::Le)),
            '<' if self.accept('/') => self.emit(Tok::Op(BinaryOp::TrimUpper)),
            '<' => self.emit(Tok::Op(BinaryOp::Lt)),
            '>' if self.accept('=') => self.emit(Tok::Op(BinaryOp::Ge)),
            '>' if self.accept('/') => self.emit(Tok::Op(BinaryOp::TrimLower)),
            '>' => self.emit(Tok::Op(BinaryOp::Gt)),
            '"' | '\'' | '`' => self.string(c)?,
            '(' => {
                self.parens += 1;
                self.emit(Tok::LeftParen);
            }
            ')' if self.parens == 0 => return Err("unexpected right parenthesis ')'".to_owned()),
            ')' => {
                self.parens -= 1;
                self.emit(Tok::RightParen);
            }
            '{' => {
                self.in_braces = true;
                self.emit(Tok::LeftBrace);
            }
            '[' if self.bracket_open => return Err("unexpected left bracket '['".to_owned()),
            '[' => {
                self.bracket_open = true;
                self.got_colon = false;
                self.emit(Tok::LeftBracket);
            }
            ']' if !self.bracket_open => return Err("unexpected right bracket ']'".to_owned()),
            ']' => {
                self.bracket_open = false;
                self.emit(Tok::RightBracket);
            }
            ':' if self.bracket_open && self.got_colon => return Err("unexpected colon ':'".to_owned()),
            ':' if self.bracket_open => {
                self.got_colon = true;
                self.emit(Tok::Colon);
            }
            c if c.is_ascii_digit() || (c == '.' && self.peek().is_some_and(|n| n.is_ascii_digit())) => {
                self.number()?;
            }
            c if c.is_ascii_alphabetic() || c == '_' || c == ':' => self.word(),
            c => return Err(format!("unexpected character: {}", quoted_char(c))),
        }
        Ok(())
    }

    fn inside_braces(&mut self, c: char) -> Result<(), String> {
        match c {
            ',' => self.emit(Tok::Comma),
            '"' | '\'' | '`' => self.string(c)?,
            '=' if self.accept('~') => self.emit(Tok::EqRegex),
            '=' => self.emit(Tok::Assign),
            '!' if self.accept('~') => self.emit(Tok::NeRegex),
            '!' if self.accept('=') => self.emit(Tok::Op(BinaryOp::Ne)),
            '!' => {
                return Err(format!("unexpected character after '!' inside braces: {}", self.quoted_next()));
            }
            '}' => {
                self.in_braces = false;
                self.emit(Tok::RightBrace);
            }
            '{' => return Err("unexpected left brace '{'".to_owned()),
            c if c.is_ascii_alphabetic() || c == '_' => {
                self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
                self.emit(Tok::Word(false));
            }
            c => return Err(format!("unexpected character inside braces: {}", quoted_char(c))),
        }
        Ok(())
    }

    fn word(&mut self) {
        let colons = !self.bracket_open;
        self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || (c == ':' && colons));
        let text = &self.input[self.start..self.pos];
        let followed_by_paren = self.input[self.pos..].trim_start().starts_with('(');
        let tok = match keyword(text) {
            // These are names unless they are used like a function.
            Some(Tok::Keyword(Kw::Fill | Kw::FillLeft | Kw::FillRight)) if !followed_by_paren => {
                Tok::Word(false)
            }
            Some(tok) => tok,
            None => Tok::Word(text.contains(':')),
        };
        self.emit(tok);
    }

    /// A number, or a duration such as `1h30m`.
    fn number(&mut self) -> Result<(), String> {
        self.pos = self.start;
        let rest = &self.input[self.start..];
        let word = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let is_duration = super::literal::is_duration(&rest[..word]);
        let len = if is_duration { word } else { number_length(rest) };
        self.pos = self.start + len;
        let joined = self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        if len == 0 || (joined && !is_duration) {
            let text = go_quote(bad_number(rest));
            return Err(format!("bad number or duration syntax: {text}"));
        }
        self.emit(if is_duration { Tok::Duration } else { Tok::Number });
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), String> {
        let raw = quote == '`';
        loop {
            match self.next() {
                Some(c) if c == quote => break,
                Some('\\') if !raw => {
                    if self.next().is_none() {
                        return Err("escape sequence not terminated".to_owned());
                    }
                }
                Some('\n') if !raw => return Err("unterminated quoted string".to_owned()),
                Some(_) => {}
                None if raw => return Err("unterminated raw string".to_owned()),
                None => return Err("unterminated quoted string".to_owned()),
            }
        }
        self.emit(Tok::String);
        Ok(())
    }

    fn skip_blank(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
            if self.peek() != Some('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn emit(&mut self, tok: Tok) {
        self.tokens.push(Token { tok, start: self.start, end: self.pos });
    }

    fn peek(&self) -> Option<char> {
        self.input[self.pos..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, c: char) -> bool {
        let yes = self.peek() == Some(c);
        if yes {
            self.pos += c.len_utf8();
        }
        yes
    }

    fn take_while(&mut self, f: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&f) {
            self.next();
        }
    }

    fn quoted_next(&self) -> String {
        self.peek().map_or_else(|| "end of input".to_owned(), quoted_char)
    }
}

/// As much of a malformed number as Prometheus shows: up to the first character that fits nothing.
fn bad_number(text: &str) -> &str {
    let unit = |b: Option<&u8>| b.is_some_and(|b| b"smhdwy".contains(b));
    let b = text.as_bytes();
    let mut n = number_length(text);
    while unit(b.get(n)) {
        n += 1 + usize::from(b.get(n + 1) == Some(&b's'));
        let digits = b[n..].iter().take_while(|c| c.is_ascii_digit()).count();
        n += digits;
        if digits == 0 {
            n += text[n..].chars().next().map_or(0, char::len_utf8);
            break;
        }
    }
    &text[..n]
}

/// Bytes at the start of `text` that form a number: decimal with fraction and exponent, or hexadecimal.
pub(crate) fn number_length(text: &str) -> usize {
    let b = text.as_bytes();
    let run = |from: usize, f: &dyn Fn(u8) -> bool| b[from..].iter().take_while(|c| f(**c)).count();
    if b.len() > 2 && b[0] == b'0' && (b[1] | 0x20) == b'x' {
        let n = run(2, &|c| c.is_ascii_hexdigit() || c == b'_');
        if n > 0 {
            return 2 + n;
        }
    }
    let digit = |c: u8| c.is_ascii_digit() || c == b'_';
    let mut n = run(0, &digit);
    if b.get(n) == Some(&b'.') {
        n += 1 + run(n + 1, &digit);
    }
    if b.get(n).is_some_and(|c| (c | 0x20) == b'e') {
        let sign = usize::from(b.get(n + 1).is_some_and(|c| matches!(c, b'+' | b'-')));
        let digits = run((n + 1 + sign).min(b.len()), &digit);
        if digits > 0 {
            n += 1 + sign + digits;
        }
    }
    n
}

/// A character as Go's `%q` writes it.
fn quoted_char(c: char) -> String {
    let text = go_quote(&c.to_string());
    let inner = &text[1..text.len() - 1];
    match inner {
        "\\\"" => "'\"'".to_owned(),
        "'" => "'\\''".to_owned(),
        _ => format!("'{inner}'"),
    }
}
