//! `/api/v1/metadata`: what targets and writers say about metric families, over the whole cluster and the
//! endpoints beside it.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use koios_proto::thanos::MetricMetadataRequest;
use koios_store::storeapi::facts::FactsAsk;
use serde_json::{Map, Value, json};

use crate::codec::params::{Params, invalid};
use crate::codec::reply::{ApiError, success};
use crate::state::ApiState;

/// Most families of one answer when the request sets no limit.
pub(crate) const FAMILIES_MAX: usize = 100_000;
/// Most sayings of one family when the request sets no limit.
pub(crate) const SAYINGS_MAX: usize = 1000;

/// Answers GET.
///
/// # Errors
/// `bad_data` for limits that are no numbers.
pub async fn handle(state: web::Data<ApiState>, params: Params) -> Result<HttpResponse, ApiError> {
    let limit = number(&params, "limit", FAMILIES_MAX)?;
    let per_metric = number(&params, "limit_per_metric", SAYINGS_MAX)?;
    let metric = params.first("metric");
    let ask = FactsAsk::Metadata(MetricMetadataRequest {
        metric: metric.unwrap_or_default().to_owned(),
        limit: i32::try_from(limit).unwrap_or(-1),
        ..MetricMetadataRequest::default()
    });
    let (reports, notes) = super::facts(&state, report(metric, limit, per_metric), ask).await?;
    Ok(success(&merge(&reports, limit, per_metric).to_string(), notes))
}

/// The report that nodes are asked for.
pub(crate) fn report(metric: Option<&str>, limit: usize, per_metric: usize) -> String {
    format!("metadata {}", json!({ "metric": metric, "limit": limit, "per_metric": per_metric }))
}

/// A limit as Prometheus reads it: a negative one is none.
pub(super) fn number(params: &Params, name: &str, none: usize) -> Result<usize, ApiError> {
    let Some(text) = params.first(name) else { return Ok(none) };
    match text.parse::<i64>() {
        Ok(n) => Ok(usize::try_from(n).unwrap_or(none).min(none)),
        Err(_) => Err(invalid(name, &format!("{name} must be a number"))),
    }
}

/// What several say as one.
pub(crate) fn merge(reports: &[Value], limit: usize, per_metric: usize) -> Value {
    let mut all: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for (name, said) in reports.iter().filter_map(Value::as_object).flatten() {
        if !all.contains_key(name.as_str()) && all.len() >= limit {
            continue;
        }
        let have = all.entry(name).or_default();
        for saying in said.as_array().into_iter().flatten() {
            if have.len() < per_metric && !have.contains(&saying) {
                have.push(saying);
            }
        }
    }
    all.into_iter().map(|(name, said)| (name.to_owned(), json!(said))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sayings_are_merged_within_limits() {
        let a = json!({"m": [{"type": "gauge"}], "n": [{"type": "counter"}]});
        let b = json!({"m": [{"type": "gauge"}, {"type": "counter"}]});
        let reports = [a, b];
        assert_eq!(merge(&reports, 9, 9)["m"].as_array().unwrap().len(), 2);
        assert_eq!(merge(&reports, 9, 1)["m"].as_array().unwrap().len(), 1);
        assert_eq!(merge(&reports, 1, 9).as_object().unwrap().len(), 1);
        assert_eq!(merge(&reports, 0, 9), json!({}));
    }
}
