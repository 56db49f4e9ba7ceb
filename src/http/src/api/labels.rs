//! `/api/v1/labels`: label names.

use actix_web::{HttpResponse, web};

use crate::codec::json::strings;
use crate::codec::params::Params;
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

/// Answers GET and POST.
///
/// # Errors
/// As Prometheus.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    words(&state, &params, String::new()).await
}

/// Label names (`name` empty) or the values of one label.
pub(super) async fn words(state: &ApiState, params: &Params, name: String) -> Result<HttpResponse, ApiError> {
    let (request, limit) = super::metadata_request(params, ApiError::bad_data)?;
    let front = state.front.clone();
    let (mut words, gaps) = state.on_net(async move { front.words(&request, &name).await }).await?;
    let mut notes = Notes::default().gaps(&gaps);
    if limit > 0 && words.len() > limit {
        words.truncate(limit);
        notes = notes.truncated();
    }
    Ok(success(&strings(&words), notes))
}
