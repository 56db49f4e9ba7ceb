//! `/api/v1/status/flags`: command-line flags.

use actix_web::{HttpResponse, web};
use serde_json::{Map, Value};

use crate::codec::reply::{Notes, success};
use crate::state::ApiState;

/// Answers GET.
pub async fn handle(state: web::Data<ApiState>) -> HttpResponse {
    let flags: Map<String, Value> =
        state.facts.flags.iter().map(|(n, v)| (n.clone(), Value::from(v.as_str()))).collect();
    success(&Value::Object(flags).to_string(), Notes::default())
}
