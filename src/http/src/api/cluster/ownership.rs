//! `/api/v1/cluster/ownership?job=&limit=`: which node should scrape which slot of which target, and which does.
//!
//! Who should is computed from this node's view; who does is asked of every node. A slot that nobody scrapes is
//! uncovered, one that several scrape is double; for a moment after a change either is normal. A slot that its owner by rank
//! declined for its load has `declined`: by whom, who took it, until when. `standsStill` says that
//! ownership does not follow the ready nodes now, because too many vanished at once.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use koios_cluster::ClusterView;
use koios_query::picture::explain;
use serde_json::{Value, json};

use super::coverage::number;
use crate::codec::params::Params;
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

const LIMIT: i64 = 1000;
const LIMIT_MAX: i64 = 100_000;

/// Answers GET; a node that does not report is named in a warning.
///
/// # Errors
/// `bad_data` for a limit that is none.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let limit = number(&params, "limit", LIMIT, LIMIT_MAX)? as usize;
    let (held, mut notes) = slots(&state).await?;
    let view = state.owning.borrow().clone();
    let mut data = merge(&view, state.replicas, held, params.first("job"), limit);
    data["standsStill"] =
        Value::from(view.own().is_some() && view.ring_hash() != state.front.view().ring_hash());
    if data["targets"].as_array().is_some_and(|t| (t.len() as u64) < data["count"].as_u64().unwrap_or(0)) {
        notes = notes.truncated();
    }
    Ok(success(&data.to_string(), notes))
}

/// Slots that nodes scrape: node name and entry.
///
/// # Errors
/// `internal` when the work was lost.
pub(super) async fn slots(state: &ApiState) -> Result<(Vec<(String, Value)>, Notes), ApiError> {
    let node = state.node.clone();
    let peers = state.on_net(async move { Ok::<_, ApiError>(node.collect("slots").await) }).await?;
    let own = state.node.report("slots").ok_or_else(|| "no such report".to_owned());
    let mut notes = Notes::default();
    let mut out = Vec::new();
    for (name, report) in [(state.facts.node.clone(), own)].into_iter().chain(peers) {
        match report.and_then(|json| serde_json::from_str::<Vec<Value>>(&json).map_err(|e| e.to_string())) {
            Ok(list) => out.extend(list.into_iter().map(|entry| (name.clone(), entry))),
            Err(why) => notes.warnings.push(format!("slots of node {name} are not shown: {why}")),
        }
    }
    Ok((out, notes))
}

/// Key of an entry.
pub(super) fn key(entry: &Value) -> Option<u64> {
    u64::from_str_radix(entry["key"].as_str()?, 16).ok()
}

/// A slot that its owner by rank declined: by whom, who took it, and until when. As whoever took it says.
pub(super) fn declined(node: &str, entry: &Value) -> Option<Value> {
    let (by, until) = (entry["takenFrom"].as_str()?, entry["takenUntil"].as_str()?);
    Some(json!({ "by": by, "to": node, "until": until }))
}

struct Target {
    entry: Value,
    /// Slots that are not with their owner by rank.
    declined: BTreeMap<u64, Value>,
    /// Who scrapes each slot.
    scrapers: BTreeMap<u64, Vec<String>>,
}

fn merge(
    view: &ClusterView,
    replicas: u8,
    held: Vec<(String, Value)>,
    job: Option<&str>,
    limit: usize,
) -> Value {
    let mut targets: BTreeMap<u64, Target> = BTreeMap::new();
    for (node, entry) in held {
        let (Some(key), Some(slot)) = (key(&entry), entry["slot"].as_u64()) else { continue };
        if job.is_none_or(|j| entry["job"] == j) {
            let declined = declined(&node, &entry);
            let new = || Target { entry, declined: BTreeMap::new(), scrapers: BTreeMap::new() };
            let target = targets.entry(key).or_insert_with(new);
            target.declined.extend(declined.map(|d| (slot, d)));
            target.scrapers.entry(slot).or_default().push(node);
        }
    }
    let (mut list, mut by_node) = (Vec::new(), BTreeMap::<String, u64>::new());
    let (mut slots, mut uncovered, mut double) = (0, 0, 0);
    for (key, target) in &targets {
        let (owners, _) = explain::target(view, *key, replicas);
        let mut shown = Vec::new();
        for (slot, owner) in owners.iter().enumerate() {
            let scrapers = target.scrapers.get(&(slot as u64)).cloned().unwrap_or_default();
            slots += 1;
            uncovered += u64::from(scrapers.is_empty());
            double += u64::from(scrapers.len() > 1);
            let declined = target.declined.get(&(slot as u64)).filter(|d| d["by"] == **owner);
            let holder = declined.and_then(|d| d["to"].as_str()).unwrap_or(owner);
            *by_node.entry(holder.to_owned()).or_default() += 1;
            let mut line = json!({ "slot": slot, "owner": owner, "scrapers": scrapers });
            if let Some(declined) = declined {
                line["declined"] = declined.clone();
            }
            shown.push(line);
        }
        if list.len() < limit {
            list.push(json!({
                "key": target.entry["key"],
                "job": target.entry["job"],
                "url": target.entry["url"],
                "labels": target.entry["labels"],
                "slots": shown,
            }));
        }
    }
    json!({
        "observer": view.me,
        "count": targets.len(),
        "slots": slots,
        "uncovered": uncovered,
        "double": double,
        "slotsByNode": by_node,
        "targets": list,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_nodes_nobody_owns_anything_and_the_limit_holds() {
        let entry = |key: u64, slot: u64| json!({ "key": format!("{key:016x}"), "slot": slot, "job": "j" });
        let held =
            vec![("a".to_owned(), entry(1, 0)), ("b".to_owned(), entry(1, 1)), ("a".to_owned(), entry(2, 0))];
        let data = merge(&ClusterView::default(), 2, held.clone(), None, 1);
        assert_eq!((&data["count"], data["targets"].as_array().unwrap().len()), (&json!(2), 1));
        assert_eq!((&data["slots"], &data["uncovered"]), (&json!(0), &json!(0)));
        assert_eq!(merge(&ClusterView::default(), 2, held, Some("k"), 9)["count"], 0);
    }
}
