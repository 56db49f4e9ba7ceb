//! How requests to a store are made: TLS, time limits, connections.

use std::path::PathBuf;
use std::time::Duration;

use koios_model::duration::parse_duration;
use serde::Deserialize;

use crate::config::{config_error, note};
use crate::error::ObjstoreError;

/// The part of `http_config` that matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// Plain HTTP.
    pub insecure: bool,
    /// Longest wait for the next bytes of an answer.
    pub answer_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Most idle connections to one host.
    pub idle_per_host: usize,
    /// Certificates.
    pub tls: TlsConfig,
}

/// Whom to believe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    /// More authorities, PEM.
    pub ca_file: Option<PathBuf>,
    /// Believe everybody.
    pub skip_verify: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHttp {
    idle_conn_timeout: Option<String>,
    response_header_timeout: Option<String>,
    insecure_skip_verify: bool,
    tls_handshake_timeout: Option<String>,
    expect_continue_timeout: Option<String>,
    max_idle_conns: Option<u32>,
    max_idle_conns_per_host: Option<u32>,
    max_conns_per_host: Option<u32>,
    tls_config: RawTls,
    disable_compression: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawTls {
    ca_file: String,
    cert_file: String,
    key_file: String,
    server_name: String,
    insecure_skip_verify: bool,
}

/// Reads the section with Thanos' defaults.
pub(super) fn read(
    raw: RawHttp,
    insecure: bool,
    ignored: &mut Vec<String>,
) -> Result<HttpConfig, ObjstoreError> {
    let duration = |name: &str, text: &Option<String>, default: u64| match text {
        Some(t) => parse_duration(t).map(|ms| Duration::from_millis(ms.max(1) as u64)).map_err(|e| {
            config_error(" in http_config", &format!("{name}: {e}"), "write a duration like 90s")
        }),
        None => Ok(Duration::from_secs(default)),
    };
    let tls = raw.tls_config;
    if !tls.cert_file.is_empty() || !tls.key_file.is_empty() || !tls.server_name.is_empty() {
        let cause = "client certificates and server_name are not supported for object stores";
        return Err(config_error(
            " in http_config.tls_config",
            cause,
            "use keys, and a ca_file for own authorities",
        ));
    }
    note(
        ignored,
        &[
            ("http_config.tls_handshake_timeout", raw.tls_handshake_timeout.is_some()),
            ("http_config.expect_continue_timeout", raw.expect_continue_timeout.is_some()),
            ("http_config.max_idle_conns", raw.max_idle_conns.is_some()),
            ("http_config.max_conns_per_host", raw.max_conns_per_host.is_some()),
            ("http_config.disable_compression", raw.disable_compression.is_some()),
        ],
    );
    Ok(HttpConfig {
        insecure,
        answer_timeout: duration("response_header_timeout", &raw.response_header_timeout, 120)?,
        idle_timeout: duration("idle_conn_timeout", &raw.idle_conn_timeout, 90)?,
        idle_per_host: raw.max_idle_conns_per_host.unwrap_or(100) as usize,
        tls: TlsConfig {
            ca_file: (!tls.ca_file.is_empty()).then(|| tls.ca_file.into()),
            skip_verify: raw.insecure_skip_verify || tls.insecure_skip_verify,
        },
    })
}
