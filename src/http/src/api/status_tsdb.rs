//! `/api/v1/status/tsdb`: statistics of this node's head.

use actix_web::{HttpResponse, web};

use crate::codec::params::{Params, invalid};
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

const ENTRIES: usize = 10;
const ENTRIES_MAX: usize = 10_000;

/// Answers GET.
///
/// # Errors
/// `bad_data` for a limit outside 1 to 10,000.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let limit = match params.first("limit") {
        None => ENTRIES,
        Some(text) => match text.parse::<usize>() {
            Ok(n) if (1..=ENTRIES_MAX).contains(&n) => n,
            _ => return Err(invalid("limit", &format!("limit must be a number from 1 to {ENTRIES_MAX}"))),
        },
    };
    Ok(success(&state.node.tsdb_status(limit), Notes::default()))
}
