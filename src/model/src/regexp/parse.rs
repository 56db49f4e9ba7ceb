//! The parser of Go's regular expression syntax (package `regexp/syntax`, Perl flags, dot matches newline).
//!
//! Owns the grammar and its error words; what it answers is the `regex-syntax` crate's intermediate form. Groups
//! that are open lie on a stack of its own, so depth costs no machine stack; what it builds is as deep as Go allows.

use regex_syntax::hir::{Capture, Class, ClassUnicode, Hir, Look, Repetition};

use super::BadRegexp;
use super::class::{self, bad};

/// Deepest nesting of operators, as in Go.
const HEIGHT_MAX: u32 = 1000;
/// Most repetitions, nested ones multiplied, as in Go.
const REPEAT_MAX: u32 = 1000;
const INVALID_CAPTURE: &str = "invalid named capture";
const INVALID_PERL: &str = "invalid or unsupported Perl syntax";
const INVALID_REPEAT: &str = "invalid repeat count";
const NESTED_REPEAT: &str = "invalid nested repetition operator";
const NOTHING_TO_REPEAT: &str = "missing argument to repetition operator";
const TOO_DEEP: &str = "expression nests too deeply";

/// What a pattern says.
pub(super) struct Parsed {
    pub(super) hir: Hir,
    /// Named groups: name and number, by number.
    names: Vec<(String, usize)>,
}

impl Parsed {
    /// Numbers of the groups of this name; Go lets a name be given twice.
    pub(super) fn groups_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.names.iter().filter(move |(n, _)| n == name).map(|&(_, i)| i)
    }
}

#[derive(Clone, Copy)]
struct Flags {
    fold: bool,
    lines: bool,
    dot_newline: bool,
    lazy: bool,
}

/// A piece of a sequence, with what the limits need to know about it.
struct Item {
    hir: Hir,
    /// Levels of operators.
    height: u32,
    /// Most repetitions of anything inside.
    repeats: u32,
}

impl Item {
    fn leaf(hir: Hir) -> Self {
        Self { hir, height: 1, repeats: 1 }
    }

    /// One level over `items`.
    fn over(items: Vec<Self>, build: impl FnOnce(Vec<Hir>) -> Hir) -> Self {
        let height = 1 + items.iter().map(|i| i.height).max().unwrap_or(0);
        let repeats = items.iter().map(|i| i.repeats).max().unwrap_or(1);
        Self { hir: build(items.into_iter().map(|i| i.hir).collect()), height, repeats }
    }
}

/// Which group is open.
enum Group {
    Plain,
    Capture { index: u32 },
}

struct Frame {
    group: Group,
    /// What was in force outside.
    flags: Flags,
    alternatives: Vec<Item>,
    sequence: Vec<Item>,
}

impl Frame {
    fn new(group: Group, flags: Flags) -> Self {
        Self { group, flags, alternatives: Vec::new(), sequence: Vec::new() }
    }

    fn next_alternative(&mut self) {
        let mut sequence = std::mem::take(&mut self.sequence);
        self.alternatives.push(match sequence.len() {
            1 => sequence.remove(0),
            _ => Item::over(sequence, Hir::concat),
        });
    }

    fn close(mut self) -> Item {
        self.next_alternative();
        let body = match self.alternatives.len() {
            1 => self.alternatives.remove(0),
            _ => Item::over(self.alternatives, Hir::alternation),
        };
        let Group::Capture { index } = self.group else { return body };
        // Without its name: the automaton takes no name twice.
        Item::over(vec![body], |mut sub| {
            Hir::capture(Capture { index, name: None, sub: Box::new(sub.remove(0)) })
        })
    }
}

struct Parser<'a> {
    pattern: &'a str,
    flags: Flags,
    frames: Vec<Frame>,
    captures: u32,
    names: Vec<(String, usize)>,
    /// Where the repetition operator that was just read begins.
    repeated: Option<&'a str>,
}

/// Parses a pattern.
///
/// # Errors
/// `BadRegexp` with Go's words and the part that is wrong.
pub(super) fn parse(pattern: &str) -> Result<Parsed, BadRegexp> {
    let flags = Flags { fold: false, lines: false, dot_newline: true, lazy: false };
    let frames = vec![Frame::new(Group::Plain, flags)];
    let mut p = Parser { pattern, flags, frames, captures: 0, names: Vec::new(), repeated: None };
    let mut rest = pattern;
    while !rest.is_empty() {
        let operator = p.repetition(rest)?;
        (p.repeated, rest) = match operator {
            Some(after) => (Some(rest), after),
            None => (None, p.token(rest)?),
        };
        if p.frames.len() > HEIGHT_MAX as usize {
            return Err(bad(TOO_DEEP, pattern));
        }
    }
    if p.frames.len() > 1 {
        return Err(bad("missing closing )", pattern));
    }
    let Some(root) = p.frames.pop() else { unreachable!("BUG: the outermost frame is never closed") };
    let root = root.close();
    if root.height > HEIGHT_MAX {
        return Err(bad(TOO_DEEP, pattern));
    }
    Ok(Parsed { hir: root.hir, names: p.names })
}

impl<'a> Parser<'a> {
    fn frame(&mut self) -> &mut Frame {
        let Some(frame) = self.frames.last_mut() else {
            unreachable!("BUG: the outermost frame is never closed")
        };
        frame
    }

    fn push(&mut self, hir: Hir) {
        self.frame().sequence.push(Item::leaf(hir));
    }

    fn push_class(&mut self, class: ClassUnicode) {
        self.push(Hir::class(Class::Unicode(class)));
    }

    fn push_char(&mut self, code: u32) {
        let class = class::folded(class::range(code, code), self.flags.fold);
        match (char::from_u32(code), class.ranges().len()) {
            (Some(c), 1) if class.ranges()[0].start() == class.ranges()[0].end() => {
                self.push(Hir::literal(c.to_string().into_bytes()));
            }
            _ => self.push_class(class),
        }
    }

    /// Anything but a repetition operator; answers what follows.
    fn token(&mut self, rest: &'a str) -> Result<&'a str, BadRegexp> {
        let Some(c) = rest.chars().next() else { return Ok(rest) };
        let after = &rest[c.len_utf8()..];
        let look = |text, line| if self.flags.lines { Hir::look(line) } else { Hir::look(text) };
        match c {
            '(' if after.starts_with('?') => return self.perl_group(rest),
            '(' => self.open_capture(None),
            ')' => self.close_group()?,
            '|' => self.frame().next_alternative(),
            '^' => self.push(look(Look::Start, Look::StartLF)),
            '$' => self.push(look(Look::End, Look::EndLF)),
            '.' => {
                let mut any = class::range(0, 0x10_FFFF);
                if !self.flags.dot_newline {
                    any.difference(&class::range(0x0A, 0x0A));
                }
                self.push_class(any);
            }
            '[' => {
                let (class, after) = class::bracketed(rest, self.flags.fold)?;
                self.push_class(class);
                return Ok(after);
            }
            '\\' => return self.escaped(rest),
            c => self.push_char(c.into()),
        }
        Ok(after)
    }

    fn escaped(&mut self, rest: &'a str) -> Result<&'a str, BadRegexp> {
        let after = rest.get(2..).unwrap_or("");
        match rest.as_bytes().get(1) {
            Some(b'A') => self.push(Hir::look(Look::Start)),
            Some(b'z') => self.push(Hir::look(Look::End)),
            Some(b'b') => self.push(Hir::look(Look::WordAscii)),
            Some(b'B') => self.push(Hir::look(Look::WordAsciiNegate)),
            Some(b'C') => return Err(bad(class::BAD_ESCAPE, &rest[..2])),
            Some(b'Q') => {
                let (text, after) = after.split_once("\\E").unwrap_or((after, ""));
                text.chars().for_each(|c| self.push_char(c.into()));
                return Ok(after);
            }
            _ => {
                let set = match class::property(rest, self.flags.fold)? {
                    Some(set) => Some(set),
                    None => class::perl(rest, self.flags.fold),
                };
                if let Some((set, after)) = set {
                    self.push_class(set);
                    return Ok(after);
                }
                let (code, after) = class::escape(rest)?;
                self.push_char(code);
                return Ok(after);
            }
        }
        Ok(after)
    }

    fn open(&mut self, group: Group) {
        self.frames.push(Frame::new(group, self.flags));
    }

    fn open_capture(&mut self, name: Option<&str>) {
        self.captures += 1;
        self.names.extend(name.map(|n| (n.to_owned(), self.captures as usize)));
        self.open(Group::Capture { index: self.captures });
    }

    fn close_group(&mut self) -> Result<(), BadRegexp> {
        let Some(frame) = self.frames.pop_if(|_| true).filter(|_| !self.frames.is_empty()) else {
            return Err(bad("unexpected )", self.pattern));
        };
        self.flags = frame.flags;
        let item = frame.close();
        if item.height > HEIGHT_MAX {
            return Err(bad(TOO_DEEP, self.pattern));
        }
        self.frame().sequence.push(item);
        Ok(())
    }

    /// `(?P<name>`, `(?<name>`, `(?flags)` or `(?flags:`.
    fn perl_group(&mut self, rest: &'a str) -> Result<&'a str, BadRegexp> {
        let named = |mark: &str| rest.strip_prefix(mark).filter(|name| !name.is_empty());
        if let Some(name) = named("(?P<").or_else(|| named("(?<")) {
            let end = name.find('>').ok_or_else(|| bad(INVALID_CAPTURE, rest))?;
            let (name, after) = (&name[..end], &name[end + 1..]);
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(bad(INVALID_CAPTURE, &rest[..rest.len() - after.len()]));
            }
            self.open_capture(Some(name));
            return Ok(after);
        }
        self.flag_group(rest)
    }

    fn flag_group(&mut self, rest: &'a str) -> Result<&'a str, BadRegexp> {
        let (mut flags, mut on, mut seen) = (self.flags, true, false);
        let mut chars = rest[2..].chars();
        loop {
            let c = chars.next();
            match c {
                Some('i') => flags.fold = on,
                Some('m') => flags.lines = on,
                Some('s') => flags.dot_newline = on,
                Some('U') => flags.lazy = on,
                Some('-') if on => {
                    (on, seen) = (false, false);
                    continue;
                }
                Some(':') if on || seen => {
                    self.open(Group::Plain);
                    break;
                }
                Some(')') if on || seen => break,
                _ => return Err(bad(INVALID_PERL, &rest[..rest.len() - chars.as_str().len()])),
            }
            seen = true;
        }
        self.flags = flags;
        Ok(chars.as_str())
    }

    /// A repetition operator at the start of `rest`: applies it and answers what follows; `None` when there is none.
    fn repetition(&mut self, rest: &'a str) -> Result<Option<&'a str>, BadRegexp> {
        let counted = rest.starts_with('{').then(|| counts(rest)).flatten();
        let (min, max, mut after) = match (rest.as_bytes().first(), counted) {
            (Some(b'*'), _) => (0, None, &rest[1..]),
            (Some(b'+'), _) => (1, None, &rest[1..]),
            (Some(b'?'), _) => (0, Some(1), &rest[1..]),
            (_, Some((min, max, after))) => (min, max, after),
            _ => return Ok(None),
        };
        let within = |n: u32| n <= REPEAT_MAX;
        if !within(min) || max.is_some_and(|max| !within(max) || min > max) {
            return Err(bad(INVALID_REPEAT, &rest[..rest.len() - after.len()]));
        }
        let mut greedy = !self.flags.lazy;
        if let Some(lazy) = after.strip_prefix('?') {
            (after, greedy) = (lazy, !greedy);
        }
        let written = |from: &'a str| &from[..from.len() - after.len()];
        if let Some(first) = self.repeated {
            return Err(bad(NESTED_REPEAT, written(first)));
        }
        let Some(item) = self.frame().sequence.pop() else {
            return Err(bad(NOTHING_TO_REPEAT, written(rest)));
        };
        let factor = if counted.is_some() { max.unwrap_or(min).max(1) } else { 1 };
        let repeats = if max == Some(0) { 1 } else { item.repeats.saturating_mul(factor) };
        if counted.is_some() && (min >= 2 || max.is_some_and(|m| m >= 2)) && !within(repeats) {
            return Err(bad(INVALID_REPEAT, written(rest)));
        }
        let height = item.height + 1;
        if height > HEIGHT_MAX {
            return Err(bad(TOO_DEEP, self.pattern));
        }
        let hir = Hir::repetition(Repetition { min, max, greedy, sub: Box::new(item.hir) });
        self.frame().sequence.push(Item { hir, height, repeats });
        Ok(Some(after))
    }
}

/// `{n}`, `{n,}` or `{n,m}`: least, most, and what follows; `None` when the brace stands for itself.
fn counts(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (min, rest) = count(&text[1..])?;
    let (max, rest) = match rest.strip_prefix(',') {
        None => (Some(min), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => count(rest).map(|(max, rest)| (Some(max), rest))?,
    };
    Some((min, max, rest.strip_prefix('}')?))
}

/// A decimal number without leading zeros; one too large for 32 bits is the largest.
fn count(text: &str) -> Option<(u32, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    if digits.is_empty() || (len > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}
