//! What this node reports of itself to peers and to its own API, as JSON.
//!
//! A kind is a word, and behind a space its arguments as JSON: `targets`, `members`, `record`, `slots`, `exemplars {…}`, `metadata {…}`,
//! `target_metadata {…}`, `tsdb {…}`, `source {…}`. What does not parse is no report.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use koios_actors::ingest::HeadViews;
use koios_actors::scrape::pool::Tell;
use koios_actors::scrape::{Relief, Scales, Sources, TargetBoard, sources};
use koios_cluster::{Gossip, SoleRange, told};
use koios_model::metadata::MetricMetadata;
use koios_model::{Labels, Matcher, format};
use koios_query::Reports;
use serde_json::{Map, Value, json};

use crate::admin::Admin;
use crate::joining::Remembered;

/// The report of whom a node sees: names and generations.
pub const MEMBERS: &str = "members";
/// The report of what a node believes that another one lost, and held alone.
pub const LOST: &str = "lost";

/// Most entries of each list in the report of the head.
const TSDB_MAX: u64 = 10_000;

/// This node's reports, and what it does for peers.
pub struct OwnReports {
    /// Whom this node sees.
    pub gossip: Arc<Gossip>,
    pub board: Arc<TargetBoard>,
    pub heads: Arc<HeadViews>,
    /// What new owners of scrape slots say.
    pub relief: Arc<Relief>,
    /// How much this node scrapes.
    pub scales: Arc<Scales>,
    /// Tells a node something.
    pub tell: Tell,
    /// Servers that tell targets.
    pub sources: Arc<Sources>,
    pub admin: Arc<Admin>,
}

#[async_trait]
impl Reports for OwnReports {
    fn report(&self, kind: &str) -> Option<String> {
        if kind == "targets" {
            return Some(self.board.to_json());
        }
        if kind == MEMBERS {
            let view = self.gossip.view();
            let alive = view.members.values().filter(|m| m.is_alive());
            return Some(
                json!(alive.map(|m| (m.name.as_str(), m.generation)).collect::<Vec<_>>()).to_string(),
            );
        }
        if kind == told::REPORT {
            return told::say(&self.gossip.view());
        }
        if kind == "slots" {
            return Some(self.board.slots_json(|key, slot| self.scales.taken_from(key, slot)));
        }
        let (word, arguments) = kind.split_once(' ')?;
        let ask: Value = serde_json::from_str(arguments).ok()?;
        let report = match word {
            LOST => self.lost(&ask)?,
            "exemplars" => self.exemplars(&ask)?,
            "metadata" => self.metadata(&ask)?,
            "tsdb" => {
                let limit = ask["limit"].as_u64().unwrap_or(10).min(TSDB_MAX) as usize;
                return Some(crate::status::tsdb(&self.heads, limit));
            }
            "target_metadata" => self.target_metadata(&ask)?,
            sources::REPORT => self.sources.report(&ask)?,
            _ => return None,
        };
        Some(report.to_string())
    }

    async fn act(&self, body: &[u8]) -> Result<(), String> {
        // Between nodes, and no operator's business.
        let ask = serde_json::from_slice::<Value>(body).unwrap_or_default();
        match (ask.get("covered"), ask.get("offered"), ask.get("taken")) {
            (Some(covered), ..) => self.relief.hear(covered),
            (_, Some(offered), _) => self.scales.hear_offer(offered, &self.gossip.view(), &self.tell),
            (.., Some(taken)) => self.scales.hear_taken(taken),
            _ => self.admin.act(body).await,
        }
    }
}

/// The selectors in `match`.
///
/// # Errors
/// When one does not parse.
pub fn matcher_sets(ask: &Value) -> Result<Vec<Vec<Matcher>>, String> {
    let texts = ask["match"].as_array().ok_or("match is missing")?;
    let read = |text: &Value| koios_promql::parse_selector(text.as_str().unwrap_or_default());
    texts.iter().map(|t| read(t).map_err(|e| e.to_string())).collect()
}

fn pairs(labels: &Labels) -> Map<String, Value> {
    labels.iter().map(|(n, v)| (n.to_owned(), Value::from(v))).collect()
}

fn words(m: &MetricMetadata) -> Value {
    json!({ "type": m.kind.as_str(), "help": m.help, "unit": m.unit })
}

impl OwnReports {
    fn exemplars(&self, ask: &Value) -> Option<Value> {
        let sets = matcher_sets(ask).ok()?;
        let found = self.heads.exemplars(&sets, ask["start"].as_i64()?, ask["end"].as_i64()?).ok()?;
        let series = found.into_iter().map(|s| {
            let exemplars: Vec<Value> = s
                .exemplars
                .iter()
                .map(|e| json!({ "labels": pairs(&e.labels), "value": format::float_f(e.v), "timestamp": e.t as f64 / 1000.0 }))
                .collect();
            json!({ "seriesLabels": pairs(&s.labels), "exemplars": exemplars })
        });
        Some(series.collect())
    }

    fn metadata(&self, ask: &Value) -> Option<Value> {
        let limit = ask["limit"].as_u64()? as usize;
        let per_metric = ask["per_metric"].as_u64()? as usize;
        let metric = ask["metric"].as_str();
        let mut all = self.board.metadata(metric, limit, per_metric);
        for (name, said) in self.heads.metadata(metric).ok()? {
            if let Some(have) = all.get_mut(&name) {
                if have.len() < per_metric {
                    have.insert(said);
                }
            } else if all.len() < limit && per_metric > 0 {
                all.insert(name, [said].into());
            }
        }
        let all: BTreeMap<_, _> =
            all.iter().map(|(n, s)| (n, s.iter().map(words).collect::<Vec<_>>())).collect();
        Some(json!(all))
    }

    /// What this node believes that another one lost, and held alone.
    fn lost(&self, ask: &Value) -> Option<Value> {
        let view = self.gossip.view();
        // Who does not see the process that asks yet has not compared it with what was before.
        let seen = view
            .members
            .get(ask["node"].as_str()?)
            .filter(|m| Some(m.generation) == ask["generation"].as_u64())?;
        let head = seen.record.head.clone();
        let ranges = |list: &[SoleRange]| list.iter().map(|r| (r.from, r.until)).collect();
        serde_json::to_value(Remembered { holes: ranges(&head.holes), alone: ranges(&head.lost_alone) }).ok()
    }

    fn target_metadata(&self, ask: &Value) -> Option<Value> {
        let matchers = match ask["target"].as_str() {
            Some(text) => koios_promql::parse_selector(text).ok()?,
            None => Vec::new(),
        };
        let metric = ask["metric"].as_str();
        let lines = self.board.target_metadata(&matchers, metric, ask["limit"].as_u64()? as usize);
        let line = |l: koios_actors::scrape::board::TargetMetadata| {
            let mut line = words(&l.metadata);
            line["target"] = Value::Object(pairs(&l.target));
            if metric.is_none() {
                line["metric"] = Value::from(l.metric);
            }
            line
        };
        Some(lines.into_iter().map(line).collect())
    }
}
