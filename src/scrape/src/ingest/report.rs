//! The series that say how a scrape went. They carry the target's labels and pass neither relabelling nor
//! limits.

use koios_model::{Labels, LabelsBuilder, METRIC_NAME, stale_nan};

use super::cache::Cache;
use super::{CacheIndex, OutSample, ScrapeReport};

/// Report series in the order they are written; the last three only on request.
const NAMES: [&str; 8] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];
/// How many are always written.
const ALWAYS: usize = 5;

/// Report series of one target.
#[derive(Debug)]
pub struct ReportSeries {
    labels: Vec<Labels>,
    slots: Vec<CacheIndex>,
}

impl ReportSeries {
    /// For a target with these labels.
    pub(super) fn of(target: &Labels) -> Self {
        let named = |name: &&str| {
            let mut b = LabelsBuilder::from_labels(target);
            b.set(METRIC_NAME, name);
            b.build()
        };
        Self { labels: NAMES.iter().map(named).collect(), slots: Vec::new() }
    }

    pub(super) fn write(
        &mut self,
        cache: &mut Cache,
        t: i64,
        seconds: f64,
        report: &ScrapeReport,
        extra: Option<(i64, u64)>,
        out: &mut Vec<OutSample>,
    ) {
        let (timeout_ms, sample_limit) = extra.unwrap_or_default();
        let values = [
            f64::from(u8::from(report.up)),
            seconds,
            report.scraped as f64,
            report.post_relabel as f64,
            report.series_added as f64,
            timeout_ms as f64 / 1000.0,
            sample_limit as f64,
            report.body_size as f64,
        ];
        let count = if extra.is_some() { NAMES.len() } else { ALWAYS };
        while self.slots.len() < count {
            let slot = cache.slot_of(self.labels[self.slots.len()].clone());
            cache.pin(slot);
            self.slots.push(slot);
        }
        for (series, v) in self.slots.iter().zip(values).take(count) {
            out.push(OutSample { series: *series, t, v });
        }
    }

    /// Ends them.
    pub(super) fn end(&mut self, t: i64, out: &mut Vec<OutSample>) {
        out.extend(self.slots.iter().map(|series| OutSample { series: *series, t, v: stale_nan() }));
    }
}
