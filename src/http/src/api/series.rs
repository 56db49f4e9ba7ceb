//! `/api/v1/series`: label sets that match.

use actix_web::{HttpResponse, web};

use crate::codec::json::{push_labels, push_list};
use crate::codec::params::{Params, invalid};
use crate::codec::reply::{ApiError, Notes, success};
use crate::state::ApiState;

/// Answers GET and POST.
///
/// # Errors
/// As Prometheus.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided".to_owned()));
    }
    let (request, limit) = super::metadata_request(&params, |why| invalid("match[]", &why))?;
    let front = state.front.clone();
    let (mut series, gaps) = state.on_net(async move { front.series(&request).await }).await?;
    let mut notes = Notes::default().gaps(&gaps);
    if limit > 0 && series.len() > limit {
        series.truncate(limit);
        notes = notes.truncated();
    }
    let mut data = String::new();
    push_list(&mut data, &series, push_labels);
    Ok(success(&data, notes))
}
