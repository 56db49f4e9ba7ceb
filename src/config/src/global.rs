//! The `global:` section and the limits that jobs inherit from it.

use std::path::PathBuf;

use koios_model::Labels;

use crate::names::{EscapingScheme, NameScheme, ScrapeProtocol};
use crate::read::{Section, Text, one_of};

/// Bounds on one scrape; 0 means none. Counts are after metric relabelling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the decompressed body.
    pub body_size: u64,
    /// Samples.
    pub samples: u64,
    /// Targets of one job after relabelling.
    pub targets: u64,
    /// Labels of one series.
    pub labels: u64,
    /// Bytes of a label name.
    pub label_name_length: u64,
    /// Bytes of a label value.
    pub label_value_length: u64,
    /// Dropped targets kept for display.
    pub keep_dropped_targets: u64,
}

impl Limits {
    /// Reads the limit fields of a section over inherited ones. A written 0 inherits, as in Prometheus.
    pub(crate) fn read(s: &mut Section<'_>, base: Limits) -> Limits {
        let mut or = |name: &'static str, base: u64| s.integer(name).filter(|v| *v != 0).unwrap_or(base);
        Limits {
            samples: or("sample_limit", base.samples),
            targets: or("target_limit", base.targets),
            labels: or("label_limit", base.labels),
            label_name_length: or("label_name_length_limit", base.label_name_length),
            label_value_length: or("label_value_length_limit", base.label_value_length),
            keep_dropped_targets: or("keep_dropped_targets", base.keep_dropped_targets),
            body_size: s.size("body_size_limit").filter(|v| *v != 0).unwrap_or(base.body_size),
        }
    }
}

/// The `global:` section with defaults filled in. Durations are milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalConfig {
    /// Time between scrapes.
    pub scrape_interval_ms: i64,
    /// Time a scrape may take.
    pub scrape_timeout_ms: i64,
    /// Formats to ask for, best first.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// Time between rule evaluations.
    pub evaluation_interval_ms: i64,
    /// How far in the past rules are evaluated.
    pub rule_query_offset_ms: i64,
    /// Labels added to everything that leaves this cluster; environment variables are expanded.
    pub external_labels: Labels,
    /// Where every query is logged.
    pub query_log_file: Option<PathBuf>,
    /// Where failed scrapes are logged.
    pub scrape_failure_log_file: Option<PathBuf>,
    /// Limits that jobs inherit.
    pub limits: Limits,
    /// Valid names.
    pub name_scheme: NameScheme,
    /// How other names are escaped.
    pub escaping_scheme: EscapingScheme,
    /// Ask for and store native histograms.
    pub scrape_native_histograms: bool,
    /// Turn classic histograms into native ones with custom buckets.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Keep classic buckets of histograms that are also native.
    pub always_scrape_classic_histograms: bool,
    /// Write `scrape_timeout_seconds`, `scrape_sample_limit`, `scrape_body_size_bytes` too.
    pub extra_scrape_metrics: bool,
}

impl Default for GlobalConfig {
    fn default() -> Self {
        Self {
            scrape_interval_ms: 60_000,
            scrape_timeout_ms: 10_000,
            scrape_protocols: ScrapeProtocol::DEFAULT.to_vec(),
            evaluation_interval_ms: 60_000,
            rule_query_offset_ms: 0,
            external_labels: Labels::empty(),
            query_log_file: None,
            scrape_failure_log_file: None,
            limits: Limits::default(),
            name_scheme: NameScheme::Utf8,
            escaping_scheme: EscapingScheme::AllowUtf8,
            scrape_native_histograms: false,
            convert_classic_histograms_to_nhcb: false,
            always_scrape_classic_histograms: false,
            extra_scrape_metrics: false,
        }
    }
}

impl GlobalConfig {
    pub(crate) fn read(mut s: Section<'_>) -> Self {
        let d = Self::default();
        let nonzero = |v: Option<i64>| v.filter(|v| *v > 0);
        let interval = nonzero(s.duration("scrape_interval")).unwrap_or(d.scrape_interval_ms);
        let timeout = nonzero(s.duration("scrape_timeout"));
        if let Some(timeout) = timeout.filter(|t| *t > interval) {
            timeout_too_long(&s, timeout, interval, None);
        }
        let scheme = s.one_of("metric_name_validation_scheme", NameScheme::CHOICES).unwrap_or_default();
        let native = s.boolean("scrape_native_histograms").unwrap_or(false);
        let out = Self {
            scrape_interval_ms: interval,
            scrape_timeout_ms: timeout.unwrap_or(d.scrape_timeout_ms.min(interval)),
            scrape_protocols: protocols(&mut s).unwrap_or_else(|| default_protocols(native)),
            evaluation_interval_ms: nonzero(s.duration("evaluation_interval"))
                .unwrap_or(d.evaluation_interval_ms),
            rule_query_offset_ms: s.duration("rule_query_offset").unwrap_or(0),
            external_labels: external_labels(&mut s, scheme),
            query_log_file: s.path("query_log_file"),
            scrape_failure_log_file: s.path("scrape_failure_log_file"),
            limits: Limits::read(&mut s, Limits::default()),
            name_scheme: scheme,
            escaping_scheme: s
                .one_of("metric_name_escaping_scheme", EscapingScheme::CHOICES)
                .unwrap_or_default(),
            scrape_native_histograms: native,
            convert_classic_histograms_to_nhcb: s
                .boolean("convert_classic_histograms_to_nhcb")
                .unwrap_or(false),
            always_scrape_classic_histograms: s.boolean("always_scrape_classic_histograms").unwrap_or(false),
            extra_scrape_metrics: s.boolean("extra_scrape_metrics").unwrap_or(false),
        };
        if scheme == NameScheme::Legacy
            && out.escaping_scheme == EscapingScheme::AllowUtf8
            && s.has("metric_name_escaping_scheme")
        {
            let cause = "`allow-utf-8` escaping needs `metric_name_validation_scheme: utf8`";
            s.ctx.error(
                1304,
                s.value_span("metric_name_escaping_scheme"),
                cause,
                "use `underscores`, `dots` or `values`",
            );
        }
        s.finish();
        out
    }
}

/// What to ask for when the file says nothing: protobuf first when native histograms are wanted.
pub(crate) fn default_protocols(native: bool) -> Vec<ScrapeProtocol> {
    let first = native.then_some(ScrapeProtocol::PrometheusProto);
    first.into_iter().chain(ScrapeProtocol::DEFAULT).collect()
}

/// `scrape_protocols`, when written.
pub(crate) fn protocols(s: &mut Section<'_>) -> Option<Vec<ScrapeProtocol>> {
    let texts: Vec<Text> = s.texts("scrape_protocols");
    let mut out = Vec::new();
    for text in &texts {
        let Some(protocol) = one_of(s.ctx, "scrape_protocols", text, ScrapeProtocol::CHOICES) else {
            continue;
        };
        if out.contains(&protocol) {
            s.ctx.error(1305, text.span, format!("`{}` is listed twice", text.text), "remove one of the two");
        }
        out.push(protocol);
    }
    (!out.is_empty()).then_some(out)
}

/// Reports a timeout above its interval.
pub(crate) fn timeout_too_long(s: &Section<'_>, timeout: i64, interval: i64, job: Option<&str>) {
    use koios_model::duration::format_duration as show;
    let whose = job.map_or("global".to_owned(), |j| format!("job {j:?}"));
    let cause = format!(
        "{whose}: scrape_timeout {} is greater than scrape_interval {}",
        show(timeout),
        show(interval)
    );
    let fix = format!("set `scrape_timeout` to at most {}, or raise `scrape_interval`", show(interval));
    let at = s.value_span("scrape_timeout");
    if s.has("scrape_interval") {
        let related = (s.value_span("scrape_interval"), "the interval is set here".to_owned());
        s.ctx.error_related(1302, at, (cause, fix), related);
    } else {
        s.ctx.error(1302, at, cause, fix);
    }
}

fn external_labels(s: &mut Section<'_>, scheme: NameScheme) -> Labels {
    let ctx = s.ctx;
    let mut pairs = Vec::new();
    for (name, value) in s.pairs("external_labels") {
        check_label_name(s, scheme, &name);
        if name.text == "__name__" {
            ctx.error(1207, name.span, "`__name__` cannot be an external label", "choose another label name");
        }
        pairs.push((name.text, expand(&value.text, ctx.env)));
    }
    Labels::from_pairs(pairs)
}

/// Reports a label name that the scheme refuses.
pub(crate) fn check_label_name(s: &Section<'_>, scheme: NameScheme, name: &Text) {
    if !scheme.label_ok(&name.text) {
        let fix = match scheme {
            NameScheme::Utf8 => "give the label a name",
            NameScheme::Legacy => "use letters, digits and `_`, not starting with a digit",
        };
        s.ctx.error(1207, name.span, format!("{:?} is not a valid label name", name.text), fix);
    }
}

/// Expands `$VAR` and `${VAR}`; `$$` is a dollar sign; what is not set becomes empty.
pub(crate) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
            out.push_str(&env(name).unwrap_or_default());
            rest = after;
        } else {
            let end = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            if end == 0 {
                out.push('$');
            } else {
                out.push_str(&env(&rest[..end]).unwrap_or_default());
            }
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_as_documented() {
        let env = |n: &str| (n == "A").then(|| "x".to_owned());
        for (text, want) in [
            ("$A-${A}", "x-x"),
            ("$$A", "$A"),
            ("${NO}|$NO|", "||"),
            ("a$", "a$"),
            ("${A", "${A"),
            ("$-", "$-"),
        ] {
            assert_eq!(expand(text, &env), want, "{text}");
        }
    }
}
