//! One target's scrape cache: from bodies to appendable samples, report series and stale markers.
//!
//! Owns the staleness rules (Prometheus documentation, "Staleness"): a series that was there and is not gets
//! one stale marker at the scheduled time; a failed scrape ends every series; series with their own
//! timestamps are exempt unless the job says otherwise. Pure and synchronous: time comes in, samples go out.
//!
//! Two tables: *rows* are raw exposed series, found by prediction (the previous order) or by hash; *slots* are
//! final label sets, several rows may lead to one. Storage references live in slots and belong to the caller.
//!
//! Invariants: after a failed scrape nothing of its body is in the output; a slot named in an output stays
//! valid until the next call of `ingest`; one sample per slot and scrape unless samples bring timestamps.

mod cache;
mod labels;
mod metadata;
mod report;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use koios_config::{Limits, NameScheme, RelabelRule, ScrapeConfig};
use koios_model::{Labels, stale_nan};

pub use cache::CacheIndex;
use cache::{Cache, Place};
pub use metadata::{Family, FamilyTable, SharedFamilies};
pub use report::ReportSeries;

use crate::native::{NativeHistogram, Resolution};
use crate::parse::{self, Exemplar, Format, Metadata, OwnExemplar, ParseOptions, ParsedSample, Sink};

/// Exemplars kept of one scrape; the rest is counted and dropped.
const EXEMPLARS_MAX: usize = 10_000;

/// What of a job matters after the fetch.
#[derive(Clone, Debug, PartialEq)]
pub struct IngestSettings {
    /// Exposed labels win over target labels.
    pub honor_labels: bool,
    /// Exposed timestamps are kept.
    pub honor_timestamps: bool,
    /// Series with exposed timestamps get stale markers too.
    pub track_timestamps_staleness: bool,
    /// Rules for samples.
    pub metric_relabel: Vec<RelabelRule>,
    /// Bounds.
    pub limits: Limits,
    /// Valid names.
    pub name_scheme: NameScheme,
    /// Write three more report series.
    pub extra_scrape_metrics: bool,
    /// For `scrape_timeout_seconds`, milliseconds.
    pub timeout_ms: i64,
    /// What is wanted of histograms.
    pub histograms: ParseOptions,
    /// How fine native histograms may be.
    pub resolution: Resolution,
}

impl IngestSettings {
    /// The settings of a job.
    pub fn of(job: &ScrapeConfig) -> Arc<Self> {
        Arc::new(Self {
            honor_labels: job.honor_labels,
            honor_timestamps: job.honor_timestamps,
            track_timestamps_staleness: job.track_timestamps_staleness,
            metric_relabel: job.metric_relabel_configs.clone(),
            limits: job.limits,
            name_scheme: job.name_scheme,
            extra_scrape_metrics: job.extra_scrape_metrics,
            timeout_ms: job.scrape_timeout_ms,
            histograms: ParseOptions {
                native: job.scrape_native_histograms,
                convert_classic: job.convert_classic_histograms_to_nhcb,
                classic: job.always_scrape_classic_histograms,
            },
            resolution: Resolution::new(
                job.native_histogram_bucket_limit,
                job.native_histogram_min_bucket_factor,
            ),
        })
    }
}

/// A sample to append.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutSample {
    /// Which series; see `ScrapeLoopState::labels_of` and `reference`.
    pub series: CacheIndex,
    /// Milliseconds.
    pub t: i64,
    /// Value; may be the stale marker.
    pub v: f64,
}

/// A native histogram to append.
#[derive(Clone, Debug, PartialEq)]
pub struct OutHistogram {
    /// Which series.
    pub series: CacheIndex,
    /// Milliseconds.
    pub t: i64,
    /// Value.
    pub h: NativeHistogram,
}

/// An exemplar to append.
#[derive(Clone, Debug, PartialEq)]
pub struct OutExemplar {
    /// Which series.
    pub series: CacheIndex,
    /// Its own labels.
    pub labels: Labels,
    /// Value.
    pub value: f64,
    /// Milliseconds; the scrape's time when none is exposed.
    pub t: i64,
}

/// A fetched body.
#[derive(Clone, Copy, Debug)]
pub struct BodyView<'a> {
    /// Decompressed bytes.
    pub bytes: &'a [u8],
    /// How to read them.
    pub format: Format,
}

/// A scrape that brought no body.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// Prometheus' words, shown on /targets.
    pub cause: String,
    /// The body exceeded its size limit.
    pub too_big: bool,
}

/// What one scrape did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScrapeReport {
    /// The scrape succeeded; `up` is 1.
    pub up: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// Samples exposed.
    pub scraped: u64,
    /// Samples left after metric relabelling.
    pub post_relabel: u64,
    /// Series not in the cache before.
    pub series_added: u64,
    /// Stale markers written.
    pub stale: u64,
    /// Samples dropped because their series came twice.
    pub duplicates: u64,
    /// Exemplars dropped because there were too many.
    pub exemplars_dropped: u64,
    /// Bytes of the body; -1 over the limit, 0 on other failures.
    pub body_size: i64,
}

/// The state of one scrape loop.
#[derive(Debug)]
pub struct ScrapeLoopState {
    target: Labels,
    settings: Arc<IngestSettings>,
    cache: Cache,
    families: SharedFamilies,
    report: ReportSeries,
    exemplars: Vec<OutExemplar>,
    histograms: Vec<OutHistogram>,
}

impl ScrapeLoopState {
    /// An empty cache for a target with these (public) labels.
    pub fn new(target: Labels, settings: Arc<IngestSettings>) -> Self {
        let report = ReportSeries::of(&target);
        Self {
            target,
            settings,
            cache: Cache::default(),
            families: SharedFamilies::default(),
            report,
            exemplars: Vec::new(),
            histograms: Vec::new(),
        }
    }

    /// Takes new settings. What leads from exposed series to labels is forgotten, which series are live is not.
    pub fn reconfigure(&mut self, settings: Arc<IngestSettings>) {
        if *self.settings != *settings {
            self.cache.forget_rows();
            self.settings = settings;
        }
    }

    /// Reads one outcome at its scheduled time, appending what is to be stored to `out`: samples in exposition
    /// order, then stale markers, then the report series. `seconds` is how long the fetch took.
    pub fn ingest(
        &mut self,
        scheduled_ms: i64,
        outcome: Result<BodyView<'_>, Failed>,
        seconds: f64,
        out: &mut Vec<OutSample>,
    ) -> ScrapeReport {
        self.cache.begin();
        self.exemplars.clear();
        self.histograms.clear();
        let mut report = ScrapeReport::default();
        let start = out.len();
        match outcome {
            Ok(body) => {
                report.body_size = i64::try_from(body.bytes.len()).unwrap_or(i64::MAX);
                let families = self.families.clone();
                let mut families = families.lock();
                families.begin();
                report.error = self.read(scheduled_ms, body, &mut families, out, &mut report);
            }
            Err(failed) => {
                report.body_size = if failed.too_big { -1 } else { 0 };
                report.error = Some(failed.cause);
            }
        }
        report.up = report.error.is_none();
        if !report.up {
            out.truncate(start);
            self.exemplars.clear();
            self.histograms.clear();
            self.cache.undo();
        }
        let before = out.len();
        self.cache.end(report.up, |series| out.push(OutSample { series, t: scheduled_ms, v: stale_nan() }));
        report.stale = (out.len() - before) as u64;
        let limits = self.settings.limits;
        let extra = self.settings.extra_scrape_metrics.then_some((self.settings.timeout_ms, limits.samples));
        self.report.write(&mut self.cache, scheduled_ms, seconds, &report, extra, out);
        report
    }

    fn read(
        &mut self,
        scheduled_ms: i64,
        body: BodyView<'_>,
        families: &mut FamilyTable,
        out: &mut Vec<OutSample>,
        report: &mut ScrapeReport,
    ) -> Option<String> {
        let mut reader = Reader {
            target: &self.target,
            settings: &self.settings,
            cache: &mut self.cache,
            families,
            exemplars: &mut self.exemplars,
            histograms: &mut self.histograms,
            scheduled_ms,
            out,
            report,
            error: None,
        };
        let parsed = parse::parse_with(body.format, body.bytes, self.settings.histograms, &mut reader);
        match (reader.error, parsed) {
            (Some(error), _) => Some(error),
            (None, Err(e)) => Some(e.to_string()),
            (None, Ok(())) => None,
        }
    }

    /// The target went away: ends every series, the report series too.
    pub fn on_target_removed(&mut self, now_ms: i64, out: &mut Vec<OutSample>) {
        self.cache.begin();
        self.cache.end(false, |series| out.push(OutSample { series, t: now_ms, v: stale_nan() }));
        self.report.end(now_ms, out);
    }

    /// Another node goes on with this target: forgets everything and writes nothing.
    pub fn on_ownership_lost(&mut self) {
        let families = self.families.clone();
        *families.lock() = FamilyTable::default();
        *self = Self { families, ..Self::new(self.target.clone(), self.settings.clone()) };
    }

    /// Labels of a series that was just put out.
    pub fn labels_of(&self, series: CacheIndex) -> &Labels {
        self.cache.labels_of(series)
    }

    /// The storage reference that the caller left with `set_reference`.
    pub fn reference(&self, series: CacheIndex) -> Option<u64> {
        self.cache.reference(series)
    }

    /// Remembers a storage reference.
    pub fn set_reference(&mut self, series: CacheIndex, reference: u64) {
        self.cache.set_reference(series, Some(reference));
    }

    /// Forgets one storage reference, because storage no longer knows it.
    pub fn forget_reference(&mut self, series: CacheIndex) {
        self.cache.set_reference(series, None);
    }

    /// Forgets all storage references, because storage started anew.
    pub fn forget_references(&mut self) {
        self.cache.forget_references();
    }

    /// Exemplars of the last successful scrape.
    pub fn exemplars(&self) -> &[OutExemplar] {
        &self.exemplars
    }

    /// Native histograms of the last scrape, which belong to the same batch as its samples.
    pub fn take_histograms(&mut self) -> Vec<OutHistogram> {
        std::mem::take(&mut self.histograms)
    }

    /// What the target says about its families; held only while a body is read.
    pub fn families(&self) -> &SharedFamilies {
        &self.families
    }

    /// Keeps what the target says where others see it.
    pub fn share_families(&mut self, families: SharedFamilies) {
        self.families = families;
    }

    /// Rows in the cache, for metrics and tests.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// The target's public labels.
    pub fn target(&self) -> &Labels {
        &self.target
    }
}

/// Receives parsed samples and turns them into output.
struct Reader<'a> {
    target: &'a Labels,
    settings: &'a IngestSettings,
    cache: &'a mut Cache,
    families: &'a mut FamilyTable,
    exemplars: &'a mut Vec<OutExemplar>,
    histograms: &'a mut Vec<OutHistogram>,
    scheduled_ms: i64,
    out: &'a mut Vec<OutSample>,
    report: &'a mut ScrapeReport,
    error: Option<String>,
}

impl Sink for Reader<'_> {
    fn expected(&self) -> &[u8] {
        self.cache.expected()
    }

    fn metadata(&mut self, metadata: Metadata<'_>) {
        self.families.note(metadata);
    }

    #[inline]
    fn sample(&mut self, sample: ParsedSample<'_>) {
        let Some((series, t)) = self.admit(&sample) else { return };
        self.out.push(OutSample { series, t, v: sample.value });
        if let Some(exemplar) = sample.exemplar {
            self.exemplar(series, exemplar, t);
        }
    }

    fn histogram(&mut self, sample: ParsedSample<'_>, h: NativeHistogram, exemplars: &[OwnExemplar]) {
        let Some((series, t)) = self.admit(&sample) else { return };
        match self.settings.resolution.apply(h) {
            Ok(h) => self.histograms.push(OutHistogram { series, t, h }),
            Err(cause) => {
                self.error.get_or_insert(cause);
            }
        }
        for e in exemplars {
            self.exemplar(
                series,
                Exemplar { labels: &e.labels, value: e.value, timestamp_ms: e.timestamp_ms },
                t,
            );
        }
    }
}

impl Reader<'_> {
    /// Which series a sample belongs to and its time, unless it is not stored.
    #[inline]
    fn admit(&mut self, sample: &ParsedSample<'_>) -> Option<(CacheIndex, i64)> {
        self.report.scraped += 1;
        let place = if sample.guessed { self.cache.guessed() } else { self.cache.find(sample.series) };
        let place = match place {
            Some(place) => place,
            None => self.create(sample)?,
        };
        let Place::Slot(series) = place else { return None };
        self.report.post_relabel += 1;
        let limit = self.settings.limits.samples;
        if limit > 0 && self.report.post_relabel > limit && self.error.is_none() {
            self.error = Some("sample limit exceeded".to_owned());
        }
        if self.error.is_some() {
            return None;
        }
        let explicit = sample.timestamp_ms.filter(|_| self.settings.honor_timestamps);
        let tracked = explicit.is_none() || self.settings.track_timestamps_staleness;
        let first = self.cache.visit(series, tracked);
        if !first && explicit.is_none() {
            self.report.duplicates += 1;
            return None;
        }
        Some((series, explicit.unwrap_or(self.scheduled_ms)))
    }

    /// A row that the cache does not know: labels, target labels, relabelling, checks, limits.
    #[cold]
    fn create(&mut self, sample: &ParsedSample<'_>) -> Option<Place> {
        // Beyond the sample limit samples are still counted; the cache must not grow by them.
        let keep = self.error.is_none();
        let made = labels::of_sample(sample, self.target, self.settings);
        match made {
            Err(cause) => {
                self.error.get_or_insert(cause);
                None
            }
            Ok(labels) if !keep => {
                self.report.post_relabel += u64::from(labels.is_some());
                None
            }
            Ok(labels) => {
                self.report.series_added += u64::from(labels.is_some());
                Some(self.cache.insert(sample.series, labels))
            }
        }
    }

    fn exemplar(&mut self, series: CacheIndex, exemplar: Exemplar<'_>, t: i64) {
        if self.exemplars.len() >= EXEMPLARS_MAX {
            self.report.exemplars_dropped += 1;
            return;
        }
        let Some(labels) = labels::of_exemplar(exemplar.labels) else {
            self.report.exemplars_dropped += 1;
            return;
        };
        let t = exemplar.timestamp_ms.unwrap_or(t);
        self.exemplars.push(OutExemplar { series, labels, value: exemplar.value, t });
    }
}
