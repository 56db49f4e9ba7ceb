//! Label matchers: the four ways a selector can ask for a label's value.
//!
//! A missing label has the empty value, so `a=""` and `a!="x"` match series that lack `a`.

use std::fmt;

use crate::regexp::{BadRegexp, Regexp};

/// How a matcher compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchType {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchType {
    /// The operator as PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchType::Equal => "=",
            MatchType::NotEqual => "!=",
            MatchType::Regex => "=~",
            MatchType::NotRegex => "!~",
        }
    }
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// How to compare.
    pub kind: MatchType,
    /// Label name.
    pub name: String,
    /// Value or pattern as written.
    pub value: String,
    regexp: Option<Regexp>,
}

impl Matcher {
    /// Builds a matcher.
    ///
    /// # Errors
    /// `BadRegexp` when `kind` is a regex kind and `value` does not compile.
    pub fn new(
        kind: MatchType,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, BadRegexp> {
        let value = value.into();
        let regexp = match kind {
            MatchType::Regex | MatchType::NotRegex => Some(Regexp::new(&value)?),
            MatchType::Equal | MatchType::NotEqual => None,
        };
        Ok(Self { kind, name: name.into(), value, regexp })
    }

    /// `name="value"`.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { kind: MatchType::Equal, name: name.into(), value: value.into(), regexp: None }
    }

    /// Whether a label with this value (empty when missing) satisfies the matcher.
    pub fn matches(&self, value: &str) -> bool {
        match (self.kind, &self.regexp) {
            (MatchType::Equal, _) => value == self.value,
            (MatchType::NotEqual, _) => value != self.value,
            (MatchType::Regex, Some(re)) => re.is_match(value),
            (MatchType::NotRegex, Some(re)) => !re.is_match(value),
            (_, None) => unreachable!("BUG: regex matcher without a compiled pattern"),
        }
    }

    /// Whether series without the label satisfy the matcher.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The compiled pattern of a regex matcher.
    pub fn regexp(&self) -> Option<&Regexp> {
        self.regexp.as_ref()
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if crate::labels::is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            f.write_str(&crate::format::go_quote(&self.name))?;
        }
        write!(f, "{}{}", self.kind.as_str(), crate::format::go_quote(&self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_label_is_the_empty_value() {
        let m = |k, v: &str| Matcher::new(k, "a", v).unwrap();
        assert!(m(MatchType::Equal, "").matches_empty());
        assert!(m(MatchType::NotEqual, "x").matches_empty());
        assert!(m(MatchType::Regex, "x|").matches_empty());
        assert!(!m(MatchType::NotRegex, ".*").matches_empty());
        assert_eq!(m(MatchType::Regex, "x\"y").to_string(), "a=~\"x\\\"y\"");
    }
}
