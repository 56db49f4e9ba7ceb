//! Rule files: `groups`, strictly read, every expression parsed.

use std::collections::BTreeMap;

use koios_model::duration::parse_duration;
use koios_promql::{Expr, parse};
use serde::Deserialize;

/// Why a file was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {what}")]
pub struct RuleError {
    /// The file.
    pub file: String,
    /// What is wrong, where it stands, and the fix.
    pub what: String,
}

/// A duration as YAML has it, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ms(pub i64);

impl<'de> Deserialize<'de> for Ms {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let why = |e| serde::de::Error::custom(format!("{e}; write a duration like 1m30s"));
        parse_duration(&text).map(Self).map_err(why)
    }
}

/// A key without a value counts as absent, as it does for Prometheus.
pub(crate) fn or_default<'de, T, D>(d: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default, deserialize_with = "or_default")]
    groups: Vec<RawGroup>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    name: String,
    interval: Option<Ms>,
    query_offset: Option<Ms>,
    #[serde(default, deserialize_with = "or_default")]
    limit: u64,
    #[serde(default, deserialize_with = "or_default")]
    rules: Vec<RawRule>,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(rename = "for")]
    hold: Option<Ms>,
    keep_firing_for: Option<Ms>,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
}

/// Rules that are evaluated one after the other.
#[derive(Clone, Debug)]
pub struct Group {
    /// Unique within a file.
    pub name: String,
    /// Where it was read.
    pub file: String,
    /// Distance of evaluations, ms; `None` leaves it to the global setting.
    pub interval_ms: Option<i64>,
    /// How far in the past rules look, ms.
    pub offset_ms: i64,
    /// Most series of one rule; 0 means no limit.
    pub limit: u64,
    /// In order.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Metric or alert name.
    pub name: String,
    /// Whether it alerts instead of recording.
    pub alert: bool,
    /// What it computes.
    pub expr: Expr,
    /// Labels it sets, those of its group included; an empty value removes a label.
    pub labels: BTreeMap<String, String>,
}

/// Reads a rule file.
///
/// # Errors
/// The first fault.
pub fn read_rules(file: &str, text: &str) -> Result<Vec<Group>, RuleError> {
    let fault = |what: String| RuleError { file: file.to_owned(), what };
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let raw: RawFile = serde_saphyr::from_str(text).map_err(|e| fault(e.to_string()))?;
    let mut groups: Vec<Group> = Vec::new();
    for g in raw.groups {
        if g.name.is_empty() || groups.iter().any(|o| o.name == g.name) {
            return Err(fault(format!("groupname: {:?} is empty or repeated in the same file", g.name)));
        }
        let rules: Result<Vec<Rule>, String> = g.rules.into_iter().map(|r| rule(r, &g.labels)).collect();
        let rules = rules.map_err(|e| fault(format!("group {:?}: {e}", g.name)))?;
        groups.push(Group {
            name: g.name,
            file: file.to_owned(),
            interval_ms: g.interval.map(|i| i.0),
            offset_ms: g.query_offset.map_or(0, |o| o.0),
            limit: g.limit,
            rules,
        });
    }
    Ok(groups)
}

fn rule(r: RawRule, of_group: &BTreeMap<String, String>) -> Result<Rule, String> {
    let (name, alert) = match (r.record, r.alert) {
        (Some(name), None) => (name, false),
        (None, Some(name)) => (name, true),
        _ => return Err(format!("a rule has one of `record` and `alert`; expression {:?}", r.expr)),
    };
    let in_rule = |e: String| format!("rule {name:?}: {e}");
    if name.is_empty() {
        return Err("a rule has an empty name".to_owned());
    }
    if !alert && (r.hold.is_some() || r.keep_firing_for.is_some() || !r.annotations.is_empty()) {
        return Err(in_rule("`for`, `keep_firing_for` and `annotations` belong to alerts".to_owned()));
    }
    if !alert && name.contains(['{', '}']) {
        return Err(in_rule("braces present in the recording rule name; should it be in expr?".to_owned()));
    }
    if r.labels.contains_key("__name__") {
        return Err(in_rule("invalid label name: __name__".to_owned()));
    }
    let expr = parse(&r.expr).map_err(|e| in_rule(format!("could not parse expression: {e}")))?;
    let mut labels = of_group.clone();
    labels.extend(r.labels);
    Ok(Rule { name, alert, expr, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_groups_and_merges_labels() {
        let text = "groups:\n- name: a\n  interval: 30s\n  labels: {team: x, env: y}\n  rules:\n  - {record: 'job:up:sum', expr: sum by (job) (up), labels: {env: z}}\n  - {alert: Down, expr: up == 0, for: 5m, annotations: {summary: s}}\n";
        let groups = read_rules("f", text).unwrap();
        assert_eq!((groups[0].interval_ms, groups[0].rules.len()), (Some(30_000), 2));
        assert_eq!(groups[0].rules[0].labels["env"], "z");
        assert_eq!(groups[0].rules[0].labels["team"], "x");
        assert!(groups[0].rules[1].alert);
        assert!(read_rules("f", "").unwrap().is_empty());
    }

    #[test]
    fn refuses_what_prometheus_refuses() {
        let one = |rule: &str| read_rules("f", &format!("groups:\n- name: a\n  rules:\n  - {rule}\n"));
        for (rule, part) in [
            ("{record: a, alert: b, expr: up}", "one of"),
            ("{expr: up}", "one of"),
            ("{record: a, expr: 'up ==='}", "1:6: parse error"),
            ("{record: a, expr: up, for: 5m}", "belong to alerts"),
            ("{record: 'a{b=\"c\"}', expr: up}", "braces present"),
            ("{record: a, expr: up, labels: {__name__: b}}", "invalid label name"),
            ("{record: a, expr: up, colour: red}", "colour"),
            ("{alert: a, expr: up, for: long}", "duration"),
        ] {
            let why = one(rule).unwrap_err().to_string();
            assert!(why.contains(part), "{rule}: {why}");
        }
        assert!(read_rules("f", "groups: [{name: a}, {name: a}]").is_err());
    }
}
