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
        Ok(Self { source: pattern.into(), compiled })
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
    fn expands_groups_and_reports_errors() {
        let re = Regexp::new("(.*):(?P<port>\\d+)").unwrap();
        assert_eq!(re.expand("h:80", "${port}@$1").unwrap(), "80@h");
        assert_eq!(re.expand("h", "$1"), None);
        let err = Regexp::new("a(b").unwrap_err().to_string();
        assert!(err.starts_with("error parsing regexp: ") && err.contains("a(b"), "{err}");
    }
}
