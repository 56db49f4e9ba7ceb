//! Relabel rules as written and checked; what they do lives in the relabel crate.

use koios_model::Regexp;
use koios_model::labels::is_legacy_label_name;

use crate::names::NameScheme;
use crate::read::Section;

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelabelAction {
    /// Sets the target label to the expanded replacement when the regex matches.
    #[default]
    Replace,
    /// Drops what does not match.
    Keep,
    /// Drops what matches.
    Drop,
    /// Drops when the joined source differs from the target label.
    KeepEqual,
    /// Drops when the joined source equals the target label.
    DropEqual,
    /// Sets the target label to a hash of the joined source, modulo.
    HashMod,
    /// Copies labels whose name matches to expanded names.
    LabelMap,
    /// Removes labels whose name matches.
    LabelDrop,
    /// Removes labels whose name does not match.
    LabelKeep,
    /// Sets the target label to the joined source in lower case.
    Lowercase,
    /// Sets the target label to the joined source in upper case.
    Uppercase,
}

impl RelabelAction {
    const CHOICES: &'static [(&'static str, RelabelAction)] = &[
        ("replace", RelabelAction::Replace),
        ("keep", RelabelAction::Keep),
        ("drop", RelabelAction::Drop),
        ("keepequal", RelabelAction::KeepEqual),
        ("dropequal", RelabelAction::DropEqual),
        ("hashmod", RelabelAction::HashMod),
        ("labelmap", RelabelAction::LabelMap),
        ("labeldrop", RelabelAction::LabelDrop),
        ("labelkeep", RelabelAction::LabelKeep),
        ("lowercase", RelabelAction::Lowercase),
        ("uppercase", RelabelAction::Uppercase),
    ];

    /// The word used in files.
    pub fn as_str(self) -> &'static str {
        Self::CHOICES.iter().find(|(_, a)| *a == self).map_or("", |(w, _)| w)
    }
}

/// One checked rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RelabelRule {
    /// Labels whose values are joined.
    pub source_labels: Vec<String>,
    /// Put between the joined values.
    pub separator: String,
    /// Anchored expression over the joined values, or over label names.
    pub regex: Regexp,
    /// Divisor of `hashmod`.
    pub modulus: u64,
    /// Label that is written; a template for `replace`.
    pub target_label: String,
    /// Template of the new value, or of the new name for `labelmap`.
    pub replacement: String,
    /// What the rule does.
    pub action: RelabelAction,
    /// Which names are valid.
    pub scheme: NameScheme,
}

impl Default for RelabelRule {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: ";".into(),
            regex: default_regex(),
            modulus: 0,
            target_label: String::new(),
            replacement: "$1".into(),
            action: RelabelAction::Replace,
            scheme: NameScheme::Utf8,
        }
    }
}

fn default_regex() -> Regexp {
    Regexp::new("(.*)").unwrap_or_else(|e| unreachable!("BUG: the default regex does not compile: {e}"))
}

/// Reads a list of rules from the field `name`.
pub(crate) fn rules(s: &mut Section<'_>, name: &'static str, scheme: NameScheme) -> Vec<RelabelRule> {
    s.sections(name).into_iter().map(|rule| read(rule, scheme)).collect()
}

fn read(mut s: Section<'_>, scheme: NameScheme) -> RelabelRule {
    let mut sources = Vec::new();
    for label in s.texts("source_labels") {
        if scheme.label_ok(&label.text) {
            sources.push(label.text);
        } else {
            let cause = format!("{:?} is not a valid label name", label.text);
            s.ctx.error(1207, label.span, cause, "write the name of a label, e.g. `__address__`");
        }
    }
    let regex = s.parsed("regex", 1206, |text| {
        Regexp::new(text).map_err(|e| {
            (e.to_string(), "correct the expression (RE2 syntax, no look-around or back-references)".into())
        })
    });
    let d = RelabelRule::default();
    // An empty text is a value here: an empty separator or replacement is meant.
    let or = |v: Option<String>, default: &str| v.unwrap_or_else(|| default.to_owned());
    let separator = s.string("separator");
    let replacement = s.string("replacement");
    let action = action(&mut s);
    let rule = RelabelRule {
        source_labels: sources,
        separator: or(separator, &d.separator),
        regex: regex.unwrap_or(d.regex),
        modulus: s.integer("modulus").unwrap_or(0),
        target_label: s.string("target_label").unwrap_or_default(),
        replacement: or(replacement, &d.replacement),
        action: action.unwrap_or_default(),
        scheme,
    };
    // What a rule needs depends on its action; without one there is nothing more to say.
    if action.is_some() {
        check(&s, &rule);
    }
    s.finish();
    rule
}

/// `None` when the word is not known, which has been reported.
fn action(s: &mut Section<'_>) -> Option<RelabelAction> {
    let Some(mut text) = s.text("action") else { return Some(RelabelAction::Replace) };
    // Prometheus takes the word in any case.
    text.text.make_ascii_lowercase();
    crate::read::one_of(s.ctx, "action", &text, RelabelAction::CHOICES)
}

fn check(s: &Section<'_>, rule: &RelabelRule) {
    use RelabelAction as A;
    let word = rule.action.as_str();
    let needs_target = matches!(
        rule.action,
        A::Replace | A::HashMod | A::Lowercase | A::Uppercase | A::KeepEqual | A::DropEqual
    );
    if needs_target && rule.target_label.is_empty() {
        s.missing(
            "target_label",
            format!("action `{word}` writes or compares a label: add `target_label: NAME`"),
        );
    }
    if rule.action == A::HashMod && rule.modulus == 0 {
        let cause = "action `hashmod` needs a `modulus` above 0";
        s.ctx.error(1306, s.key_span("modulus"), cause, "add `modulus: N`, the number of shards");
    }
    let template_ok = match rule.scheme {
        NameScheme::Utf8 => true,
        NameScheme::Legacy if rule.action == A::Replace => name_template(&rule.target_label),
        NameScheme::Legacy => is_legacy_label_name(&rule.target_label),
    };
    if needs_target && !rule.target_label.is_empty() && !template_ok {
        let cause = format!("{:?} is not a valid target label for `{word}`", rule.target_label);
        s.ctx.error(
            1207,
            s.value_span("target_label"),
            cause,
            "use letters, digits and `_`, not starting with a digit",
        );
    }
    if rule.action == A::LabelMap && rule.scheme == NameScheme::Legacy && !name_template(&rule.replacement) {
        let cause = format!("{:?} does not make valid label names for `labelmap`", rule.replacement);
        s.ctx.error(1207, s.value_span("replacement"), cause, "use a template such as `prefix_$1`");
    }
    let forbidden: &[&str] = match rule.action {
        A::KeepEqual | A::DropEqual => &["regex", "modulus", "separator", "replacement"],
        A::LabelDrop | A::LabelKeep => {
            &["source_labels", "target_label", "modulus", "separator", "replacement"]
        }
        A::Lowercase | A::Uppercase => &["replacement"],
        _ => &[],
    };
    for field in forbidden.iter().filter(|f| s.has(f)) {
        let cause = format!("action `{word}` does not use `{field}`");
        s.ctx.error(1307, s.key_span(field), cause, format!("remove `{field}`, or choose another action"));
    }
}

/// Whether a template of `$1`, `${1}` and label name characters can yield a valid legacy name.
fn name_template(template: &str) -> bool {
    let mut plain = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, after) = match rest.strip_prefix('{') {
            Some(braced) => match braced.split_once('}') {
                Some(parts) => parts,
                None => return false,
            },
            None => {
                rest.split_at(rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count())
            }
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return false;
        }
        plain.push('x');
        rest = after;
    }
    plain.push_str(rest);
    is_legacy_label_name(&plain)
}

#[cfg(test)]
mod tests {
    use super::name_template;

    #[test]
    fn templates() {
        for ok in ["a", "$1", "${1}_b", "a_$1", "$name"] {
            assert!(name_template(ok), "{ok}");
        }
        for bad in ["", "1a", "a-b", "${1", "$", "a$-"] {
            assert!(!name_template(bad), "{bad}");
        }
    }
}
