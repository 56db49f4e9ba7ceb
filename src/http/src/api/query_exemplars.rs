//! `/api/v1/query_exemplars`.
//!
//! The head keeps no exemplars yet, so a sound question has an empty answer; what is wrong with a question is said
//! as Prometheus says it.

use actix_web::{HttpResponse, web};

use crate::codec::params::Params;
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

/// Answers GET and POST.
///
/// # Errors
/// `bad_data` for times that are none, an end before the start, or an expression that does not parse.
pub async fn handle(_state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let start = params.metadata_time("start", super::MIN_TIME_MS)?;
    let end = params.metadata_time("end", super::MAX_TIME_MS)?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp".to_owned()));
    }
    let query = params.first("query").unwrap_or_default();
    koios_promql::parse(query).map_err(|e| ApiError::bad_data(e.to_string()))?;
    Ok(success("[]", Notes::default()))
}
