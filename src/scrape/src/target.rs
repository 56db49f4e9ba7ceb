//! From a discovered label set to something that can be scraped (Prometheus documentation, "relabel_config"
//! and "scrape_config").
//!
//! Invariants: labels that start with `__` are never public; `instance` and `job` are set; the key depends on
//! job, public labels and URL only, so every node computes the same.

use std::collections::HashSet;
use std::fmt::Write as _;

use koios_config::ScrapeConfig;
use koios_model::duration::{format_duration, parse_duration};
use koios_model::{Labels, LabelsBuilder};
use xxhash_rust::xxh3::xxh3_64;

/// Label of the address, `host:port`.
pub const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const PARAM: &str = "__param_";

/// Dropped targets kept for display when the job does not say how many.
const DROPPED_MAX: usize = 100_000;

/// Targets that share labels, as discovery found them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetGroup {
    /// Who found it; a later group with the same source replaces it.
    pub source: String,
    /// Labels of all targets.
    pub labels: Labels,
    /// Labels of each target, `__address__` among them.
    pub targets: Vec<Labels>,
}

/// Something to scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Labels that its series carry.
    pub labels: Labels,
    /// Labels before relabelling, for display.
    pub discovered_labels: Labels,
    /// What is fetched.
    pub url: String,
    /// Job that it belongs to.
    pub job: String,
    /// Time between scrapes.
    pub interval_ms: i64,
    /// Time a scrape may take.
    pub timeout_ms: i64,
    /// Identity, the same on every node: ownership and schedule come from it.
    pub key: u64,
}

/// Why a discovered target cannot be scraped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing to connect to.
    #[error("no address")]
    NoAddress,
    /// The address holds a path or a scheme.
    #[error("{0:?} is not a valid hostname")]
    BadAddress(String),
    /// Neither http nor https.
    #[error("unsupported scheme {0:?}")]
    BadScheme(String),
    /// Not a duration, or zero.
    #[error("error parsing scrape {0}: {1}")]
    BadDuration(&'static str, String),
    /// Timeout above interval.
    #[error("scrape timeout cannot be greater than scrape interval ({0:?} > {1:?})")]
    TimeoutTooLong(String, String),
    /// A label name that the job's scheme refuses.
    #[error("invalid label name {0:?}")]
    BadLabel(String),
}

impl koios_model::Coded for TargetError {
    fn code(&self) -> koios_model::Code {
        koios_model::Code::BadData
    }
}

/// Labels before relabelling: what discovery found, then what the job says.
fn discovered(target: &Labels, group: &Labels, job: &ScrapeConfig) -> LabelsBuilder {
    let mut b = LabelsBuilder::from_labels(target);
    let mut default = |name: &str, value: &str| {
        if b.get(name).is_empty() {
            b.set(name, value);
        }
    };
    for (name, value) in group {
        default(name, value);
    }
    default("job", &job.job_name);
    default(INTERVAL, &format_duration(job.scrape_interval_ms));
    default(TIMEOUT, &format_duration(job.scrape_timeout_ms));
    default(METRICS_PATH, &job.metrics_path);
    default(SCHEME, job.scheme.as_str());
    for (name, values) in &job.params {
        if let Some(first) = values.first() {
            default(&format!("{PARAM}{name}"), first);
        }
    }
    b
}

/// Turns one discovered label set into a target; `None` when relabelling drops it.
///
/// # Errors
/// Why it cannot be scraped.
pub fn populate_labels(
    target: &Labels,
    group: &Labels,
    job: &ScrapeConfig,
) -> Result<Option<Target>, TargetError> {
    let mut b = discovered(target, group, job);
    let discovered_labels = b.build();
    if !koios_relabel::process_builder(&mut b, &job.relabel_configs) {
        return Ok(None);
    }
    let address = b.get(ADDRESS).to_owned();
    if address.is_empty() {
        return Err(TargetError::NoAddress);
    }
    if address.contains('/') {
        return Err(TargetError::BadAddress(address));
    }
    let scheme = b.get(SCHEME);
    if !matches!(scheme, "http" | "https") {
        return Err(TargetError::BadScheme(scheme.to_owned()));
    }
    let (interval_ms, timeout_ms) = (time(&b, INTERVAL, "interval")?, time(&b, TIMEOUT, "timeout")?);
    if timeout_ms > interval_ms {
        return Err(TargetError::TimeoutTooLong(b.get(TIMEOUT).to_owned(), b.get(INTERVAL).to_owned()));
    }
    if b.get("instance").is_empty() {
        b.set("instance", &address);
    }
    let all = b.build();
    if let Some((name, _)) = all.iter().find(|(n, _)| !job.name_scheme.label_ok(n)) {
        return Err(TargetError::BadLabel(name.to_owned()));
    }
    let labels = Labels::from_sorted(all.iter().filter(|(n, _)| !n.starts_with("__")));
    let url = url(&all, job);
    let key = key(&job.job_name, &labels, &url);
    Ok(Some(Target {
        labels,
        discovered_labels,
        url,
        job: job.job_name.clone(),
        interval_ms,
        timeout_ms,
        key,
    }))
}

fn time(b: &LabelsBuilder, name: &str, what: &'static str) -> Result<i64, TargetError> {
    let ms = parse_duration(b.get(name)).map_err(|e| TargetError::BadDuration(what, e.to_string()))?;
    if ms == 0 { Err(TargetError::BadDuration(what, "cannot be 0".to_owned())) } else { Ok(ms) }
}

fn key(job: &str, labels: &Labels, url: &str) -> u64 {
    let mut bytes = Vec::with_capacity(labels.heap_bytes() + url.len() + job.len());
    bytes.extend_from_slice(job.as_bytes());
    bytes.push(0xff);
    for (name, value) in labels {
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0xff);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0xff);
    }
    bytes.push(0xff);
    bytes.extend_from_slice(url.as_bytes());
    xxh3_64(&bytes)
}

/// `scheme://address/path?params`, parameters sorted by name; the `__param_` labels replace first values.
fn url(labels: &Labels, job: &ScrapeConfig) -> String {
    let mut params: Vec<(String, Vec<String>)> = job.params.clone();
    for (label, value) in labels {
        let Some(name) = label.strip_prefix(PARAM) else { continue };
        match params.iter_mut().find(|(n, _)| n == name) {
            Some((_, values)) if !values.is_empty() => value.clone_into(&mut values[0]),
            Some((_, values)) => values.push(value.to_owned()),
            None => params.push((name.to_owned(), vec![value.to_owned()])),
        }
    }
    params.sort();
    let path = labels.value(METRICS_PATH);
    let slash = if path.starts_with('/') || path.is_empty() { "" } else { "/" };
    let mut out = format!("{}://{}{slash}", labels.value(SCHEME), labels.value(ADDRESS));
    escape(&mut out, path, b"/$&+,;=:@-_.~!'()*");
    let mut lead = '?';
    for (name, values) in &params {
        for value in values {
            out.push(lead);
            escape(&mut out, name, b"-_.~");
            out.push('=');
            escape(&mut out, value, b"-_.~");
            lead = '&';
        }
    }
    out
}

fn escape(out: &mut String, text: &str, keep: &[u8]) {
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || keep.contains(&b) {
            out.push(char::from(b));
        } else if b == b' ' && !keep.contains(&b'/') {
            out.push('+');
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
}

/// What one job scrapes, and what it does not and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetSet {
    /// Targets, each key once, in discovery order.
    pub active: Vec<Target>,
    /// Discovered labels of targets that relabelling dropped; as many as the job keeps.
    pub dropped: Vec<Labels>,
    /// How many were dropped.
    pub dropped_count: usize,
    /// Targets that cannot be scraped.
    pub errors: Vec<(Labels, TargetError)>,
    /// The job has too many targets: none is scraped and each shows this error.
    pub limit_error: Option<String>,
}

impl TargetSet {
    /// Populates all groups of a job and removes duplicates.
    pub fn of(job: &ScrapeConfig, groups: &[TargetGroup]) -> Self {
        let mut out = Self::default();
        let mut seen = HashSet::new();
        let keep = match job.limits.keep_dropped_targets {
            0 => DROPPED_MAX,
            n => usize::try_from(n).unwrap_or(DROPPED_MAX).min(DROPPED_MAX),
        };
        for group in groups {
            for target in &group.targets {
                match populate_labels(target, &group.labels, job) {
                    Ok(Some(target)) => {
                        if seen.insert(target.key) {
                            out.active.push(target);
                        }
                    }
                    Ok(None) => {
                        out.dropped_count += 1;
                        if out.dropped.len() < keep {
                            out.dropped.push(discovered(target, &group.labels, job).build());
                        }
                    }
                    Err(e) => out.errors.push((discovered(target, &group.labels, job).build(), e)),
                }
            }
        }
        let (count, limit) = (out.active.len() as u64, job.limits.targets);
        if limit > 0 && count > limit {
            out.limit_error =
                Some(format!("target_limit exceeded (number of targets: {count}, limit: {limit})"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(lines: &str) -> ScrapeConfig {
        let body: String = lines.lines().map(|l| format!("  {l}\n")).collect();
        let text = format!("scrape_configs:\n- job_name: j\n{body}");
        koios_config::parse(&text, "t.yml").unwrap_or_else(|e| panic!("{e}")).scrape_configs.remove(0)
    }

    fn at(address: &str) -> Labels {
        Labels::from_pairs([(ADDRESS, address)])
    }

    fn one(job: &ScrapeConfig, address: &str) -> Result<Option<Target>, TargetError> {
        populate_labels(&at(address), &Labels::from_pairs([("team", "x"), ("__meta_a", "1")]), job)
    }

    #[test]
    fn defaults() {
        let t = one(&job("scrape_interval: 20s"), "h:1").unwrap().unwrap();
        assert_eq!(t.labels.to_string(), "{instance=\"h:1\", job=\"j\", team=\"x\"}");
        assert_eq!((t.url.as_str(), t.interval_ms, t.timeout_ms), ("http://h:1/metrics", 20_000, 10_000));
        assert_eq!(
            t.discovered_labels.to_string(),
            "{__address__=\"h:1\", __meta_a=\"1\", __metrics_path__=\"/metrics\", __scheme__=\"http\", \
             __scrape_interval__=\"20s\", __scrape_timeout__=\"10s\", job=\"j\", team=\"x\"}"
        );
    }

    #[test]
    fn urls() {
        for (lines, want) in [
            ("scheme: https\nmetrics_path: /a b", "https://h/a%20b"),
            ("metrics_path: probe", "http://h/probe"),
            (
                "params: {z: [1], 'match[]': ['{a=\"b c\"}', y]}",
                "http://h/metrics?match%5B%5D=%7Ba%3D%22b+c%22%7D&match%5B%5D=y&z=1",
            ),
            (
                "params: {target: [old, second]}\nrelabel_configs: [{source_labels: [team], target_label: __param_target}]",
                "http://h/metrics?target=x&target=second",
            ),
            ("relabel_configs: [{target_label: __param_new, replacement: v}]", "http://h/metrics?new=v"),
        ] {
            assert_eq!(one(&job(lines), "h").unwrap().unwrap().url, want, "{lines}");
        }
    }

    #[test]
    fn relabelling_decides_and_mistakes_are_told() {
        let rule = |label: &str, value: &str| {
            job(&format!("relabel_configs: [{{target_label: {label}, replacement: '{value}'}}]"))
        };
        assert_eq!(
            one(&job("relabel_configs: [{source_labels: [team], regex: x, action: drop}]"), "h"),
            Ok(None)
        );
        for (job, want) in [
            (rule("__address__", ""), "no address"),
            (rule("__address__", "h/p"), "\"h/p\" is not a valid hostname"),
            (rule("__scheme__", "ftp"), "unsupported scheme \"ftp\""),
            (
                rule("__scrape_interval__", "x"),
                "error parsing scrape interval: not a valid duration string: \"x\"",
            ),
            (rule("__scrape_interval__", "0"), "error parsing scrape interval: cannot be 0"),
            (
                rule("__scrape_timeout__", "2m"),
                "scrape timeout cannot be greater than scrape interval (\"2m\" > \"1m\")",
            ),
        ] {
            assert_eq!(one(&job, "h").unwrap_err().to_string(), want);
        }
        let t = one(&rule("__scrape_interval__", "5m"), "h").unwrap().unwrap();
        assert_eq!(t.interval_ms, 300_000);
        assert_eq!(one(&rule("instance", "name"), "h").unwrap().unwrap().labels.value("instance"), "name");
    }

    #[test]
    fn sets_are_deduplicated_and_limited() {
        let groups =
            [TargetGroup { targets: vec![at("a:1"), at("b:1"), at("a:1")], ..TargetGroup::default() }];
        let set = TargetSet::of(&job(""), &groups);
        assert_eq!((set.active.len(), set.limit_error), (2, None));
        let set = TargetSet::of(&job("target_limit: 1"), &groups);
        assert_eq!(set.limit_error.unwrap(), "target_limit exceeded (number of targets: 2, limit: 1)");
        let dropping = job("keep_dropped_targets: 1\nrelabel_configs: [{action: drop}]");
        let set = TargetSet::of(&dropping, &groups);
        assert_eq!((set.active.len(), set.dropped.len(), set.dropped_count), (0, 1, 3));
    }

    #[test]
    fn keys_are_stable() {
        // Golden: a change here moves every target to another time and another node.
        let t = one(&job(""), "h:1").unwrap().unwrap();
        let mut bytes = b"j\xffinstance\xffh:1\xffjob\xffj\xffteam\xffx\xff\xff".to_vec();
        bytes.extend_from_slice(b"http://h:1/metrics");
        assert_eq!(t.key, xxh3_64(&bytes));
        assert_ne!(t.key, one(&job(""), "h:2").unwrap().unwrap().key);
        assert_ne!(t.key, one(&job("metrics_path: /x"), "h:1").unwrap().unwrap().key);
    }
}
