//! `/api/v1/query_range`: a stretch of time.

use actix_web::{HttpResponse, web};

use super::query::{request, run};
use crate::codec::params::{Params, invalid};
use crate::codec::reply::ApiError;
use crate::codec::stats;
use crate::state::ApiState;

/// Most steps between start and end.
const STEPS_MAX: i64 = 11_000;

/// Answers GET and POST.
///
/// # Errors
/// As Prometheus.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let limit = params.limit()?;
    let start = params.time("start", None)?;
    let end = params.time("end", None)?;
    if end < start {
        return Err(invalid("end", "end timestamp must not be before start time"));
    }
    let step = match params.duration("step")? {
        Some(step) => step,
        None => return Err(invalid("step", "cannot parse \"\" to a valid duration")),
    };
    if step <= 0 {
        let why = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(invalid("step", why));
    }
    if end.saturating_sub(start) / step > STEPS_MAX {
        let why = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";
        return Err(ApiError::bad_data(why.to_owned()));
    }
    run(&state, request(&params, start, end, step)?, limit, stats::wanted(&params)).await
}
