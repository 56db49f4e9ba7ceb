//! `/api/v1/query_exemplars`: exemplars of the series that an expression selects, from every node and endpoint.
//!
//! Two slots of a target bring the same exemplars; the answer has each once. A node that does not report is named in
//! a warning.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use koios_proto::thanos::ExemplarsRequest;
use koios_store::storeapi::facts::FactsAsk;
use serde_json::{Value, json};

use super::admin_tsdb::selector_texts;
use crate::codec::params::Params;
use crate::codec::reply::{ApiError, success};
use crate::state::ApiState;

/// Answers GET and POST.
///
/// # Errors
/// `bad_data` for times that are none, an end before the start, or an expression that does not parse.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let start = params.metadata_time("start", super::MIN_TIME_MS)?;
    let end = params.metadata_time("end", super::MAX_TIME_MS)?;
    if end < start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp".to_owned()));
    }
    let query = params.first("query").unwrap_or_default();
    let expr = koios_promql::parse(query).map_err(|e| ApiError::bad_data(e.to_string()))?;
    if expr.selectors().is_empty() {
        return Ok(HttpResponse::NoContent().finish());
    }
    let ask = ExemplarsRequest { query: query.to_owned(), start, end, ..ExemplarsRequest::default() };
    let (reports, notes) = super::facts(&state, report(&expr, start, end), FactsAsk::Exemplars(ask)).await?;
    Ok(success(&merge(&reports).to_string(), notes))
}

/// The report that nodes are asked for.
pub(crate) fn report(expr: &koios_promql::Expr, start: i64, end: i64) -> String {
    let texts = selector_texts(&expr.selectors());
    format!("exemplars {}", json!({ "match": texts, "start": start, "end": end }))
}

/// Each exemplar once, by series and time.
pub(crate) fn merge(reports: &[Value]) -> Value {
    let mut all: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for series in reports.iter().filter_map(Value::as_array).flatten() {
        let labels = series["seriesLabels"].clone();
        let (_, exemplars) = all.entry(labels.to_string()).or_insert_with(|| (labels, Vec::new()));
        for exemplar in series["exemplars"].as_array().into_iter().flatten() {
            if !exemplars.contains(exemplar) {
                exemplars.push(exemplar.clone());
            }
        }
    }
    let series = all.into_values().map(|(labels, mut exemplars)| {
        let time = |e: &Value| e["timestamp"].as_f64().unwrap_or(0.0);
        exemplars.sort_by(|a, b| time(a).total_cmp(&time(b)));
        json!({ "seriesLabels": labels, "exemplars": exemplars })
    });
    series.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_slots_bring_an_exemplar_once() {
        let e = |t: f64| json!({"labels": {"trace": "x"}, "value": "1", "timestamp": t});
        let report = |times: &[f64]| json!([{"seriesLabels": {"a": "1"}, "exemplars": times.iter().map(|t| e(*t)).collect::<Vec<_>>()}]);
        let merged = merge(&[report(&[2.0, 3.0]), report(&[1.0, 2.0])]);
        assert_eq!(merged, report(&[1.0, 2.0, 3.0]));
        assert_eq!(merge(&[]), json!([]));
    }
}
