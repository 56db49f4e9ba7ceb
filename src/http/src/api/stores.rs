//! `/api/v1/stores`: the endpoints beside the cluster and what each said last, by component, in Thanos' shape.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use koios_model::timestamp::rfc3339;
use koios_store::federation::Endpoint;
use serde_json::{Value, json};

use crate::codec::reply::{Notes, success};
use crate::state::ApiState;

/// Answers GET.
pub async fn handle(state: web::Data<ApiState>) -> HttpResponse {
    let view = state.front.coordinator().federation.view();
    let mut by_kind: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (address, endpoint) in view.iter() {
        // One that never answered is of no kind yet.
        let kind = endpoint.info.as_ref().map_or("unknown", |i| i.kind.as_str());
        by_kind.entry(kind).or_default().push(shown(address, endpoint));
    }
    success(&json!(by_kind).to_string(), Notes::default())
}

fn shown(address: &str, endpoint: &Endpoint) -> Value {
    let info = endpoint.info.as_ref();
    let set = |l: &koios_model::Labels| {
        l.iter().map(|(n, v)| (n.to_owned(), json!(v))).collect::<serde_json::Map<_, _>>()
    };
    let sets: Vec<_> = info.iter().flat_map(|i| i.label_sets.iter().map(set)).collect();
    json!({
        "name": address,
        "lastCheck": rfc3339(endpoint.checked_ms),
        "lastError": endpoint.error,
        "labelSets": sets,
        "minTime": info.map_or(i64::MAX, |i| i.mint),
        "maxTime": info.map_or(i64::MIN, |i| i.maxt),
    })
}
