//! `/api/v1/status/runtimeinfo`. The keys are Prometheus'; those about Go's runtime say what is true here.

use actix_web::{HttpResponse, web};
use koios_model::timestamp::rfc3339;
use serde_json::json;

use crate::codec::reply::{Notes, success};
use crate::state::ApiState;

/// Answers GET.
pub async fn handle(state: web::Data<ApiState>) -> HttpResponse {
    let (facts, now) = (&state.facts, state.node.runtime());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let data = json!({
        "startTime": rfc3339(facts.start_ms),
        "CWD": facts.cwd,
        "hostname": facts.hostname,
        "serverTime": rfc3339(state.clock.now_ms()),
        "reloadConfigSuccess": now.reload_ok,
        "lastConfigTime": rfc3339(now.config_time_ms),
        "corruptionCount": now.corruptions,
        "goroutineCount": 0,
        "GOMAXPROCS": threads,
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": now.retention,
    });
    success(&data.to_string(), Notes::default())
}
