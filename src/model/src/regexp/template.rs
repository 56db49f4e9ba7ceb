//! Replacement templates: `$1`, `${1}`, `$name`, `${name}`, and `$$` for a dollar, as Go's `Regexp.Expand` reads them.
//!
//! A name without braces is as long as letters, digits and underscores go, so `$1x` asks for the group `1x`. A group
//! that does not exist or took no part is empty; a dollar that begins nothing is kept.

/// What a template asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name<'a> {
    /// The group with this number.
    Number(usize),
    /// The group with this name.
    Text(&'a str),
}

/// Most digits of a group's number that are read as one; no pattern has that many groups.
const NUMBER_DIGITS_MAX: usize = 8;

/// Puts groups into a template.
pub(super) fn expand<'v>(template: &str, group: impl Fn(Name<'_>) -> Option<&'v str>) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = name(rest) {
            out.push_str(group(name).unwrap_or(""));
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The name at the start of `text`, and what follows it.
fn name(text: &str) -> Option<(Name<'_>, &str)> {
    let braced = text.strip_prefix('{');
    let body = braced.unwrap_or(text);
    let len = body.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(body.len());
    let (name, after) = body.split_at(len);
    let after = if braced.is_some() { after.strip_prefix('}')? } else { after };
    if name.is_empty() {
        return None;
    }
    let number = name.len() <= NUMBER_DIGITS_MAX
        && name.bytes().all(|b| b.is_ascii_digit())
        && (name.len() == 1 || !name.starts_with('0'));
    let number = name.parse().ok().filter(|_| number);
    Some((number.map_or(Name::Text(name), Name::Number), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_as_go_does() {
        let group = |name: Name<'_>| match name {
            Name::Number(0) => Some("all"),
            Name::Number(1) => Some("one"),
            Name::Text("port") => Some("80"),
            _ => None,
        };
        for (template, want) in [
            ("$1", "one"),
            ("${1}x", "onex"),
            ("$1x", ""),
            ("$0-$port", "all-80"),
            ("${port}${none}", "80"),
            ("$$1", "$1"),
            ("a$", "a$"),
            ("$ 1", "$ 1"),
            ("${}", "${}"),
            ("${1", "${1"),
            ("${a-b}", "${a-b}"),
            ("$01", ""),
            ("é$1é", "é"),
        ] {
            assert_eq!(expand(template, group), want, "{template}");
        }
    }
}
