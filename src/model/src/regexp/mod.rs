//! Regular expressions as label matchers and relabel rules use them.
//!
//! Owns "anchored at both ends, dot matches newline" (`^(?s:…)$`), Go's syntax and error words (`parse`, `class`),
//! the texts that a pattern stands for when it is only texts and gaps (`shape`), and templates (`template`). The
//! automaton is the `regex-automata` crate's. Refuses back-references and look-around, as RE2 does.
//!
//! Invariant: a pattern that has a shape is answered by the shape alone, and the automaton would say the same.

mod class;
mod parse;
mod shape;
mod template;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};

use regex_automata::meta;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Hir, Look};

use parse::Parsed;
use shape::Shape;

/// A compiled, fully anchored expression. Cheap to clone.
#[derive(Clone)]
pub struct Regexp(Arc<Inner>);

struct Inner {
    source: String,
    parsed: Parsed,
    shape: Option<Shape>,
    /// Every match begins with this; may be empty.
    prefix: String,
    /// Compiled at once for a pattern without a shape, else when groups are asked for.
    program: OnceLock<Option<meta::Regex>>,
}

/// A pattern that does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {detail}: `{fragment}`")]
pub struct BadRegexp {
    /// What is wrong, in Go's words.
    pub detail: &'static str,
    /// The part of the pattern that is wrong.
    pub fragment: String,
}

/// Programs are not told apart below this size.
const PROGRAM_BYTES_MIN: usize = 1 << 10;
/// Bytes a compiled program may take.
const COMPILED_BYTES_MAX: usize = 8 << 20;

impl Regexp {
    /// Compiles a pattern in Go's syntax.
    ///
    /// # Errors
    /// `BadRegexp` when the pattern is not valid or its program would exceed 8 MiB.
    pub fn new(pattern: &str) -> Result<Self, BadRegexp> {
        let parsed = parse::parse(pattern)?;
        let shape = shape::shape(&parsed.hir);
        let prefix = match &shape {
            Some(shape) => shape.common_prefix().to_owned(),
            None => shape::prefix(&parsed.hir),
        };
        let program = OnceLock::new();
        if shape.is_none() {
            let large = || BadRegexp { detail: "expression too large", fragment: pattern.to_owned() };
            let _ = program.set(Some(compile(&parsed.hir, COMPILED_BYTES_MAX).ok_or_else(large)?));
        }
        Ok(Self(Arc::new(Inner { source: pattern.to_owned(), parsed, shape, prefix, program })))
    }

    /// Bytes that the compiled program takes, rounded up to a power of two. A match that needs the groups
    /// may take as many units of time for every byte of its text.
    pub fn program_bytes(&self) -> usize {
        let fits = |limit: &usize| compile(&self.0.parsed.hir, *limit).is_some();
        let limits = std::iter::successors(Some(PROGRAM_BYTES_MIN), |n| Some(n * 2));
        limits.take_while(|n| *n < COMPILED_BYTES_MAX).find(fits).unwrap_or(COMPILED_BYTES_MAX)
    }

    /// All texts that match, sorted, when the pattern is nothing but alternatives of plain text (`a|b`).
    pub fn literal_set(&self) -> Option<&[String]> {
        self.0.shape.as_ref().and_then(Shape::set)
    }

    /// A text that every match begins with; empty when none is known.
    pub fn literal_prefix(&self) -> &str {
        &self.0.prefix
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0.source
    }

    /// Whether the whole of `value` matches.
    pub fn is_match(&self, value: &str) -> bool {
        match &self.0.shape {
            Some(shape) => shape.is_match(value),
            None => self.program().is_some_and(|p| p.is_match(Input::new(value).anchored(Anchored::Yes))),
        }
    }

    /// Whether the empty string matches, which is what a series without the label has.
    pub fn matches_empty(&self) -> bool {
        self.is_match("")
    }

    /// Expands `template` (`$1`, `${1}`, `${name}`, `$$`) with the groups of a match of `value`; `None` when
    /// `value` does not match.
    pub fn expand(&self, value: &str, template: &str) -> Option<String> {
        if !self.is_match(value) {
            return None;
        }
        let program = self.program()?;
        let mut captures = program.create_captures();
        program.captures(Input::new(value).anchored(Anchored::Yes), &mut captures);
        let group = |i: usize| captures.get_group(i).map(|span| &value[span]);
        Some(template::expand(template, |name| match name {
            template::Name::Number(i) => group(i),
            template::Name::Text(text) => self.0.parsed.groups_named(text).find_map(group),
        }))
    }

    fn program(&self) -> Option<&meta::Regex> {
        self.0.program.get_or_init(|| compile(&self.0.parsed.hir, COMPILED_BYTES_MAX)).as_ref()
    }
}

/// The program of `^(?s:hir)$`; `None` when it is larger than `limit` bytes.
fn compile(hir: &Hir, limit: usize) -> Option<meta::Regex> {
    let anchored = Hir::concat(vec![Hir::look(Look::Start), hir.clone(), Hir::look(Look::End)]);
    let config = meta::Config::new().nfa_size_limit(Some(limit)).hybrid_cache_capacity(COMPILED_BYTES_MAX);
    meta::Regex::builder().configure(config).build_from_hir(&anchored).ok()
}

impl fmt::Debug for Regexp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regexp({:?})", self.0.source)
    }
}

impl PartialEq for Regexp {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl Eq for Regexp {}
