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
use koios_store::storeapi::facts::FactsAsk;
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
    let facts = state.facts_of_all();
    let told = state.on_net(async move { Ok::<_, ApiError>(facts.reports(&kind).await) }).await?;
    let (reports, warnings) = told;
    Ok((reports.into_iter().map(|(_, v)| v).collect(), Notes { warnings, ..Notes::default() }))
}

/// As `reports`, and what the endpoints beside the cluster say to `ask`.
///
/// # Errors
/// `internal` when the work was lost.
pub(crate) async fn facts(
    state: &ApiState,
    kind: String,
    ask: FactsAsk,
) -> Result<(Vec<Value>, Notes), ApiError> {
    let facts = state.facts_of_all();
    let told = state.on_net(async move { Ok::<_, ApiError>(facts.all(&kind, &ask, &[]).await) }).await?;
    Ok((told.found, Notes { warnings: told.warnings, ..Notes::default() }))
}
