//! The sections `otlp:`, `tracing:` and `runtime:`.

use crate::http_client::{TlsConfig, tls};
use crate::read::Section;
use crate::storage::fraction;

/// The `otlp:` section. Names are Prometheus'.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OtlpConfig {
    /// Promote every resource attribute to a label.
    pub promote_all_resource_attributes: bool,
    /// Attributes not promoted when all others are.
    pub ignore_resource_attributes: Vec<String>,
    /// Attributes promoted to labels.
    pub promote_resource_attributes: Vec<String>,
    /// How names are translated; empty means `UnderscoreEscapingWithSuffixes`.
    pub translation_strategy: String,
    /// Keep `service.name` and friends on `target_info`.
    pub keep_identifying_resource_attributes: bool,
    /// Store explicit-bucket histograms as native ones.
    pub convert_histograms_to_nhcb: bool,
    /// Accept delta temporality.
    pub allow_delta_temporality: bool,
    /// Promote scope name and version to labels.
    pub promote_scope_metadata: bool,
    /// `_` before names that start with a digit after sanitising.
    pub label_name_underscore_sanitization: bool,
    /// Keep repeated underscores.
    pub label_name_preserve_multiple_underscores: bool,
    /// Do not make `target_info` series.
    pub disable_target_info: bool,
}

impl OtlpConfig {
    pub(crate) fn read(mut s: Section<'_>) -> Self {
        const STRATEGIES: &[(&str, &str)] = &[
            ("UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithSuffixes"),
            ("UnderscoreEscapingWithoutSuffixes", "UnderscoreEscapingWithoutSuffixes"),
            ("NoUTF8EscapingWithSuffixes", "NoUTF8EscapingWithSuffixes"),
            ("NoTranslation", "NoTranslation"),
        ];
        let texts = |v: Vec<crate::read::Text>| v.into_iter().map(|t| t.text).collect();
        let all = s.boolean("promote_all_resource_attributes").unwrap_or(false);
        if all {
            s.exclusive("promote_all_resource_attributes", "promote_resource_attributes");
        } else if s.has("ignore_resource_attributes") {
            let cause =
                "`ignore_resource_attributes` has no effect without `promote_all_resource_attributes: true`";
            s.ctx.error(1310, s.key_span("ignore_resource_attributes"), cause, "set both, or remove it");
        }
        let mut flag = |name: &'static str, default: bool| s.boolean(name).unwrap_or(default);
        let out = Self {
            promote_all_resource_attributes: all,
            keep_identifying_resource_attributes: flag("keep_identifying_resource_attributes", false),
            convert_histograms_to_nhcb: flag("convert_histograms_to_nhcb", false),
            allow_delta_temporality: flag("allow_delta_temporality", false),
            promote_scope_metadata: flag("promote_scope_metadata", false),
            label_name_underscore_sanitization: flag("label_name_underscore_sanitization", true),
            label_name_preserve_multiple_underscores: flag("label_name_preserve_multiple_underscores", true),
            disable_target_info: flag("disable_target_info", false),
            ignore_resource_attributes: texts(s.texts("ignore_resource_attributes")),
            promote_resource_attributes: texts(s.texts("promote_resource_attributes")),
            translation_strategy: s.one_of("translation_strategy", STRATEGIES).unwrap_or("").to_owned(),
        };
        s.finish();
        out
    }
}

/// The `tracing:` section.
#[derive(Clone, Debug, PartialEq)]
pub struct TracingConfig {
    /// OTLP over gRPC, else over HTTP.
    pub grpc: bool,
    /// Collector address.
    pub endpoint: String,
    /// Share of traces kept, 0 to 1.
    pub sampling_fraction: f64,
    /// No TLS.
    pub insecure: bool,
    /// TLS.
    pub tls: TlsConfig,
    /// Extra headers.
    pub headers: Vec<(String, String)>,
    /// Compress with gzip.
    pub gzip: bool,
    /// Time one export may take, milliseconds.
    pub timeout_ms: i64,
}

impl TracingConfig {
    pub(crate) fn read(mut s: Section<'_>) -> Self {
        let out = Self {
            grpc: s.one_of("client_type", &[("grpc", true), ("http", false)]).unwrap_or(true),
            endpoint: s.string("endpoint").unwrap_or_default(),
            sampling_fraction: fraction(&mut s, "sampling_fraction", 1.0).unwrap_or(0.0),
            insecure: s.boolean("insecure").unwrap_or(false),
            tls: s.section("tls_config").map(tls).unwrap_or_default(),
            headers: s.pairs("headers").into_iter().map(|(n, v)| (n.text, v.text)).collect(),
            gzip: s.one_of("compression", &[("gzip", true)]).unwrap_or(false),
            timeout_ms: s.duration("timeout").filter(|v| *v > 0).unwrap_or(10_000),
        };
        if out.endpoint.is_empty() {
            s.missing("endpoint", "add `endpoint: host:4317`");
        }
        s.finish();
        out
    }
}

/// The `runtime:` section. It tunes Go's garbage collector, so it is read and has no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// `GOGC` of Prometheus, as written.
    pub gogc: Option<u64>,
}

impl RuntimeConfig {
    pub(crate) fn read(mut s: Section<'_>) -> Self {
        let out = Self { gogc: s.integer("gogc") };
        s.finish();
        out
    }
}
