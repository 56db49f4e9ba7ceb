//! The `alerting:` section: which Alertmanagers get the alerts.

use crate::http_client::{HttpClientConfig, SecretSource, source};
use crate::names::NameScheme;
use crate::read::Section;
use crate::relabel::{RelabelRule, rules};
use crate::remote::{SigV4, sigv4};
use crate::scrape::Scheme;
use crate::sd::{self, FileSd, StaticGroup};

/// Alertmanager API version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlertmanagerApi {
    /// `/api/v2/alerts`, the only one that Alertmanager still has.
    #[default]
    V2,
}

/// A set of Alertmanagers with common settings.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertmanagerConfig {
    /// URL scheme.
    pub scheme: Scheme,
    /// Prefix of the API path.
    pub path_prefix: String,
    /// Time one delivery may take, milliseconds.
    pub timeout_ms: i64,
    /// API version.
    pub api_version: AlertmanagerApi,
    /// Client side of HTTP.
    pub http: HttpClientConfig,
    /// Request signing.
    pub sigv4: Option<SigV4>,
    /// Addresses written down.
    pub static_configs: Vec<StaticGroup>,
    /// Addresses in files.
    pub file_sd_configs: Vec<FileSd>,
    /// Rules for the addresses.
    pub relabel_configs: Vec<RelabelRule>,
    /// Rules for the alerts sent to this set.
    pub alert_relabel_configs: Vec<RelabelRule>,
}

/// The `alerting:` section.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertingConfig {
    /// Rules for all alerts.
    pub alert_relabel_configs: Vec<RelabelRule>,
    /// Receivers.
    pub alertmanagers: Vec<AlertmanagerConfig>,
}

impl AlertingConfig {
    pub(crate) fn read(mut s: Section<'_>, scheme: NameScheme) -> Self {
        let out = Self {
            alert_relabel_configs: rules(&mut s, "alert_relabel_configs", scheme),
            alertmanagers: s.sections("alertmanagers").into_iter().map(|a| read_one(a, scheme)).collect(),
        };
        s.finish();
        out
    }
}

fn read_one(mut s: Section<'_>, scheme: NameScheme) -> AlertmanagerConfig {
    let http = HttpClientConfig::read(&mut s);
    let relabel_configs = rules(&mut s, "relabel_configs", scheme);
    let sources = sd::read(&mut s, scheme, relabel_configs.is_empty());
    sd::refuse_https(&s, "for Alertmanagers");
    if let Some(version) = s.text("api_version").filter(|v| v.text != "v2") {
        let cause = format!("`api_version`: {:?} is not supported", version.text);
        s.ctx.error(1204, version.span, cause, "use `v2`; Alertmanager removed v1 in 0.27");
    }
    let out = AlertmanagerConfig {
        scheme: s.one_of("scheme", Scheme::CHOICES).unwrap_or_default(),
        path_prefix: s.string("path_prefix").unwrap_or_default(),
        timeout_ms: s.duration("timeout").filter(|v| *v > 0).unwrap_or(10_000),
        api_version: AlertmanagerApi::V2,
        http,
        sigv4: s.section("sigv4").map(sigv4),
        static_configs: sources.groups,
        file_sd_configs: sources.files,
        relabel_configs,
        alert_relabel_configs: rules(&mut s, "alert_relabel_configs", scheme),
    };
    s.finish();
    out
}

/// Kept here because both signing users read it the same way.
pub(crate) fn signing_key(s: &mut Section<'_>) -> Option<SecretSource> {
    source(s, "secret_key", "secret_key_file")
}
