//! `/api/v1/parse_query`: an expression as a tree.

use actix_web::HttpResponse;

use crate::codec::params::{Params, invalid};
use crate::codec::reply::{ApiError, Notes, success};

/// Answers GET and POST.
///
/// # Errors
/// `bad_data` when the expression does not parse.
pub async fn handle(params: Params) -> Result<HttpResponse, ApiError> {
    let expr = koios_promql::parse(params.first("query").unwrap_or(""))
        .map_err(|e| invalid("query", &e.to_string()))?;
    Ok(success(&koios_promql::expr_to_json(&expr), Notes::default()))
}
