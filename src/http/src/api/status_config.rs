//! `/api/v1/status/config`: the configuration in force, secrets redacted.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::codec::reply::{Notes, success};
use crate::state::ApiState;

/// Answers GET.
pub async fn handle(state: web::Data<ApiState>) -> HttpResponse {
    success(&json!({ "yaml": state.node.config_yaml() }).to_string(), Notes::default())
}
