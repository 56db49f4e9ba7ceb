//! One job of `scrape_configs:`.

use crate::global::{GlobalConfig, Limits, default_protocols, protocols, timeout_too_long};
use crate::http_client::HttpClientConfig;
use crate::names::{EscapingScheme, NameScheme, ScrapeProtocol};
use crate::read::{Section, Text};
use crate::relabel::{RelabelRule, rules};
use crate::sd::{self, FileSd, HttpSd, StaticGroup};
use crate::yaml::{Kind, Span};

/// URL scheme of targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// `http`
    #[default]
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The word in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    pub(crate) const CHOICES: &'static [(&'static str, Scheme)] =
        &[("http", Scheme::Http), ("https", Scheme::Https)];
}

/// One job, inherited values and defaults filled in. Durations are milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeConfig {
    /// Name, unique; becomes the label `job`.
    pub job_name: String,
    /// Time between scrapes.
    pub scrape_interval_ms: i64,
    /// Time a scrape may take; at most the interval.
    pub scrape_timeout_ms: i64,
    /// Formats to ask for, best first.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// Format assumed when the target does not say.
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
    /// URL path.
    pub metrics_path: String,
    /// URL scheme.
    pub scheme: Scheme,
    /// URL parameters.
    pub params: Vec<(String, Vec<String>)>,
    /// Exposed labels win over target labels.
    pub honor_labels: bool,
    /// Exposed timestamps are kept.
    pub honor_timestamps: bool,
    /// Series with exposed timestamps get stale markers too.
    pub track_timestamps_staleness: bool,
    /// Offer gzip.
    pub enable_compression: bool,
    /// Bounds.
    pub limits: Limits,
    /// Buckets of one native histogram; 0 means no limit.
    pub native_histogram_bucket_limit: u64,
    /// Coarsest growth factor of native histogram buckets; 0 means as exposed.
    pub native_histogram_min_bucket_factor: f64,
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
    /// Write three more report series.
    pub extra_scrape_metrics: bool,
    /// Client side of HTTP.
    pub http: HttpClientConfig,
    /// Targets written down.
    pub static_configs: Vec<StaticGroup>,
    /// Targets in files.
    pub file_sd_configs: Vec<FileSd>,
    /// Targets that servers tell.
    pub http_sd_configs: Vec<HttpSd>,
    /// Rules for targets.
    pub relabel_configs: Vec<RelabelRule>,
    /// Rules for samples.
    pub metric_relabel_configs: Vec<RelabelRule>,
}

impl ScrapeConfig {
    /// A job with the defaults of `global` and no targets.
    pub fn named(job_name: impl Into<String>, global: &GlobalConfig) -> Self {
        Self {
            job_name: job_name.into(),
            scrape_interval_ms: global.scrape_interval_ms,
            scrape_timeout_ms: global.scrape_timeout_ms,
            scrape_protocols: global.scrape_protocols.clone(),
            fallback_scrape_protocol: None,
            metrics_path: "/metrics".into(),
            scheme: Scheme::Http,
            params: Vec::new(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            enable_compression: true,
            limits: global.limits,
            native_histogram_bucket_limit: 0,
            native_histogram_min_bucket_factor: 0.0,
            name_scheme: global.name_scheme,
            escaping_scheme: global.escaping_scheme,
            scrape_native_histograms: global.scrape_native_histograms,
            convert_classic_histograms_to_nhcb: global.convert_classic_histograms_to_nhcb,
            always_scrape_classic_histograms: global.always_scrape_classic_histograms,
            extra_scrape_metrics: global.extra_scrape_metrics,
            http: HttpClientConfig::default(),
            static_configs: Vec::new(),
            file_sd_configs: Vec::new(),
            http_sd_configs: Vec::new(),
            relabel_configs: Vec::new(),
            metric_relabel_configs: Vec::new(),
        }
    }

    /// Reads one job.
    pub(crate) fn read(mut s: Section<'_>, global: &GlobalConfig) -> (Self, Option<Text>) {
        let name = s.text("job_name").filter(|t| !t.text.is_empty());
        if name.is_none() && !matches!(s.raw("job_name").map(|n| &n.kind), Some(Kind::Seq(_) | Kind::Map(_)))
        {
            s.missing("job_name", "add `job_name: NAME`; it becomes the label `job`");
        }
        let mut c = Self::named(name.as_ref().map_or("", |t| &t.text), global);
        c.times(&mut s, global);
        c.formats(&mut s, global);
        c.request(&mut s);
        c.limits = Limits::read(&mut s, global.limits);
        c.native_histogram_bucket_limit = s.integer("native_histogram_bucket_limit").unwrap_or(0);
        c.native_histogram_min_bucket_factor = s.float("native_histogram_min_bucket_factor").unwrap_or(0.0);
        c.http = HttpClientConfig::read(&mut s);
        c.relabel_configs = rules(&mut s, "relabel_configs", c.name_scheme);
        c.metric_relabel_configs = rules(&mut s, "metric_relabel_configs", c.name_scheme);
        let sources = sd::read(&mut s, c.name_scheme, c.relabel_configs.is_empty());
        c.static_configs = sources.groups;
        (c.file_sd_configs, c.http_sd_configs) = (sources.files, sources.https);
        s.finish();
        (c, name)
    }

    fn times(&mut self, s: &mut Section<'_>, global: &GlobalConfig) {
        let nonzero = |v: Option<i64>| v.filter(|v| *v > 0);
        self.scrape_interval_ms = nonzero(s.duration("scrape_interval")).unwrap_or(global.scrape_interval_ms);
        match nonzero(s.duration("scrape_timeout")) {
            Some(timeout) if timeout > self.scrape_interval_ms => {
                timeout_too_long(s, timeout, self.scrape_interval_ms, Some(&self.job_name));
            }
            Some(timeout) => self.scrape_timeout_ms = timeout,
            None => self.scrape_timeout_ms = global.scrape_timeout_ms.min(self.scrape_interval_ms),
        }
    }

    fn formats(&mut self, s: &mut Section<'_>, global: &GlobalConfig) {
        if let Some(scheme) = s.one_of("metric_name_validation_scheme", NameScheme::CHOICES) {
            self.name_scheme = scheme;
        }
        if let Some(escaping) = s.one_of("metric_name_escaping_scheme", EscapingScheme::CHOICES) {
            self.escaping_scheme = escaping;
        }
        let mut flag = |name: &'static str, base: bool| s.boolean(name).unwrap_or(base);
        self.scrape_native_histograms = flag("scrape_native_histograms", global.scrape_native_histograms);
        self.convert_classic_histograms_to_nhcb =
            flag("convert_classic_histograms_to_nhcb", global.convert_classic_histograms_to_nhcb);
        self.always_scrape_classic_histograms =
            flag("always_scrape_classic_histograms", global.always_scrape_classic_histograms);
        self.extra_scrape_metrics = flag("extra_scrape_metrics", global.extra_scrape_metrics);
        let written = protocols(s);
        let own_default = self.scrape_native_histograms != global.scrape_native_histograms
            && global.scrape_protocols == default_protocols(global.scrape_native_histograms);
        self.scrape_protocols = match written {
            Some(list) => list,
            None if own_default => default_protocols(self.scrape_native_histograms),
            None => global.scrape_protocols.clone(),
        };
        self.fallback_scrape_protocol = s.one_of("fallback_scrape_protocol", ScrapeProtocol::CHOICES);
    }

    fn request(&mut self, s: &mut Section<'_>) {
        if let Some(path) = s.string("metrics_path").filter(|p| !p.is_empty()) {
            self.metrics_path = path;
        }
        self.scheme = s.one_of("scheme", Scheme::CHOICES).unwrap_or_default();
        self.honor_labels = s.boolean("honor_labels").unwrap_or(false);
        self.honor_timestamps = s.boolean("honor_timestamps").unwrap_or(true);
        self.track_timestamps_staleness = s.boolean("track_timestamps_staleness").unwrap_or(false);
        self.enable_compression = s.boolean("enable_compression").unwrap_or(true);
        self.params = params(s);
    }
}

/// `params: {name: [value, …]}`.
fn params(s: &mut Section<'_>) -> Vec<(String, Vec<String>)> {
    let Some(map) = s.section("params") else { return Vec::new() };
    let mut out = Vec::new();
    for (name, span) in map.keys() {
        let values = match map.raw(name).map(|n| &n.kind) {
            Some(Kind::Seq(nodes)) => nodes,
            Some(Kind::Null) | None => continue,
            Some(_) => {
                let fix = format!("write a list: `{name}: [value]`");
                let at = map.value_span(name);
                map.ctx.error(1102, at, format!("the parameter `{name}` must be a list of values"), fix);
                continue;
            }
        };
        let what = format!("a value of the parameter `{name}`");
        let texts = values.iter().filter_map(|n| crate::read::scalar(map.ctx, n, &what)).map(|t| t.text);
        if name.is_empty() {
            map.ctx.error(1313, span, "a parameter needs a name", "write `params: {name: [value]}`");
        }
        out.push((name.to_owned(), texts.collect()));
    }
    out
}

/// Reads all jobs and checks that their names differ.
pub(crate) fn jobs(s: &mut Section<'_>, global: &GlobalConfig) -> Vec<ScrapeConfig> {
    let ctx = s.ctx;
    let mut seen: Vec<(String, Span)> = Vec::new();
    let mut out = Vec::new();
    for section in s.sections("scrape_configs") {
        let (job, name) = ScrapeConfig::read(section, global);
        if let Some(name) = name {
            match seen.iter().find(|(n, _)| *n == name.text) {
                Some((_, first)) => {
                    let cause = format!("job {:?} is defined twice", name.text);
                    let fix = "rename one of them, or merge their targets into one job".to_owned();
                    let note = format!("job {:?} is first defined here", name.text);
                    ctx.error_related(1301, name.span, (cause, fix), (*first, note));
                }
                None => seen.push((name.text, name.span)),
            }
        }
        out.push(job);
    }
    out
}
