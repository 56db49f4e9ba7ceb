//! Google Cloud Storage.

use serde::Deserialize;

use crate::config::http::RawHttp;
use crate::config::{HttpConfig, http, note, required, section};
use crate::error::ObjstoreError;

/// Where and as whom.
#[derive(Clone, PartialEq)]
pub struct GcsConfig {
    /// Bucket.
    pub bucket: String,
    /// The account's JSON; empty: from the environment or the machine.
    pub service_account: String,
    /// A public bucket.
    pub no_auth: bool,
    /// Tries after the first.
    pub retries_max: usize,
    /// How requests are made.
    pub http: HttpConfig,
}

impl std::fmt::Debug for GcsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GCS {}", self.bucket)
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    bucket: String,
    service_account: String,
    use_grpc: Option<bool>,
    grpc_conn_pool_size: Option<u32>,
    http_config: RawHttp,
    chunk_size_bytes: Option<u64>,
    no_auth: bool,
    max_retries: Option<usize>,
}

pub(super) fn read(
    config: Option<serde_json::Value>,
    ignored: &mut Vec<String>,
) -> Result<GcsConfig, ObjstoreError> {
    let raw: Raw = section("GCS", config)?;
    note(
        ignored,
        &[
            ("use_grpc", raw.use_grpc.is_some()),
            ("grpc_conn_pool_size", raw.grpc_conn_pool_size.is_some()),
            ("chunk_size_bytes", raw.chunk_size_bytes.is_some()),
        ],
    );
    Ok(GcsConfig {
        bucket: required("GCS", "bucket", raw.bucket)?,
        service_account: raw.service_account,
        no_auth: raw.no_auth,
        retries_max: raw.max_retries.filter(|n| *n > 0).unwrap_or(10).min(100),
        http: http::read(raw.http_config, false, ignored)?,
    })
}
