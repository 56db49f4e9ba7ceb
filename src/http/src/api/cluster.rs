//! `/api/v1/cluster`: the cluster as this node sees it.

use actix_web::{HttpResponse, web};
use koios_cluster::{ClusterView, Liveness, Member};
use koios_model::timestamp::rfc3339;
use serde_json::{Value, json};

use crate::codec::reply::{Notes, success};
use crate::state::ApiState;

/// Answers GET, ready or not.
pub async fn handle(state: web::Data<ApiState>) -> HttpResponse {
    let data = describe(&state.front.view(), state.clock.now_ms());
    success(&data.to_string(), Notes::default())
}

/// The view as JSON.
pub fn describe(view: &ClusterView, now_ms: i64) -> Value {
    let nodes: Vec<Value> = view.members.values().map(|m| node(m)).collect();
    let health = Health::of(view);
    json!({
        "observer": view.me,
        "generatedAt": rfc3339(now_ms),
        "cluster": view.cluster,
        "epoch": view.seq,
        "ringHash": format!("{:016x}", view.ring_hash()),
        "health": { "state": health.state, "sentence": health.sentence, "disagree": health.disagree },
        "nodes": nodes,
    })
}

fn node(m: &Member) -> Value {
    let r = &m.record;
    let since = match m.liveness {
        Liveness::Alive => r.since,
        Liveness::Dead { since } => since,
    };
    json!({
        "name": m.name,
        "state": m.shown_state(),
        "since": rfc3339(since),
        "zone": r.zone,
        "http": r.http.to_string(),
        "grpc": r.rpc.to_string(),
        "gossip": m.gossip.to_string(),
        "version": r.version,
        "roles": r.roles.names(),
        "weight": r.weight,
        "generation": m.generation,
        "bucket": r.bucket,
        "ringHash": format!("{:016x}", r.ring_hash),
        "head": { "minTime": r.head.min_time, "seriesLog2": r.head.series_log2 },
    })
}

/// One sentence on how the cluster is, and what to do when it is not well.
#[derive(Debug, PartialEq, Eq)]
pub struct Health {
    /// `green`, `amber` or `red`.
    pub state: &'static str,
    /// For humans.
    pub sentence: String,
    /// Ready nodes whose own view of the ready nodes differs from this one.
    pub disagree: Vec<String>,
}

impl Health {
    /// Judges a view.
    pub fn of(view: &ClusterView) -> Self {
        let names = |keep: &dyn Fn(&Member) -> bool| -> Vec<String> {
            view.members.values().filter(|m| keep(m)).map(|m| m.name.clone()).collect()
        };
        let ready = names(&|m| m.is_ready());
        let dead = names(&|m| m.shown_state() == "dead");
        let hash = view.ring_hash();
        let disagree = names(&|m| m.is_ready() && m.name != view.me && m.record.ring_hash != hash);
        let total = view.members.values().filter(|m| m.shown_state() != "left").count();
        let (state, sentence) = match (ready.len(), dead.len()) {
            (0, _) => (
                "red",
                "no node is ready; wait for the logs to be replayed, or look at the nodes' logs".to_owned(),
            ),
            (n, 0) if n == total => ("green", format!("all {n} nodes are ready")),
            (n, 0) => ("amber", format!("{n} of {total} nodes are ready, the rest are starting or draining")),
            (n, 1) => (
                "amber",
                format!(
                    "{n} of {total} nodes are ready; {} is dead and its replicas answer: restart it, or remove it for good",
                    dead[0]
                ),
            ),
            (n, _) => (
                "red",
                format!(
                    "{n} of {total} nodes are ready; {} are dead and answers may be incomplete: restart them",
                    dead.join(", ")
                ),
            ),
        };
        Self { state, sentence, disagree }
    }
}
