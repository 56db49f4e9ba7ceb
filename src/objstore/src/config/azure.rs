//! Azure Blob Storage.

use serde::Deserialize;

use crate::config::http::RawHttp;
use crate::config::{HttpConfig, config_error, http, note, required, section};
use crate::error::ObjstoreError;

/// Where and as whom.
#[derive(Clone, PartialEq)]
pub struct AzureConfig {
    /// Storage account.
    pub account: String,
    /// Its key, base64; empty: by client secret or managed identity.
    pub key: String,
    /// Container.
    pub container: String,
    /// URL of the account.
    pub endpoint: String,
    /// Tenant, client and secret of an application.
    pub application: Option<[String; 3]>,
    /// Client id of a managed identity.
    pub user_assigned_id: String,
    /// Tries after the first.
    pub retries_max: usize,
    /// How requests are made.
    pub http: HttpConfig,
}

impl std::fmt::Debug for AzureConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Azure {}/{}", self.endpoint, self.container)
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    az_tenant_id: String,
    client_id: String,
    client_secret: String,
    storage_account: String,
    storage_account_key: String,
    storage_connection_string: String,
    storage_create_container: Option<bool>,
    container: String,
    endpoint: String,
    user_assigned_id: String,
    max_retries: Option<usize>,
    reader_config: Option<serde_json::Value>,
    pipeline_config: RawPipeline,
    http_config: RawHttp,
    msi_resource: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawPipeline {
    max_tries: Option<usize>,
    try_timeout: Option<String>,
    retry_delay: Option<String>,
    max_retry_delay: Option<String>,
}

pub(super) fn read(
    config: Option<serde_json::Value>,
    ignored: &mut Vec<String>,
) -> Result<AzureConfig, ObjstoreError> {
    let mut raw: Raw = section("AZURE", config)?;
    let p = &raw.pipeline_config;
    note(
        ignored,
        &[
            ("storage_create_container (the container must exist)", raw.storage_create_container.is_some()),
            ("reader_config", raw.reader_config.is_some()),
            ("pipeline_config.try_timeout", p.try_timeout.is_some()),
            ("pipeline_config.retry_delay", p.retry_delay.is_some()),
            ("pipeline_config.max_retry_delay", p.max_retry_delay.is_some()),
            ("msi_resource", raw.msi_resource.is_some()),
        ],
    );
    let connected = std::mem::take(&mut raw.storage_connection_string);
    let (account, key, endpoint) = if connected.is_empty() {
        let account = required("AZURE", "storage_account", raw.storage_account)?;
        let host = if raw.endpoint.is_empty() { "blob.core.windows.net" } else { &raw.endpoint };
        let endpoint = format!("https://{account}.{host}");
        (account, raw.storage_account_key, endpoint)
    } else {
        connection(&connected)?
    };
    let parts = [raw.az_tenant_id, raw.client_id, raw.client_secret];
    let tries = p.max_tries.or(raw.max_retries).filter(|n| *n > 0).unwrap_or(10);
    Ok(AzureConfig {
        http: http::read(raw.http_config, endpoint.starts_with("http://"), ignored)?,
        account,
        key,
        container: required("AZURE", "container", raw.container)?,
        endpoint,
        application: parts.iter().all(|p| !p.is_empty()).then_some(parts),
        user_assigned_id: raw.user_assigned_id,
        retries_max: tries.min(100),
    })
}

/// Account, key and URL of a connection string (`Name=value;...`).
fn connection(text: &str) -> Result<(String, String, String), ObjstoreError> {
    let part = |name: &str| {
        let found = text.split(';').find_map(|p| p.trim().split_once('=').filter(|(n, _)| *n == name));
        found.map(|(_, v)| v.to_owned()).unwrap_or_default()
    };
    let (account, key) = (part("AccountName"), part("AccountKey"));
    if account.is_empty() || key.is_empty() {
        let fix = "copy it from the account's page: it has AccountName= and AccountKey=";
        return Err(config_error("", "storage_connection_string has no account name or key", fix));
    }
    let or = |value: String, default: &str| if value.is_empty() { default.to_owned() } else { value };
    let scheme = or(part("DefaultEndpointsProtocol"), "https");
    let suffix = or(part("EndpointSuffix"), "core.windows.net");
    let endpoint = or(part("BlobEndpoint"), &format!("{scheme}://{account}.blob.{suffix}"));
    Ok((account, key, endpoint.trim_end_matches('/').to_owned()))
}
