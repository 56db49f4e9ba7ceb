//! Closed vocabularies of names: validation scheme, escaping scheme, exposition formats.

use koios_model::labels::{is_legacy_label_name, is_legacy_metric_name};

/// Which metric and label names are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameScheme {
    /// Any non-empty UTF-8 text.
    #[default]
    Utf8,
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*` for metrics, the same without `:` for labels.
    Legacy,
}

impl NameScheme {
    /// Whether a label may have this name.
    pub fn label_ok(self, name: &str) -> bool {
        match self {
            NameScheme::Utf8 => !name.is_empty(),
            NameScheme::Legacy => is_legacy_label_name(name),
        }
    }

    /// Whether a metric may have this name.
    pub fn metric_ok(self, name: &str) -> bool {
        match self {
            NameScheme::Utf8 => !name.is_empty(),
            NameScheme::Legacy => is_legacy_metric_name(name),
        }
    }

    pub(crate) const CHOICES: &'static [(&'static str, NameScheme)] =
        &[("utf8", NameScheme::Utf8), ("legacy", NameScheme::Legacy)];
}

/// How names outside the legacy alphabet are asked for in a scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapingScheme {
    /// No escaping.
    #[default]
    AllowUtf8,
    /// Other characters become `_`.
    Underscores,
    /// `.` becomes `_dot_`, `_` becomes `__`.
    Dots,
    /// `U__` and hexadecimal code points.
    Values,
}

impl EscapingScheme {
    /// The word used in files and in the `escaping` media type parameter.
    pub fn as_str(self) -> &'static str {
        Self::CHOICES.iter().find(|(_, v)| *v == self).map_or("allow-utf-8", |(w, _)| w)
    }

    pub(crate) const CHOICES: &'static [(&'static str, EscapingScheme)] = &[
        ("allow-utf-8", EscapingScheme::AllowUtf8),
        ("underscores", EscapingScheme::Underscores),
        ("dots", EscapingScheme::Dots),
        ("values", EscapingScheme::Values),
    ];
}

/// An exposition format that a scrape may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeProtocol {
    /// Length-delimited `io.prometheus.client.MetricFamily`.
    PrometheusProto,
    /// Prometheus text 0.0.4.
    PrometheusText004,
    /// Prometheus text 1.0.0, with UTF-8 names.
    PrometheusText100,
    /// OpenMetrics 0.0.1.
    OpenMetrics001,
    /// OpenMetrics 1.0.0.
    OpenMetrics100,
}

impl ScrapeProtocol {
    /// The word used in files.
    pub fn as_str(self) -> &'static str {
        Self::CHOICES.iter().find(|(_, v)| *v == self).map_or("", |(w, _)| w)
    }

    /// What is asked for when the file names nothing, best first.
    pub const DEFAULT: [ScrapeProtocol; 4] = [
        ScrapeProtocol::OpenMetrics100,
        ScrapeProtocol::OpenMetrics001,
        ScrapeProtocol::PrometheusText100,
        ScrapeProtocol::PrometheusText004,
    ];

    pub(crate) const CHOICES: &'static [(&'static str, ScrapeProtocol)] = &[
        ("PrometheusProto", ScrapeProtocol::PrometheusProto),
        ("PrometheusText0.0.4", ScrapeProtocol::PrometheusText004),
        ("PrometheusText1.0.0", ScrapeProtocol::PrometheusText100),
        ("OpenMetricsText0.0.1", ScrapeProtocol::OpenMetrics001),
        ("OpenMetricsText1.0.0", ScrapeProtocol::OpenMetrics100),
    ];
}
