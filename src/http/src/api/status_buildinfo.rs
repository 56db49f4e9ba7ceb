//! `/api/v1/status/buildinfo`. All values are strings and there is no `features` key: Grafana takes one to
//! mean another product.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::codec::reply::{Notes, success};
use crate::state::ApiState;

/// The Prometheus whose API this is.
pub const API_LEVEL: &str = "3.14.0";

/// Answers GET.
pub async fn handle(state: web::Data<ApiState>) -> HttpResponse {
    let f = &state.facts;
    let data = json!({
        "version": API_LEVEL,
        "revision": f.revision,
        "branch": "main",
        "buildUser": "",
        "buildDate": "",
        "goVersion": f.rustc,
        "application": "Koios",
        "applicationVersion": f.version,
    });
    success(&data.to_string(), Notes::default())
}
