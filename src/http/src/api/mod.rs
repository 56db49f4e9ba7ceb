//! `/api/v1`, one file per endpoint, and `/federate`.

pub mod admin_tsdb;
pub mod blocks;
pub mod cluster;
pub mod federate;
pub mod format_query;
pub mod label_values;
pub mod labels;
pub mod metadata;
pub mod parse_query;
pub mod query;
pub mod query_exemplars;
pub mod query_range;
pub mod read;
pub mod series;
pub mod status_buildinfo;
pub mod status_config;
pub mod status_flags;
pub mod status_runtimeinfo;
pub mod status_tsdb;
pub mod status_walreplay;
pub mod stores;
pub mod targets;
pub mod targets_metadata;
pub mod write;

use koios_query::MetadataRequest;
use serde_json::Value;

use crate::codec::params::Params;
use crate::codec::reply::{ApiError, Notes};
use crate::codec::terms::terms;
use crate::state::ApiState;

/// Widest range a metadata question can have, milliseconds: Prometheus' own bounds.
pub(crate) const MIN_TIME_MS: i64 = i64::MIN / 1_000_000;
pub(crate) const MAX_TIME_MS: i64 = i64::MAX / 1_000_000;

/// What labels, label values and series have in common; `wrap` words a bad `match[]`.
pub(crate) fn metadata_request(
    params: &Params,
    wrap: impl Fn(String) -> ApiError,
) -> Result<(MetadataRequest, usize), ApiError> {
    let limit = params.limit()?;
    let mint = params.metadata_time("start", MIN_TIME_MS)?;
    let maxt = params.metadata_time("end", MAX_TIME_MS)?;
    let selectors = params.selectors().map_err(wrap)?;
    let (partial, terms) = (params.partial()?, terms(params)?);
    Ok((MetadataRequest { selectors, mint, maxt, partial, terms }, limit))
}

/// A report of every node, this one first; a node that does not report is named in a warning.
///
/// # Errors
/// `internal` when the work was lost.
pub(crate) async fn reports(state: &ApiState, kind: String) -> Result<(Vec<Value>, Notes), ApiError> {
    let node = state.node.clone();
    let asked = kind.clone();
    let peers = state.on_net(async move { Ok::<_, ApiError>(node.collect(&asked).await) }).await?;
    let mut notes = Notes::default();
    let mut reports: Vec<Value> =
        state.node.report(&kind).and_then(|own| serde_json::from_str(&own).ok()).into_iter().collect();
    let word = kind.split(' ').next().unwrap_or_default().replace('_', " ");
    for (name, report) in peers {
        match report.and_then(|json| serde_json::from_str(&json).map_err(|e| e.to_string())) {
            Ok(value) => reports.push(value),
            Err(why) => notes.warnings.push(format!("{word} of node {name} is not shown: {why}")),
        }
    }
    Ok((reports, notes))
}
