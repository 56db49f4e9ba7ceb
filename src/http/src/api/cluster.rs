//! `/api/v1/cluster`: the cluster as this node sees it. Its parts are below it, one file each.

pub mod coverage;
pub mod events;
pub mod explain;
pub mod nodes;
pub mod ownership;

use actix_web::{HttpResponse, web};
use koios_model::timestamp::rfc3339;
use koios_query::picture::{self, Facts, Health, Level};
use serde_json::{Value, json};

use crate::codec::reply::{Notes, success};
use crate::state::ApiState;

/// Hours of coverage that are shown unless others are asked for.
pub const HOURS: i64 = 24;
/// Columns of the strip in the summary.
const COLUMNS: usize = 48;
/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 3_600_000;

/// Answers GET, ready or not.
pub async fn handle(state: web::Data<ApiState>) -> HttpResponse {
    let mut data = state.front.look(state.clock.now_ms(), describe);
    data["lastEvent"] = Value::from(state.events.last());
    success(&data.to_string(), Notes::default())
}

/// The picture as JSON.
fn describe(facts: &Facts<'_>) -> Value {
    let view = facts.view;
    let agreement = picture::health::agreement(view);
    let coverage = picture::coverage::coverage(facts, HOURS * HOUR_MS, COLUMNS);
    let count = |cover| coverage.columns.iter().filter(|c| c.cover == cover).count();
    json!({
        "observer": view.me,
        "generatedAt": rfc3339(facts.now_ms),
        "cluster": view.cluster,
        "epoch": view.seq,
        "ringHash": format!("{:016x}", view.ring_hash()),
        "health": health(&picture::health::health(facts), &agreement.differing),
        "agreement": {
            "line": agreement.line,
            "ready": agreement.ready,
            "agreeing": agreement.agreeing,
            "differing": agreement.differing,
            "otherBlocks": agreement.other_blocks,
        },
        "coverage": {
            "hours": HOURS,
            "strip": coverage.columns.iter().map(|c| c.cover.glyph()).collect::<String>(),
            "missing": count(picture::Cover::Missing),
            "single": count(picture::Cover::One),
        },
        "nodes": nodes::list(facts),
    })
}

fn health(h: &Health, differing: &[String]) -> Value {
    let issue = |i: &picture::Issue| json!({ "level": level(i.level), "cause": i.cause, "advice": i.advice });
    json!({
        "state": h.level.colour(),
        "level": level(h.level),
        "sentence": h.sentence,
        "disagree": differing,
        "issues": h.issues.iter().map(issue).collect::<Value>(),
    })
}

fn level(level: Level) -> &'static str {
    level.word()
}
