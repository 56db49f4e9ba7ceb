//! Regular expressions as label matchers and relabel rules use them.
//!
//! Owns "anchored at both ends, dot matches newline" (`^(?s:…)$`) and the error text users know. Refuses
//! back-references and look-around, as RE2 does. Today the pattern goes to the `regex` crate with ASCII
//! classes forced the way Go has them; a parser of Go's own syntax with literal extraction takes its place
//! behind the same type with the storage issue.

use std::fmt;
use std::sync::Arc;

/// A compiled, fully anchored expression. Cheap to clone.
#[derive(Clone)]
pub struct Regexp {
    source: Arc<str>,
    compiled: regex::Regex,
    literals: Arc<Literals>,
}

/// What a pattern says without running it.
#[derive(Debug, Default)]
struct Literals {
    /// All texts that match, when the pattern is nothing but alternatives of plain text.
    set: Option<Vec<String>>,
    /// Every match begins with this; may be empty.
    prefix: String,
}

/// A pattern that does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {detail}: `{pattern}`")]
pub struct BadRegexp {
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong with it.
    pub detail: String,
}

/// Programs are not told apart below this size.
const PROGRAM_BYTES_MIN: usize = 1 << 10;
/// Bytes a compiled program may take.
const COMPILED_BYTES_MAX: usize = 8 << 20;

impl Regexp {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// `BadRegexp` when the pattern is not valid or its program would exceed 8 MiB.
    pub fn new(pattern: &str) -> Result<Self, BadRegexp> {
        let bad = |detail: String| BadRegexp { pattern: pattern.to_owned(), detail };
        let compiled = regex::RegexBuilder::new(&format!("^(?s:{})$", ascii_classes(pattern)))
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .map_err(|e| bad(last_line(&e.to_string())))?;
        Ok(Self { source: pattern.into(), compiled, literals: Arc::new(literals(pattern)) })
    }

    /// Bytes that the compiled program takes, rounded up to a power of two. A match that needs the groups
    /// may take as many units of time for every byte of its text.
    pub fn program_bytes(&self) -> usize {
        let pattern = format!("^(?s:{})$", ascii_classes(&self.source));
        let fits = |limit: &usize| regex::RegexBuilder::new(&pattern).size_limit(*limit).build().is_ok();
        let limits = std::iter::successors(Some(PROGRAM_BYTES_MIN), |n| Some(n * 2));
        limits.take_while(|n| *n < COMPILED_BYTES_MAX).find(fits).unwrap_or(COMPILED_BYTES_MAX)
    }

    /// All texts that match, sorted, when the pattern is nothing but alternatives of plain text (`a|b`).
    pub fn literal_set(&self) -> Option<&[String]> {
        self.literals.set.as_deref()
    }

    /// A text that every match begins with; empty when none is known.
    pub fn literal_prefix(&self) -> &str {
        &self.literals.prefix
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the whole of `value` matches.
    pub fn is_match(&self, value: &str) -> bool {
        self.compiled.is_match(value)
    }

    /// Whether the empty string matches, which is what a series without the label has.
    pub fn matches_empty(&self) -> bool {
        self.compiled.is_match("")
    }

    /// Expands `template` (`$1`, `${1}`, `${name}`) with the groups of a match of `value`; `None` when
    /// `value` does not match.
    pub fn expand(&self, value: &str, template: &str) -> Option<String> {
        let captures = self.compiled.captures(value)?;
        let mut out = String::new();
        captures.expand(template, &mut out);
        Some(out)
    }
}

/// Bytes that mean something in a pattern. Everything else stands for itself.
const SPECIAL: &[char] = &['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$'];

/// Alternatives that a set may have: beyond that one pass of the program is cheaper.
const SET_MAX: usize = 1024;

fn literals(pattern: &str) -> Literals {
    let inner = pattern.strip_prefix('(').and_then(|p| p.strip_suffix(')'));
    let body = inner.filter(|i| !i.contains(['(', ')'])).unwrap_or(pattern);
    let parts: Option<Vec<String>> = body.split('|').take(SET_MAX + 1).map(plain_text).collect();
    if let Some(mut set) = parts.filter(|p| p.len() <= SET_MAX) {
        set.sort();
        set.dedup();
        let prefix = if set.len() == 1 { set[0].clone() } else { String::new() };
        return Literals { set: Some(set), prefix };
    }
    // An alternative, even a nested one, could begin differently; a flag group could change the case.
    if pattern.contains('|') || pattern.contains("(?") {
        return Literals::default();
    }
    Literals { set: None, prefix: leading_text(pattern) }
}

/// The text a pattern stands for when it has no operator; an escaped punctuation stands for itself.
fn plain_text(part: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|&p| stands_for_itself(p))?),
            c if SPECIAL.contains(&c) => return None,
            c => out.push(c),
        }
    }
    Some(out)
}

/// Whether a backslash before this only takes away its meaning; `\<` and `\>` are word borders.
fn stands_for_itself(escaped: char) -> bool {
    escaped.is_ascii_punctuation() && !matches!(escaped, '<' | '>')
}

fn leading_text(pattern: &str) -> String {
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(p) if stands_for_itself(p) => out.push(p),
                _ => break,
            },
            // The last text before these may be repeated zero times.
            '?' | '*' | '{' => {
                out.pop();
                break;
            }
            c if SPECIAL.contains(&c) => break,
            c => out.push(c),
        }
    }
    out
}

/// Go's `\d \w \s \b` know ASCII only, the `regex` crate's know Unicode.
fn ascii_classes(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut in_class = false;
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(k @ ('d' | 'w' | 's')) => out.push_str(class_body(k, in_class)),
                Some('b') if !in_class => out.push_str("(?-u:\\b)"),
                Some(k @ ('D' | 'W' | 'S')) if !in_class => {
                    out.push_str("[^");
                    out.push_str(class_body(k.to_ascii_lowercase(), true));
                    out.push(']');
                }
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            '[' => {
                in_class = true;
                out.push(c);
            }
            ']' => {
                in_class = false;
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

fn class_body(kind: char, in_class: bool) -> &'static str {
    match (kind, in_class) {
        ('d', true) => "0-9",
        ('d', false) => "[0-9]",
        ('w', true) => "0-9A-Za-z_",
        ('w', false) => "[0-9A-Za-z_]",
        ('s', true) => "\\t\\n\\f\\r ",
        _ => "[\\t\\n\\f\\r ]",
    }
}

fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or(text);
    line.trim().trim_start_matches("error: ").to_owned()
}

impl fmt::Debug for Regexp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regexp({:?})", self.source)
    }
}

impl PartialEq for Regexp {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Regexp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_grow_with_repetitions() {
        let bytes = |p: &str| Regexp::new(p).unwrap().program_bytes();
        assert!(bytes("(.*)") <= 4096, "{}", bytes("(.*)"));
        assert!(bytes("(a?){500}") > 8 * bytes("(.*)"));
    }

    #[test]
    fn anchored_dot_all_ascii() {
        let re = Regexp::new("a.c|x").unwrap();
        assert!(re.is_match("a\nc") && re.is_match("x"));
        assert!(!re.is_match("xa.c") && !re.is_match("abcd"));
        let digits = Regexp::new("\\d+").unwrap();
        assert!(digits.is_match("42") && !digits.is_match("٤٢"));
        assert!(Regexp::new("[\\w]+").unwrap().is_match("a_1"));
        assert!(Regexp::new("").unwrap().matches_empty());
    }

    #[test]
    fn finds_literals() {
        let re = |p: &str| Regexp::new(p).unwrap();
        assert_eq!(re("b|a|a\\.c").literal_set().unwrap(), ["a", "a.c", "b"]);
        assert_eq!(re("(x|y)").literal_set().unwrap(), ["x", "y"]);
        assert_eq!(re("").literal_set().unwrap(), [""]);
        for (pattern, prefix) in [
            ("node_.*", "node_"),
            ("ab*c", "a"),
            ("ab?", "a"),
            ("ab{0}c", "a"),
            ("ab+", "ab"),
            ("a\\.b\\d", "a.b"),
            ("a(b)", "a"),
            ("a|b.*", ""),
            ("a(b|c.*)", ""),
            ("(?i)abc", ""),
            (".*x", ""),
            ("aé*", "a"),
        ] {
            assert_eq!(re(pattern).literal_set(), None, "{pattern}");
            assert_eq!(re(pattern).literal_prefix(), prefix, "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn literals_agree_with_the_program(pattern in "[ab.|*?()\\\\{}0+^$]{0,8}", value in "[ab.0]{0,4}") {
            if let Ok(re) = Regexp::new(&pattern) {
                if let Some(set) = re.literal_set() {
                    proptest::prop_assert_eq!(set.contains(&value), re.is_match(&value));
                }
                if re.is_match(&value) {
                    proptest::prop_assert!(value.starts_with(re.literal_prefix()), "{}", re.literal_prefix());
                }
            }
        }
    }

    #[test]
    fn expands_groups_and_reports_errors() {
        let re = Regexp::new("(.*):(?P<port>\\d+)").unwrap();
        assert_eq!(re.expand("h:80", "${port}@$1").unwrap(), "80@h");
        assert_eq!(re.expand("h", "$1"), None);
        let err = Regexp::new("a(b").unwrap_err().to_string();
        assert!(err.starts_with("error parsing regexp: ") && err.contains("a(b"), "{err}");
    }
}
