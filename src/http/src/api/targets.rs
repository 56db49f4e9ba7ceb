//! `/api/v1/targets`: the targets of the whole cluster and of the endpoints beside it, each once.
//!
//! A target is scraped in several slots by several nodes; the entry shows the lowest slot that is up, and
//! `scrapers` lists all of them. Those of an endpoint have no such list. A node or an endpoint that does not report is named in a
//! warning.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use koios_proto::thanos::TargetsRequest;
use koios_store::storeapi::facts::FactsAsk;
use serde_json::{Map, Value, json};

use crate::codec::params::Params;
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

/// Answers GET.
///
/// # Errors
/// None at present; a silent node becomes a warning.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let facts = state.facts_of_all();
    let ask = FactsAsk::Targets(TargetsRequest::default());
    let told = state.on_net(async move { Ok::<_, ApiError>(facts.all_targets(&ask, &[]).await) }).await?;
    let wanted = params.first("state").unwrap_or("any").to_ascii_lowercase();
    let pool = params.first("scrapePool");
    let notes = Notes { warnings: told.warnings, ..Notes::default() };
    Ok(success(&merge(&told.found, &wanted, pool).to_string(), notes))
}

/// Reports by the name of their node, which is empty for an endpoint, as `data` of the answer.
pub(crate) fn merge(reports: &[(String, Value)], wanted: &str, pool: Option<&str>) -> Value {
    let in_pool = |t: &Value| pool.is_none_or(|p| t["scrapePool"] == p);
    let mut active: BTreeMap<String, Vec<(String, Value)>> = BTreeMap::new();
    let mut dropped: BTreeMap<String, Value> = BTreeMap::new();
    let mut counts: Map<String, Value> = Map::new();
    for (node, report) in reports {
        for t in report["active"].as_array().into_iter().flatten().filter(|t| in_pool(t)) {
            let key = format!("{} {} {}", t["scrapePool"], t["labels"], t["scrapeUrl"]);
            active.entry(key).or_default().push((node.clone(), t.clone()));
        }
        for t in report["dropped"].as_array().into_iter().flatten().filter(|t| in_pool(t)) {
            dropped.insert(t.to_string(), t.clone());
        }
        for (job, n) in report["droppedCounts"].as_object().into_iter().flatten() {
            let most = counts.get(job).and_then(Value::as_u64).unwrap_or(0).max(n.as_u64().unwrap_or(0));
            counts.insert(job.clone(), Value::from(most));
        }
    }
    let mut data = json!({ "activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {} });
    if wanted != "dropped" {
        data["activeTargets"] = active.into_values().map(one_entry).collect();
    }
    if wanted != "active" {
        data["droppedTargets"] = dropped.into_values().collect();
        data["droppedTargetCounts"] = Value::Object(counts);
    }
    data
}

fn one_entry(mut scrapers: Vec<(String, Value)>) -> Value {
    scrapers.sort_by_key(|(node, t)| (t["health"] != "up", t["slot"].as_u64(), node.clone()));
    let list: Vec<Value> = scrapers
        .iter()
        .filter(|(node, _)| !node.is_empty())
        .map(|(node, t)| {
            json!({ "node": node, "slot": t["slot"], "health": t["health"], "lastError": t["lastError"],
                    "lastScrape": t["lastScrape"], "lastScrapeDuration": t["lastScrapeDuration"] })
        })
        .collect();
    let mut entry = scrapers.swap_remove(0).1;
    if let Some(fields) = entry.as_object_mut() {
        fields.remove("slot");
        if !list.is_empty() {
            fields.insert("scrapers".into(), Value::Array(list));
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_shows_once_with_its_scrapers() {
        let report = |health: &str, slot: u8| {
            json!({ "active": [{ "scrapePool": "n", "labels": {"job": "n"}, "scrapeUrl": "u", "health": health,
                      "lastError": "", "slot": slot }], "dropped": [], "droppedCounts": {"n": 2} })
        };
        let data = merge(&[("a".into(), report("down", 0)), ("b".into(), report("up", 1))], "any", None);
        assert_eq!(data["activeTargets"].as_array().unwrap().len(), 1);
        assert_eq!(data["activeTargets"][0]["health"], "up");
        assert_eq!(data["activeTargets"][0]["scrapers"][1]["node"], "a");
        assert_eq!(data["droppedTargetCounts"]["n"], 2);
        assert!(
            merge(&[(String::new(), report("up", 0))], "any", None)["activeTargets"][0]["scrapers"].is_null()
        );
        assert_eq!(merge(&[("a".into(), report("up", 0))], "dropped", None)["activeTargets"], json!([]));
        assert_eq!(merge(&[("a".into(), report("up", 0))], "any", Some("x"))["activeTargets"], json!([]));
    }
}
