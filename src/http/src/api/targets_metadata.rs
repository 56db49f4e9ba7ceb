//! `/api/v1/targets/metadata`: what single targets say about metric families.

use std::collections::BTreeSet;

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use crate::codec::params::{Params, invalid};
use crate::codec::reply::{ApiError, success};
use crate::state::ApiState;

/// Most lines of one answer.
const LINES_MAX: usize = 100_000;

/// Answers GET.
///
/// # Errors
/// `bad_data` for a selector or a limit that is none.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let limit = super::metadata::number(&params, "limit", LINES_MAX)?;
    let target = params.first("match_target");
    if let Some(text) = target {
        koios_promql::parse_selector(text).map_err(|e| invalid("match_target", &e.to_string()))?;
    }
    let metric = params.first("metric");
    let ask = json!({ "target": target, "metric": metric, "limit": limit });
    let (reports, notes) = super::reports(&state, format!("target_metadata {ask}")).await?;
    let mut seen = BTreeSet::new();
    let lines =
        reports.into_iter().filter_map(|r| if let Value::Array(lines) = r { Some(lines) } else { None });
    let lines: Vec<Value> = lines.flatten().filter(|l| seen.insert(l.to_string())).take(limit).collect();
    Ok(success(&Value::Array(lines).to_string(), notes))
}
