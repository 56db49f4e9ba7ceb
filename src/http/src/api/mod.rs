//! `/api/v1`, one file per endpoint.

pub mod cluster;
pub mod format_query;
pub mod label_values;
pub mod labels;
pub mod parse_query;
pub mod query;
pub mod query_exemplars;
pub mod query_range;
pub mod series;
pub mod status_buildinfo;
pub mod status_config;
pub mod status_flags;
pub mod status_runtimeinfo;
pub mod status_tsdb;
pub mod targets;

use koios_query::MetadataRequest;

use crate::codec::params::Params;
use crate::codec::reply::ApiError;

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
    Ok((MetadataRequest { selectors, mint, maxt, partial: params.partial()? }, limit))
}
