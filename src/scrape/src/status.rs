//! A target as `/api/v1/targets` shows it.

use koios_model::Labels;
use koios_model::duration::format_duration;
use koios_model::timestamp::rfc3339;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::ingest::ScrapeReport;
use crate::target::Target;

/// Whether a target answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not scraped yet.
    #[default]
    Unknown,
    /// The last scrape succeeded.
    Up,
    /// The last scrape failed.
    Down,
}

/// One entry of `activeTargets` (Prometheus HTTP API, "Targets").
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Labels before relabelling.
    #[serde(serialize_with = "labels_map")]
    pub discovered_labels: Labels,
    /// Labels of its series.
    #[serde(serialize_with = "labels_map")]
    pub labels: Labels,
    /// Job.
    pub scrape_pool: String,
    /// What is fetched.
    pub scrape_url: String,
    /// The same as seen from elsewhere.
    pub global_url: String,
    /// Why the last scrape failed; empty when it did not.
    pub last_error: String,
    /// When the last scrape was due, RFC 3339.
    pub last_scrape: String,
    /// Seconds the last scrape took.
    pub last_scrape_duration: f64,
    /// Whether it answers.
    pub health: Health,
    /// Prometheus duration.
    pub scrape_interval: String,
    /// Prometheus duration.
    pub scrape_timeout: String,
}

/// One entry of `droppedTargets`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DroppedTarget {
    /// Labels before relabelling.
    #[serde(serialize_with = "labels_map")]
    pub discovered_labels: Labels,
    /// Job.
    pub scrape_pool: String,
}

/// A moment that never was, as Go prints it.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl TargetStatus {
    /// A target that was not scraped yet. `external_host` replaces loopback names in the global URL.
    pub fn new(target: &Target, external_host: &str) -> Self {
        Self {
            discovered_labels: target.discovered_labels.clone(),
            labels: target.labels.clone(),
            scrape_pool: target.job.clone(),
            scrape_url: target.url.clone(),
            global_url: global_url(&target.url, external_host),
            last_error: String::new(),
            last_scrape: NEVER.to_owned(),
            last_scrape_duration: 0.0,
            health: Health::Unknown,
            scrape_interval: format_duration(target.interval_ms),
            scrape_timeout: format_duration(target.timeout_ms),
        }
    }

    /// Takes over what a scrape did.
    pub fn update(&mut self, scheduled_ms: i64, seconds: f64, report: &ScrapeReport) {
        self.last_error = report.error.clone().unwrap_or_default();
        self.last_scrape = rfc3339(scheduled_ms);
        self.last_scrape_duration = seconds;
        self.health = if report.up { Health::Up } else { Health::Down };
    }
}

fn global_url(url: &str, external_host: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, format!(":{port}")),
        _ => (authority, String::new()),
    };
    if !external_host.is_empty() && matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
        return format!("{scheme}://{external_host}{port}{tail}");
    }
    url.to_owned()
}

fn labels_map<S: Serializer>(labels: &Labels, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (name, value) in labels {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_like_prometheus() {
        let target = Target {
            labels: Labels::from_pairs([("instance", "127.0.0.1:9090"), ("job", "j")]),
            discovered_labels: Labels::from_pairs([("__address__", "127.0.0.1:9090")]),
            url: "http://127.0.0.1:9090/metrics".into(),
            job: "j".into(),
            interval_ms: 60_000,
            timeout_ms: 10_000,
            key: 1,
        };
        let mut status = TargetStatus::new(&target, "node-1");
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            "{\"discoveredLabels\":{\"__address__\":\"127.0.0.1:9090\"},\"labels\":{\"instance\":\"127.0.0.1:9090\",\"job\":\"j\"},\
             \"scrapePool\":\"j\",\"scrapeUrl\":\"http://127.0.0.1:9090/metrics\",\"globalUrl\":\"http://node-1:9090/metrics\",\
             \"lastError\":\"\",\"lastScrape\":\"0001-01-01T00:00:00Z\",\"lastScrapeDuration\":0.0,\"health\":\"unknown\",\
             \"scrapeInterval\":\"1m\",\"scrapeTimeout\":\"10s\"}"
        );
        let report = ScrapeReport { error: Some("connection refused".into()), ..ScrapeReport::default() };
        status.update(1_435_781_451_781, 0.5, &report);
        assert_eq!((status.health, status.last_error.as_str()), (Health::Down, "connection refused"));
        assert_eq!(status.last_scrape, "2015-07-01T20:10:51.781Z");
    }
}
