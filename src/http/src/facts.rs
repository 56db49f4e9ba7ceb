//! Facts beside samples of the whole cluster and of the endpoints beside it: rules, targets, metadata, exemplars, sizes of heads.
//!
//! Owns who is asked (the reports of all nodes, and `koios_query::endpoints`) and how several answers become one; the endpoints of the
//! API and the gRPC services answer from it alike. Invariant: who does not answer is named in a warning.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use koios_model::{Labels, Matcher};
use koios_proto::thanos::{RulesRequest, rules_request};
use koios_query::{Front, endpoints};
use koios_store::storeapi::facts::{Facts, FactsAsk, Offer};
use koios_store::storeapi::{Status, Told};
use serde_json::{Map, Value, json};

use crate::api::{metadata, query_exemplars, targets};
use crate::state::NodePort;

/// Longest wait for one endpoint.
const PATIENCE: Duration = Duration::from_secs(10);
/// Entries of each list about a head when the question says nothing.
const TOP: i32 = 10;

/// Facts from everybody.
#[derive(Clone)]
pub struct ClusterFacts {
    /// Knows the endpoints.
    pub front: Arc<Front>,
    /// Knows this node and its peers.
    pub node: Arc<dyn NodePort>,
    /// Name of this node.
    pub me: String,
}

impl ClusterFacts {
    /// A report of every node, this one first, by name; who does not report is named.
    pub async fn reports(&self, kind: &str) -> (Vec<(String, Value)>, Vec<String>) {
        let read = |json: String| serde_json::from_str::<Value>(&json).map_err(|e| e.to_string());
        let own = self.node.report(kind).and_then(|json| read(json).ok());
        let mut reports: Vec<(String, Value)> = own.into_iter().map(|v| (self.me.clone(), v)).collect();
        let mut warnings = Vec::new();
        let word = kind.split(' ').next().unwrap_or_default().replace('_', " ");
        for (name, report) in self.node.collect(kind).await {
            match report.and_then(read) {
                Ok(value) => reports.push((name, value)),
                Err(why) => warnings.push(format!("{word} of node {name} is not shown: {why}")),
            }
        }
        (reports, warnings)
    }

    /// What the endpoints beside the cluster say, each for itself.
    pub async fn outside(&self, ask: &FactsAsk, via: &[String]) -> Told<Value> {
        endpoints::facts(&self.front.coordinator().federation, ask, via, PATIENCE).await
    }

    /// Reports of the kind `kind`, and what the endpoints say to `ask`, without names.
    pub async fn all(&self, kind: &str, ask: &FactsAsk, via: &[String]) -> Told<Value> {
        let ((reports, mut warnings), outside) =
            futures::future::join(self.reports(kind), self.outside(ask, via)).await;
        let found = reports.into_iter().map(|(_, v)| v).chain(outside.found).collect();
        warnings.extend(outside.warnings);
        Told { found, warnings }
    }

    async fn targets(&self, ask: &FactsAsk, via: &[String]) -> Told<Value> {
        let told = self.all_targets(ask, via).await;
        let wanted = match ask {
            FactsAsk::Targets(r) if r.state == 1 => "active",
            FactsAsk::Targets(r) if r.state == 2 => "dropped",
            _ => "any",
        };
        let data = targets::merge(&told.found, wanted, None);
        let found = json!({ "active": data["activeTargets"], "dropped": data["droppedTargets"] });
        Told { found: vec![found], warnings: told.warnings }
    }

    /// Targets of every node and endpoint, by name.
    pub async fn all_targets(&self, ask: &FactsAsk, via: &[String]) -> Told<(String, Value)> {
        let ((mut found, mut warnings), outside) =
            futures::future::join(self.reports("targets"), self.outside(ask, via)).await;
        found.extend(outside.found.into_iter().map(|v| (String::new(), v)));
        warnings.extend(outside.warnings);
        Told { found, warnings }
    }

    async fn sizes(&self, limit: i32, ask: &FactsAsk, via: &[String]) -> Told<Value> {
        let kind = format!("tsdb {}", json!({ "limit": limit }));
        let ((reports, mut warnings), outside) =
            futures::future::join(self.reports(&kind), self.outside(ask, via)).await;
        let own = reports.into_iter().map(|(node, sizes)| (format!("node {node}"), sizes));
        let mut all: Map<String, Value> = own.collect();
        outside.found.into_iter().filter_map(|v| v.as_object().cloned()).for_each(|heads| all.extend(heads));
        warnings.extend(outside.warnings);
        Told { found: vec![Value::Object(all)], warnings }
    }
}

#[async_trait]
impl Facts for ClusterFacts {
    async fn facts(&self, ask: FactsAsk, via: Vec<String>) -> Result<Told<Value>, Status> {
        let bad = Status::invalid_argument;
        let one = |found, warnings| Told { found: vec![found], warnings };
        Ok(match &ask {
            FactsAsk::Rules(r) => {
                let told = self.outside(&ask, &via).await;
                one(pick_groups(merged_groups(told.found), r).map_err(bad)?, told.warnings)
            }
            FactsAsk::Targets(_) => self.targets(&ask, &via).await,
            FactsAsk::Metadata(r) => {
                let limit = usize::try_from(r.limit).unwrap_or(metadata::FAMILIES_MAX);
                let metric = Some(&r.metric).filter(|m| !m.is_empty());
                let kind = metadata::report(metric.map(String::as_str), limit, metadata::SAYINGS_MAX);
                let told = self.all(&kind, &ask, &via).await;
                one(metadata::merge(&told.found, limit, metadata::SAYINGS_MAX), told.warnings)
            }
            FactsAsk::Exemplars(r) => {
                let expr = koios_promql::parse(&r.query).map_err(|e| bad(e.to_string()))?;
                let kind = query_exemplars::report(&expr, r.start, r.end);
                let told = self.all(&kind, &ask, &via).await;
                one(query_exemplars::merge(&told.found), told.warnings)
            }
            FactsAsk::Status(r) => {
                let limit = if r.limit > 0 { r.limit } else { TOP };
                self.sizes(limit, &ask, &via).await
            }
        })
    }

    fn offers(&self) -> Vec<Offer> {
        Offer::ALL.into()
    }
}

/// Groups of several answers, each once.
fn merged_groups(answers: Vec<Value>) -> Value {
    let mut seen = BTreeSet::new();
    let lists =
        answers.into_iter().filter_map(|v| if let Value::Array(list) = v { Some(list) } else { None });
    lists.flatten().filter(|g| seen.insert(g.to_string())).collect()
}

/// The groups and rules that a question wants.
///
/// # Errors
/// A selector that does not parse.
pub fn pick_groups(groups: Value, ask: &RulesRequest) -> Result<Value, String> {
    let read = |text: &String| koios_promql::parse_selector(text).map_err(|e| e.to_string());
    let selectors: Vec<Vec<Matcher>> = ask.matcher_string.iter().map(read).collect::<Result<_, _>>()?;
    let named = |list: &[String], v: &Value| list.is_empty() || list.iter().any(|n| v == n);
    let kind = match ask.r#type() {
        rules_request::Type::All => None,
        rules_request::Type::Alert => Some("alerting"),
        rules_request::Type::Record => Some("recording"),
    };
    let matches = |rule: &Value| {
        let pairs = rule["labels"].as_object().into_iter().flatten();
        let labels = Labels::from_pairs(pairs.filter_map(|(n, v)| Some((n.as_str(), v.as_str()?))));
        let all = |set: &Vec<Matcher>| set.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")));
        selectors.is_empty() || selectors.iter().any(all)
    };
    let wanted = |rule: &Value| {
        kind.is_none_or(|k| rule["type"] == k) && named(&ask.rule_name, &rule["name"]) && matches(rule)
    };
    let Value::Array(groups) = groups else { return Ok(json!([])) };
    let whole = kind.is_none() && ask.rule_name.is_empty() && selectors.is_empty();
    let picked = groups.into_iter().filter_map(|mut g| {
        if !named(&ask.rule_group, &g["name"]) || !named(&ask.file, &g["file"]) {
            return None;
        }
        if let Some(rules) = g["rules"].as_array_mut() {
            rules.retain(wanted);
        }
        (whole || g["rules"].as_array().is_some_and(|r| !r.is_empty())).then_some(g)
    });
    Ok(picked.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_rules_that_are_wanted() {
        let rule = |kind: &str, name: &str, team: &str| json!({"type": kind, "name": name, "labels": {"team": team}});
        let g = json!({"name": "g", "file": "a.yml", "rules": [rule("alerting", "A", "x"), rule("recording", "r", "y")]});
        let h = json!({"name": "h", "file": "b.yml", "rules": []});
        let all = merged_groups(vec![json!([g, h]), json!([g]), json!(3)]);
        let picked = |ask: RulesRequest| -> Vec<String> {
            let found = pick_groups(all.clone(), &ask).unwrap();
            let rules = |g: &Value| {
                let names =
                    g["rules"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap().to_owned());
                format!("{}:{}", g["name"].as_str().unwrap(), names.collect::<Vec<_>>().join(","))
            };
            found.as_array().unwrap().iter().map(rules).collect()
        };
        let ask = RulesRequest::default;
        assert_eq!(picked(ask()), ["g:A,r", "h:"]);
        assert_eq!(picked(RulesRequest { r#type: 1, ..ask() }), ["g:A"]);
        assert_eq!(picked(RulesRequest { r#type: 2, ..ask() }), ["g:r"]);
        assert_eq!(picked(RulesRequest { rule_name: vec!["r".into()], ..ask() }), ["g:r"]);
        assert_eq!(picked(RulesRequest { rule_group: vec!["h".into()], ..ask() }), ["h:"]);
        assert_eq!(picked(RulesRequest { file: vec!["a.yml".into()], ..ask() }), ["g:A,r"]);
        assert_eq!(picked(RulesRequest { matcher_string: vec!["{team=\"x\"}".into()], ..ask() }), ["g:A"]);
        assert!(pick_groups(json!([]), &RulesRequest { matcher_string: vec!["{".into()], ..ask() }).is_err());
    }
}
