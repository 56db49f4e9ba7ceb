//! `/api/v1/query`: one moment.

use std::convert::Infallible;

use actix_web::http::header::ContentType;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, web};
use koios_query::{QueryRequest, QueryResponse};

use crate::codec::params::Params;
use crate::codec::reply::{ApiError, Notes, push_end};
use crate::codec::result::{self, Body};
use crate::codec::stats::{self, Wanted};
use crate::codec::terms::terms;
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
        terms: terms(params)?,
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
    let mut end = String::new();
    if stats != Wanted::No {
        stats::push(&mut end, &output.stats, &timings);
    }
    end.push('}');
    push_end(&mut end, notes);
    Ok(streamed(Body::new(output.value, end)))
}

/// In one go when it is small, else piece by piece as the client takes it.
fn streamed(mut body: Body) -> HttpResponse {
    let first = body.next().unwrap_or_default();
    let mut response = HttpResponse::Ok();
    response.content_type(ContentType::json());
    if body.is_done() {
        return response.body(first);
    }
    let pieces = std::iter::once(first).chain(body).map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
    response.streaming(futures::stream::iter(pieces))
}
