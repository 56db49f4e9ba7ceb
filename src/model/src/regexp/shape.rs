//! Patterns that are only texts and gaps: `a|b`, `node_.*`, `.*-prod`, `(us|eu)-.+-[12]`.
//!
//! Owns taking such a pattern apart into alternatives, each a row of texts with gaps (`.*`, `.+`) between them, and
//! matching a value against them without an automaton. Refuses everything else, and patterns whose alternatives
//! would be many or long: the automaton takes those.
//!
//! Invariant: placing every text as far left as it goes and the last one at the end finds a match if there is one,
//! because gaps may hold anything.

use memchr::memmem::Finder;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Alternatives that a set of plain texts may have.
const SET_MAX: usize = 1024;
/// Alternatives that may have gaps: each is tried for each value.
const GLOBS_MAX: usize = 32;
/// Bytes of all alternatives.
const TEXT_MAX: usize = 64 << 10;
/// Characters of a class that is written out.
const CLASS_MAX: usize = 16;
/// Repetitions that are written out.
const REPEAT_MAX: u32 = 64;

/// What a value must look like.
pub(super) enum Shape {
    /// One of these texts, sorted.
    Set(Vec<String>),
    /// One of these rows of texts and gaps.
    Globs(Vec<Glob>),
}

/// A row of texts with gaps between; at least one gap.
pub(super) struct Glob {
    prefix: String,
    /// Least bytes of the gap before, and what comes after it.
    middle: Vec<(usize, Finder<'static>)>,
    /// Least bytes of the last gap.
    gap: usize,
    suffix: String,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Text(String),
    /// Anything of at least so many characters (0 or 1).
    Gap(usize),
}

type Row = Vec<Part>;

/// Takes a pattern apart; `None` when it is more than texts and gaps.
pub(super) fn shape(hir: &Hir) -> Option<Shape> {
    let rows = rows(unanchored(hir).as_ref().unwrap_or(hir))?;
    if rows.iter().all(|row| row.iter().all(|p| matches!(p, Part::Text(_)))) {
        let mut set: Vec<String> = rows.into_iter().map(text_of).collect();
        set.sort();
        set.dedup();
        return Some(Shape::Set(set));
    }
    let globs = (rows.len() <= GLOBS_MAX).then(|| rows.into_iter().map(Glob::new).collect());
    globs.map(Shape::Globs)
}

fn text_of(row: Row) -> String {
    let texts = row.into_iter().map(|p| if let Part::Text(text) = p { text } else { String::new() });
    texts.collect()
}

/// The pattern without a `^` at its start and a `$` at its end, which say nothing new.
fn unanchored(hir: &Hir) -> Option<Hir> {
    let HirKind::Concat(parts) = hir.kind() else { return None };
    let is = |part: &Hir, look| matches!(part.kind(), HirKind::Look(l) if *l == look);
    let begin = parts.iter().take_while(|p| is(p, Look::Start)).count();
    let end = parts[begin..].iter().rev().take_while(|p| is(p, Look::End)).count();
    (begin + end > 0).then(|| Hir::concat(parts[begin..parts.len() - end].to_vec()))
}

fn is_anything(hir: &Hir) -> bool {
    matches!(hir.kind(), HirKind::Class(Class::Unicode(c))
        if c.ranges().len() == 1 && c.ranges()[0].start() == '\0' && c.ranges()[0].end() == char::MAX)
}

fn rows(hir: &Hir) -> Option<Vec<Row>> {
    match hir.kind() {
        HirKind::Empty => Some(vec![Vec::new()]),
        HirKind::Literal(text) => {
            let text = std::str::from_utf8(&text.0).ok()?;
            Some(vec![vec![Part::Text(text.to_owned())]])
        }
        HirKind::Class(Class::Unicode(class)) => {
            let chars: Vec<char> =
                class.iter().flat_map(|r| r.start()..=r.end()).take(CLASS_MAX + 1).collect();
            (chars.len() <= CLASS_MAX)
                .then(|| chars.into_iter().map(|c| vec![Part::Text(c.to_string())]).collect())
        }
        // The class of nothing: no text matches.
        HirKind::Class(Class::Bytes(class)) if class.ranges().is_empty() => Some(Vec::new()),
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) => None,
        HirKind::Repetition(r) if is_anything(&r.sub) => {
            (r.max.is_none() && r.min <= 1).then(|| vec![vec![Part::Gap(r.min as usize)]])
        }
        HirKind::Repetition(r) => {
            let max = r.max.filter(|&max| max <= REPEAT_MAX)?;
            let once = rows(&r.sub)?;
            let mut all = Vec::new();
            let mut so_far = vec![Vec::new()];
            for n in 0..=max {
                if n >= r.min {
                    all.extend(so_far.iter().cloned());
                }
                if n < max {
                    so_far = product(&so_far, &once)?;
                }
            }
            bounded(all)
        }
        HirKind::Capture(c) => rows(&c.sub),
        HirKind::Concat(parts) => {
            parts.iter().try_fold(vec![Vec::new()], |so_far, part| product(&so_far, &rows(part)?))
        }
        HirKind::Alternation(parts) => {
            let mut all = Vec::new();
            for part in parts {
                all.extend(rows(part)?);
                if all.len() > SET_MAX {
                    return None;
                }
            }
            bounded(all)
        }
    }
}

/// Every row of `a` followed by every row of `b`.
fn product(a: &[Row], b: &[Row]) -> Option<Vec<Row>> {
    if a.len().saturating_mul(b.len()) > SET_MAX {
        return None;
    }
    let joined = a.iter().flat_map(|head| b.iter().map(move |tail| join(head, tail)));
    bounded(joined.collect())
}

fn bounded(mut all: Vec<Row>) -> Option<Vec<Row>> {
    all.sort();
    all.dedup();
    let bytes = |p: &Part| if let Part::Text(t) = p { t.len() } else { 1 };
    let total: usize = all.iter().flatten().map(bytes).sum();
    (all.len() <= SET_MAX && total <= TEXT_MAX).then_some(all)
}

/// Neighbouring texts become one; a gap beside a gap does too unless both must hold a character.
fn join(head: &Row, tail: &Row) -> Row {
    let mut out = head.clone();
    for part in tail {
        match (out.last_mut(), part) {
            (Some(Part::Text(a)), Part::Text(b)) => a.push_str(b),
            (Some(Part::Gap(a)), Part::Gap(b)) if *a == 0 || *b == 0 => *a = (*a).max(*b),
            _ => out.push(part.clone()),
        }
    }
    out
}

impl Glob {
    /// From a row; one without any gap matches its text alone.
    fn new(row: Row) -> Self {
        let mut glob =
            Self { prefix: String::new(), middle: Vec::new(), gap: usize::MAX, suffix: String::new() };
        let mut before: Option<usize> = None;
        let mut parts = row.into_iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Text(text) => match before.take() {
                    None => glob.prefix = text,
                    Some(gap) if parts.peek().is_none() => (glob.gap, glob.suffix) = (gap, text),
                    Some(gap) => glob.middle.push((gap, Finder::new(&text).into_owned())),
                },
                // Two gaps in a row both hold a character: an empty text stands between them.
                Part::Gap(gap) => {
                    if let Some(first) = before.replace(gap) {
                        glob.middle.push((first, Finder::new("").into_owned()));
                    }
                }
            }
        }
        if let Some(gap) = before {
            glob.gap = gap;
        }
        glob
    }

    fn is_match(&self, value: &str) -> bool {
        let Some(rest) = value.strip_prefix(self.prefix.as_str()) else { return false };
        if self.gap == usize::MAX {
            return rest.is_empty();
        }
        let Some(body) = rest.strip_suffix(self.suffix.as_str()) else { return false };
        let (mut at, text) = (0, body.as_bytes());
        for (gap, finder) in &self.middle {
            let from = at + gap;
            let Some(found) = text.get(from..).and_then(|t| finder.find(t)) else { return false };
            // An empty text must not split a character.
            let found = from + found;
            at = (found..=body.len()).find(|&i| body.is_char_boundary(i)).unwrap_or(found)
                + finder.needle().len();
        }
        body.len() >= at + self.gap
    }
}

impl Shape {
    pub(super) fn is_match(&self, value: &str) -> bool {
        match self {
            Shape::Set(set) => set.binary_search_by(|s| s.as_str().cmp(value)).is_ok(),
            Shape::Globs(globs) => globs.iter().any(|g| g.is_match(value)),
        }
    }

    /// All texts that match, when there are only so many.
    pub(super) fn set(&self) -> Option<&[String]> {
        match self {
            Shape::Set(set) => Some(set),
            Shape::Globs(_) => None,
        }
    }

    /// What every match begins with.
    pub(super) fn common_prefix(&self) -> &str {
        match self {
            Shape::Set(set) => common(set.iter().map(String::as_str)),
            Shape::Globs(globs) => common(globs.iter().map(|g| g.prefix.as_str())),
        }
    }
}

fn common<'a>(mut texts: impl Iterator<Item = &'a str>) -> &'a str {
    let Some(first) = texts.next() else { return "" };
    texts.fold(first, |so_far, text| {
        let same = so_far.chars().zip(text.chars()).take_while(|(a, b)| a == b);
        &so_far[..same.map(|(c, _)| c.len_utf8()).sum()]
    })
}

/// What every match of any pattern begins with; empty when that is not known.
pub(super) fn prefix(hir: &Hir) -> String {
    leading(hir).0
}

/// The text at the start, and whether it is all that the pattern stands for.
fn leading(hir: &Hir) -> (String, bool) {
    match hir.kind() {
        // A condition on the place consumes nothing.
        HirKind::Empty | HirKind::Look(_) => (String::new(), true),
        HirKind::Literal(text) => match std::str::from_utf8(&text.0) {
            Ok(text) => (text.to_owned(), true),
            Err(_) => (String::new(), false),
        },
        HirKind::Class(_) => (String::new(), false),
        HirKind::Repetition(r) => match r.min {
            0 => (String::new(), false),
            _ => (leading(&r.sub).0, false),
        },
        HirKind::Capture(c) => leading(&c.sub),
        HirKind::Concat(parts) => {
            let mut out = String::new();
            for part in parts {
                let (text, whole) = leading(part);
                out.push_str(&text);
                if !whole {
                    return (out, false);
                }
            }
            (out, true)
        }
        HirKind::Alternation(parts) => {
            let all: Vec<String> = parts.iter().map(|p| leading(p).0).collect();
            (common(all.iter().map(String::as_str)).to_owned(), false)
        }
    }
}
