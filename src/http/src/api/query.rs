//! `/api/v1/query`: one moment.

use actix_web::{HttpResponse, web};
use koios_query::{QueryRequest, QueryResponse};

use crate::codec::params::Params;
use crate::codec::reply::{ApiError, Notes, success};
use crate::codec::result;
use crate::codec::stats::{self, Wanted};
use crate::state::ApiState;

/// Answers GET and POST.
///
/// # Errors
/// As Prometheus, plus 503 when a whole answer is not to be had.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let limit = params.limit()?;
    let time = params.time("time", Some(state.clock.now_ms()))?;
    let request = request(&params, time, time, 0)?;
    run(&state, request, limit, stats::wanted(&params)).await
}

/// The part of a request that instant and range queries share.
pub(super) fn request(
    params: &Params,
    start_ms: i64,
    end_ms: i64,
    step_ms: i64,
) -> Result<QueryRequest, ApiError> {
    let timeout_ms = params.duration("timeout")?.map(|ms| ms.max(0) as u64);
    Ok(QueryRequest {
        query: params.first("query").unwrap_or("").to_owned(),
        start_ms,
        end_ms,
        step_ms,
        lookback_ms: params.duration("lookback_delta")?.filter(|ms| *ms > 0),
        timeout_ms,
        partial: params.partial()?,
    })
}

/// Runs and encodes.
pub(super) async fn run(
    state: &ApiState,
    request: QueryRequest,
    limit: usize,
    stats: Wanted,
) -> Result<HttpResponse, ApiError> {
    let front = state.front.clone();
    let QueryResponse { mut output, gaps, timings } =
        state.on_net(async move { front.query(request).await }).await?;
    let mut notes = Notes { warnings: output.warnings, infos: output.infos }.gaps(&gaps);
    if result::truncate(&mut output.value, limit) {
        notes = notes.truncated();
    }
    if stats == Wanted::Deprecated {
        notes.warnings.push(stats::DEPRECATED.to_owned());
    }
    let mut data = result::encode(&output.value);
    if stats != Wanted::No {
        stats::append(&mut data, &output.stats, &timings);
    }
    Ok(success(&data, notes))
}
