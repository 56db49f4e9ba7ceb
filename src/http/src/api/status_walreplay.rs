//! `/api/v1/status/walreplay`: how far the log has been read; answered while it is being read.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::codec::reply::{Notes, success};
use crate::state::ApiState;

/// Answers GET.
pub async fn handle(state: web::Data<ApiState>) -> HttpResponse {
    let (min, max, current) = state.node.wal_replay();
    success(&json!({ "min": min, "max": max, "current": current }).to_string(), Notes::default())
}
