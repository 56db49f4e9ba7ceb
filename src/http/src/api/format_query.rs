//! `/api/v1/format_query`: an expression, laid out.

use actix_web::HttpResponse;

use crate::codec::json::push_string;
use crate::codec::params::{Params, invalid};
use crate::codec::reply::{ApiError, Notes, success};

/// Answers GET and POST.
///
/// # Errors
/// `bad_data` when the expression does not parse.
pub async fn handle(params: Params) -> Result<HttpResponse, ApiError> {
    let expr = koios_promql::parse(params.first("query").unwrap_or(""))
        .map_err(|e| invalid("query", &e.to_string()))?;
    let mut data = String::new();
    push_string(&mut data, &koios_promql::prettify(&expr));
    Ok(success(&data, Notes::default()))
}
