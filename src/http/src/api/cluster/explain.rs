//! `/api/v1/cluster/explain`: with `query=` (and `time`, or `start` and `end`) who would be asked for which part of the
//! data and why; with `target=` (its URL, its `instance`, or its key) who scrapes a target and why.
//!
//! `lines` says the same in sentences, for a terminal.

use actix_web::{HttpResponse, web};
use koios_model::timestamp::rfc3339;
use koios_query::picture::{Explained, explain};
use koios_query::{QueryRequest, Terms};
use serde_json::{Value, json};

use super::ownership::{declined, key, slots};
use crate::codec::params::Params;
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

/// Nodes and the slots they scrape, each with what is said when its owner by rank declined it.
type Scrapers = Vec<(String, u64, Option<Value>)>;

/// Most targets that one question explains.
const TARGETS_MAX: usize = 20;

/// Answers GET.
///
/// # Errors
/// `bad_data` when neither a query nor a target is asked about, or the query does not parse; `not_found` for a target
/// that nobody scrapes.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let given = |name: &str| params.first(name).filter(|t| !t.is_empty()).map(str::to_owned);
    match (given("query"), given("target")) {
        (Some(query), None) => explain_query(&state, &params, query),
        (None, Some(target)) => explain_target(&state, &target).await,
        _ => Err(ApiError::bad_data(
            "explain wants either query=… (with time=, or start= and end=) or target=… (URL, instance or key)".into(),
        )),
    }
}

fn explain_query(state: &ApiState, params: &Params, query: String) -> Result<HttpResponse, ApiError> {
    let now = state.clock.now_ms();
    let end_ms = params.time("end", Some(params.time("time", Some(now))?))?;
    let start_ms = params.time("start", Some(end_ms))?;
    let step_ms = if start_ms == end_ms { 0 } else { params.duration("step")?.unwrap_or(15_000) };
    let terms = Terms::default();
    let (lookback_ms, timeout_ms, partial) = (None, None, None);
    let request = QueryRequest { query, start_ms, end_ms, step_ms, lookback_ms, timeout_ms, partial, terms };
    let (mut selects, mut lines) = (Vec::new(), Vec::new());
    for s in state.front.selects(&request)? {
        let e = state.front.look(now, |facts| explain::range(facts, s.min_time_ms, s.max_time_ms));
        let matchers: Vec<String> = s.matchers.iter().map(ToString::to_string).collect();
        let (from, until) = (rfc3339(s.min_time_ms), rfc3339(s.max_time_ms));
        lines.push(format!("{{{}}} from {from} to {until}", matchers.join(",")));
        lines.extend(said(&e));
        selects.push(select(&e, &matchers, &from, &until));
    }
    let data = json!({ "observer": state.facts.node, "selects": selects, "lines": lines });
    Ok(success(&data.to_string(), Notes::default()))
}

fn said(e: &Explained) -> Vec<String> {
    let mut lines = Vec::new();
    for a in &e.asked {
        let mut parts = Vec::new();
        if a.own {
            parts.push("its own data".to_owned());
        }
        if !a.blocks.is_empty() {
            parts.push(format!("{} blocks", a.blocks.len()));
        }
        if a.whole_bucket {
            parts.push("its bucket".to_owned());
        }
        lines.push(format!("  ask {} for {}: {}", a.node, parts.join(" and "), a.why.join("; ")));
    }
    lines.extend(e.not_asked.iter().map(|(node, why)| format!("  do not ask {node}: {why}")));
    lines.extend(e.gaps.iter().map(|g| format!("  {}", g.to_warning())));
    if e.gaps.is_empty() {
        lines.push("  the answer will be complete if all of them answer".to_owned());
    }
    lines
}

fn select(e: &Explained, matchers: &[String], from: &str, until: &str) -> Value {
    json!({
        "matchers": matchers,
        "from": from,
        "until": until,
        "ask": e.asked.iter().map(|a| json!({
            "node": a.node,
            "own": a.own,
            "blocks": a.blocks,
            "wholeBucket": a.whole_bucket,
            "why": a.why,
        })).collect::<Value>(),
        "notAsked": e.not_asked.iter().map(|(node, why)| json!({ "node": node, "why": why })).collect::<Value>(),
        "missing": e.gaps.iter().map(|g| json!({
            "from": rfc3339(g.from),
            "until": rfc3339(g.until),
            "holders": g.holders,
            "why": g.reason,
        })).collect::<Value>(),
    })
}

async fn explain_target(state: &ApiState, wanted: &str) -> Result<HttpResponse, ApiError> {
    let (held, notes) = slots(state).await?;
    let is_it = |e: &Value| [&e["url"], &e["labels"]["instance"], &e["key"]].iter().any(|v| *v == wanted);
    let mut found: Vec<(u64, Value, Scrapers)> = Vec::new();
    for (node, entry) in held.into_iter().filter(|(_, e)| is_it(e)) {
        let (Some(key), Some(slot)) = (key(&entry), entry["slot"].as_u64()) else { continue };
        let scraper = (node.clone(), slot, declined(&node, &entry));
        match found.iter().position(|(k, _, _)| *k == key) {
            Some(at) => found[at].2.push(scraper),
            None if found.len() < TARGETS_MAX => found.push((key, entry, vec![scraper])),
            None => {}
        }
    }
    if found.is_empty() {
        let message =
            format!("no node scrapes a target whose URL, instance or key is {wanted:?}; see /api/v1/targets");
        return Err(ApiError { code: koios_model::Code::NotFound, message });
    }
    let view = state.owning.borrow().clone();
    let (mut targets, mut lines) = (Vec::new(), Vec::new());
    for (key, entry, scrapers) in found {
        let (owners, rank) = explain::target(&view, key, state.replicas);
        lines.push(format!("target {} of job {}", text(&entry["url"]), text(&entry["job"])));
        for (slot, owner) in owners.iter().enumerate() {
            let by: Vec<&str> =
                scrapers.iter().filter(|(_, s, _)| *s == slot as u64).map(|(n, ..)| n.as_str()).collect();
            let by = if by.is_empty() { "nobody yet".to_owned() } else { by.join(" and ") };
            lines.push(format!("  slot {slot} belongs to {owner} and is scraped by {by}"));
            for (_, _, said) in scrapers.iter().filter(|(_, s, _)| *s == slot as u64) {
                if let Some(d) = said.as_ref().filter(|d| d["by"] == *owner) {
                    let (to, until) = (text(&d["to"]), text(&d["until"]));
                    lines.push(format!("  slot {slot} was declined by {owner}, which had too much, taken by {to} until {until}"));
                }
            }
        }
        lines.push(format!(
            "  rank by rendezvous over its key, the best of each zone first: {}",
            rank.join(", ")
        ));
        targets.push(json!({
            "key": entry["key"],
            "job": entry["job"],
            "url": entry["url"],
            "labels": entry["labels"],
            "owners": owners,
            "rank": rank,
            "scrapers": scrapers.iter().map(|(n, s, _)| json!({ "node": n, "slot": s })).collect::<Value>(),
        }));
    }
    let data = json!({ "observer": state.facts.node, "targets": targets, "lines": lines });
    Ok(success(&data.to_string(), notes))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
