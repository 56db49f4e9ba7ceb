//! `/api/v1/admin/tsdb/*`: deleting series, cleaning up after that, and snapshots. Off unless the node allows it.
//!
//! Deleting and cleaning are done by every node of the cluster, or the error names those that did not; doing it again
//! is safe. A snapshot is of the node that is asked.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use koios_model::{Code, Matcher};
use serde_json::json;

use crate::codec::params::Params;
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

/// Selectors as text, so that every node reads them alike.
pub(super) fn selector_texts(sets: &[&[Matcher]]) -> Vec<String> {
    let text = |set: &&[Matcher]| {
        let matchers: Vec<String> = set.iter().map(ToString::to_string).collect();
        format!("{{{}}}", matchers.join(","))
    };
    sets.iter().map(text).collect()
}

/// What Prometheus answers, with its status, when the flag is not given.
fn disabled() -> HttpResponse {
    let body = "{\"status\":\"error\",\"errorType\":\"unavailable\",\"error\":\"admin APIs disabled\"}";
    HttpResponse::build(StatusCode::INTERNAL_SERVER_ERROR).content_type("application/json").body(body)
}

async fn act(state: &ApiState, body: String) -> Result<HttpResponse, ApiError> {
    let node = state.node.clone();
    let done = state.on_net(async move { Ok::<_, ApiError>(node.act(&body).await) }).await?;
    done.map_err(|message| ApiError { code: Code::Unavailable, message })?;
    Ok(HttpResponse::NoContent().finish())
}

/// Deletes the samples of matching series in a range of time.
///
/// # Errors
/// `bad_data` as Prometheus; `unavailable` when a node did not take part.
pub async fn delete_series(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    if !state.admin {
        return Ok(disabled());
    }
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided".to_owned()));
    }
    let sets = params.selectors().map_err(ApiError::bad_data)?;
    let mint = params.metadata_time("start", super::MIN_TIME_MS)?;
    let maxt = params.metadata_time("end", super::MAX_TIME_MS)?;
    let sets: Vec<&[Matcher]> = sets.iter().map(Vec::as_slice).collect();
    let texts = selector_texts(&sets);
    act(&state, json!({ "delete": { "match": texts, "mint": mint, "maxt": maxt } }).to_string()).await
}

/// Writes blocks with deletions again without what is deleted.
///
/// # Errors
/// `unavailable` when a node did not take part.
pub async fn clean_tombstones(state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    if !state.admin {
        return Ok(disabled());
    }
    act(&state, json!({ "clean_tombstones": {} }).to_string()).await
}

/// Copies what this node keeps.
///
/// # Errors
/// `bad_data` for a `skip_head` that is no boolean, `internal` when the disk does not take it.
pub async fn snapshot(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    if !state.admin {
        return Ok(disabled());
    }
    let skip = params.first("skip_head").unwrap_or("false");
    let skip_head = skip.parse::<bool>().map_err(|_| {
        let why = "strconv.ParseBool: parsing";
        let text = koios_model::format::go_quote(skip);
        ApiError::bad_data(format!(
            "invalid parameter \"skip_head\": unable to parse boolean {why} {text}: invalid syntax"
        ))
    })?;
    let node = state.node.clone();
    let name = state.on_net(async move { Ok::<_, ApiError>(node.snapshot(!skip_head).await) }).await?;
    let name = name.map_err(|why| ApiError::internal(&format!("create snapshot: {why}")))?;
    Ok(success(&json!({ "name": name }).to_string(), Notes::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_come_back_from_their_text() {
        let set = koios_promql::parse_selector("{__name__=\"a\",\"b c\"=~\"x\\\"|y\"}").unwrap();
        let text = selector_texts(&[&set]).remove(0);
        assert_eq!(koios_promql::parse_selector(&text).unwrap(), set, "{text}");
    }
}
