//! `/api/v1/cluster/nodes`: every node this one knows of.

use actix_web::{HttpResponse, web};
use koios_cluster::{Member, SoleRange};
use koios_model::timestamp::rfc3339;
use koios_query::picture::{self, Facts};
use serde_json::{Value, json};

use crate::codec::reply::{Notes, success};
use crate::state::ApiState;

/// Answers GET, ready or not.
pub async fn handle(state: web::Data<ApiState>) -> HttpResponse {
    let data = state
        .front
        .look(state.clock.now_ms(), |facts| json!({ "observer": facts.view.me, "nodes": list(facts) }));
    success(&data.to_string(), Notes::default())
}

/// All of them, by name.
pub(super) fn list(facts: &Facts<'_>) -> Value {
    facts.view.members.values().map(|m| node(facts, m)).collect()
}

fn node(facts: &Facts<'_>, m: &Member) -> Value {
    let r = &m.record;
    json!({
        "name": m.name,
        "state": m.shown_state(),
        "since": rfc3339(picture::since(m)),
        "reachable": !facts.is_unreached(m) && (m.answers() || m.name == facts.view.me),
        "zone": r.zone,
        "http": r.http.to_string(),
        "grpc": r.rpc.to_string(),
        "gossip": m.gossip.to_string(),
        "version": r.version,
        "roles": r.roles.names(),
        "weight": r.weight,
        "generation": m.generation,
        "bucket": r.bucket,
        "blocksDigest": format!("{:016x}", r.catalogue),
        "ringHash": format!("{:016x}", r.ring_hash),
        "agrees": r.ring_hash == facts.view.ring_hash() || m.name == facts.view.me,
        "head": {
            "minTime": r.head.min_time,
            "seriesLog2": r.head.series_log2,
            "sole": ranges(&r.head.sole),
            "zone_sole": ranges(&r.head.zone_sole),
            "holes": ranges(&r.head.holes),
            "lost_alone": ranges(&r.head.lost_alone),
        },
    })
}

/// `[{"from","until"}]` in milliseconds; an open end is null.
fn ranges(list: &[SoleRange]) -> Value {
    let end = |r: &SoleRange| (r.until != i64::MAX).then_some(r.until);
    list.iter().map(|r| json!({ "from": r.from, "until": end(r) })).collect()
}
