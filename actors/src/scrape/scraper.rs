//! Scraper: owns the loop of one target in one slot, with its staleness cache.
//!
//! Wakes at the target's next due time (absolute, the same on every node), fetches on the network runtime,
//! reads the body, writes one batch and stamps it with the scheduled time. One scrape at a time; a late one
//! skips due times and never piles up. `lastScrape` on the board moves only when the batch is acknowledged.
//! Bound: 2 messages. On death: starts with an empty cache; no marker is written.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use koios_model::{Clock, Exemplar, Slot};
use koios_scrape::{
    BodyView, CacheIndex, Fetched, Fetcher, IngestSettings, NativeHistogram, OutExemplar, OutHistogram,
    OutSample, ScrapeLoopState, ScrapeReport, SharedFamilies, Target, next_due,
};
use koios_tsdb::{Reject, Value};
use tokio::runtime::Handle;

use super::board::SharedStatus;
use crate::ingest::{Distributor, Home, IngestError, SeriesId, Write, WriteExemplar, Written};
use crate::kit::{Flare, Letter};

/// Most messages.
pub const BOUND: usize = 2;

/// Samples of a target that was never scraped.
pub const NEVER: i64 = -1;

/// What all scrapers of a job share.
pub struct JobRuntime {
    /// Fetches.
    pub fetcher: Fetcher,
    /// Reads.
    pub settings: Arc<IngestSettings>,
}

/// What a scraper works with.
#[derive(Clone)]
pub struct ScraperSetup {
    /// Shared by the job.
    pub job: Arc<JobRuntime>,
    /// The target.
    pub target: Arc<Target>,
    /// The replica it writes.
    pub slot: Slot,
    /// Where samples go.
    pub distributor: Distributor,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where fetching happens.
    pub net: Handle,
    /// Where outcomes are shown.
    pub status: SharedStatus,
    /// Where what the target says about its families is shown.
    pub families: SharedFamilies,
    /// Scheduled time of the last scrape that was stored, milliseconds.
    pub stored: Arc<AtomicI64>,
    /// Samples of the last good scrape; `NEVER` before the first scrape.
    pub samples: Arc<AtomicI64>,
}

/// What one scrape writes: floats, then histograms.
#[derive(Default)]
struct Batch {
    floats: Vec<OutSample>,
    histograms: Vec<OutHistogram>,
}

impl Batch {
    fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    /// The series of a position.
    fn series(&self, at: usize) -> CacheIndex {
        self.floats.get(at).map_or_else(|| self.histograms[at - self.floats.len()].series, |s| s.series)
    }

    /// Adds what another has at a position.
    fn take(&mut self, from: &Self, at: usize) {
        match from.floats.get(at) {
            Some(s) => self.floats.push(*s),
            None => self.histograms.push(from.histograms[at - from.floats.len()].clone()),
        }
    }
}

fn value(h: &NativeHistogram) -> Value {
    match h {
        NativeHistogram::Int(h) => Value::Histogram(h.clone()),
        NativeHistogram::Float(h) => Value::FloatHistogram(h.clone()),
    }
}

/// The actor.
pub struct Scraper {
    setup: ScraperSetup,
    state: ScrapeLoopState,
    body: Vec<u8>,
    out: Vec<OutSample>,
    /// Samples of the scrape in hand that storage did not take, by reason.
    refused: HashMap<Reject, u64>,
    last_due: i64,
    stopping: bool,
    _flare: Flare,
}

impl Scraper {
    /// A loop with an empty cache.
    pub fn new(setup: ScraperSetup, flare: Flare) -> Self {
        let mut state = ScrapeLoopState::new(setup.target.labels.clone(), setup.job.settings.clone());
        state.share_families(setup.families.clone());
        Self {
            setup,
            state,
            body: Vec::new(),
            out: Vec::new(),
            refused: HashMap::new(),
            last_due: i64::MIN,
            stopping: false,
            _flare: flare,
        }
    }

    fn arm(&mut self, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        let now = self.setup.clock.now_ms();
        let due = next_due(self.setup.target.key, self.setup.target.interval_ms, now.max(self.last_due));
        let wait = Duration::from_millis((due - now).max(0) as u64);
        ctx.run_later(wait, move |me, ctx| me.fetch(due, ctx));
    }

    fn fetch(&mut self, due: i64, ctx: &mut Context<Self>) {
        if self.stopping {
            return;
        }
        self.last_due = due;
        let (job, target, buffer) =
            (self.setup.job.clone(), self.setup.target.clone(), std::mem::take(&mut self.body));
        let work = self.setup.net.spawn(async move { job.fetcher.fetch(&target, buffer).await });
        ctx.spawn(work.into_actor(self).map(move |fetched, me, ctx| match fetched {
            Ok(fetched) => me.read(due, fetched, ctx),
            Err(e) => {
                tracing::error!(error = %e, url = me.setup.target.url, "fetch failed inside");
                me.arm(ctx);
            }
        }));
    }

    fn read(&mut self, due: i64, fetched: Fetched, ctx: &mut Context<Self>) {
        self.out.clear();
        let seconds = fetched.seconds;
        let report = match fetched.body {
            Ok((bytes, format)) => {
                let body = BodyView { bytes: &bytes, format };
                let report = self.state.ingest(due, Ok(body), seconds, &mut self.out);
                self.body = bytes;
                report
            }
            Err(failed) => self.state.ingest(due, Err(failed), seconds, &mut self.out),
        };
        let floats = std::mem::take(&mut self.out);
        let samples = Batch { floats, histograms: self.state.take_histograms() };
        self.write(samples, true, ctx, move |result, me, ctx| {
            if result.is_ok() {
                me.write_exemplars(ctx);
            }
            me.finish(due, seconds, report, result);
            me.arm(ctx);
        });
    }

    /// Writes the scrape's exemplars, after their samples, because those made the series.
    fn write_exemplars(&self, ctx: &mut Context<Self>) {
        let exemplars = self.state.exemplars();
        if exemplars.is_empty() {
            return;
        }
        let write = |e: &OutExemplar| WriteExemplar {
            series: match self.state.reference(e.series) {
                Some(id) => Ok(SeriesId(id)),
                None => Err((self.setup.slot, self.state.labels_of(e.series).clone())),
            },
            exemplar: Exemplar { labels: e.labels.clone(), t: e.t, v: e.value },
        };
        let writes = exemplars.iter().map(write).collect();
        let distributor = self.setup.distributor.clone();
        let home = Home::Source(self.setup.target.key);
        let work = async move { distributor.write_exemplars(writes, home).await };
        ctx.spawn(work.into_actor(self).map(|written, me, _| {
            let url = &me.setup.target.url;
            match written {
                Ok(written) if written.rejected.is_empty() => {}
                // Off, or exposed again and again: nothing to tell anybody at each scrape.
                Ok(written) => {
                    let (refused, (_, why)) = (written.rejected.len(), written.rejected[0]);
                    tracing::debug!(url, refused, reason = %why, "exemplars refused");
                }
                Err(e) => tracing::warn!(url, error = %e, "exemplars not stored"),
            }
        }));
    }

    /// Writes samples; those whose reference storage has forgotten are written again with their labels.
    fn write(
        &mut self,
        samples: Batch,
        again: bool,
        ctx: &mut Context<Self>,
        then: impl FnOnce(Result<(), IngestError>, &mut Self, &mut Context<Self>) + 'static,
    ) {
        let slot = self.setup.slot;
        let series = |series| match self.state.reference(series) {
            Some(id) => Ok(SeriesId(id)),
            None => Err((slot, self.state.labels_of(series).clone())),
        };
        let float = |s: &OutSample| Write { series: series(s.series), t: s.t, v: s.v.into() };
        let histogram = |s: &OutHistogram| Write { series: series(s.series), t: s.t, v: value(&s.h) };
        let floats = samples.floats.iter().map(float);
        let writes = floats.chain(samples.histograms.iter().map(histogram)).collect();
        let distributor = self.setup.distributor.clone();
        let home = Home::Source(self.setup.target.key);
        let work = async move { distributor.write(writes, home).await };
        ctx.spawn(work.into_actor(self).map(move |written, me, ctx| match written {
            Ok(written) => {
                let forgotten = me.absorb(&samples, &written);
                if forgotten.len() == 0 || !again {
                    then(Ok(()), me, ctx);
                } else {
                    me.write(forgotten, false, ctx, then);
                }
                me.out = samples.floats;
            }
            Err(e) => then(Err(e), me, ctx),
        }));
    }

    fn absorb(&mut self, samples: &Batch, written: &Written) -> Batch {
        for (at, id) in written.ids.iter().enumerate() {
            if let Some(id) = id {
                self.state.set_reference(samples.series(at), id.0);
            }
        }
        let mut forgotten = Batch::default();
        for (at, why) in &written.rejected {
            if *why == Reject::UnknownRef {
                self.state.forget_reference(samples.series(*at));
                forgotten.take(samples, *at);
            } else {
                *self.refused.entry(*why).or_default() += 1;
            }
        }
        forgotten
    }

    fn finish(&mut self, due: i64, seconds: f64, mut report: ScrapeReport, result: Result<(), IngestError>) {
        match result {
            Ok(()) => self.setup.stored.store(due, Ordering::Release),
            Err(e) => {
                report.up = false;
                report.error = Some(format!("the samples were not stored: {e}"));
            }
        }
        for (why, samples) in self.refused.drain() {
            tracing::warn!(url = self.setup.target.url, samples, reason = %why, "samples refused");
            if why == Reject::SeriesLimit {
                report.up = false;
                report.error = Some(format!("{samples} samples were not stored: {why}"));
            }
        }
        // A target that is down now will be as large as it was.
        let samples = if report.up { report.post_relabel as i64 } else { 0 };
        if report.up || self.setup.samples.load(Ordering::Relaxed) == NEVER {
            self.setup.samples.store(samples, Ordering::Relaxed);
        }
        self.setup.status.lock().update(due, seconds, &report);
    }
}

impl Actor for Scraper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.arm(ctx);
    }
}

/// Takes a new configuration of the job or the target.
pub struct Reconfigure {
    /// Shared by the job.
    pub job: Arc<JobRuntime>,
    /// The same target, maybe with another interval.
    pub target: Arc<Target>,
}

impl Message for Reconfigure {
    type Result = ();
}

impl Handler<Letter<Reconfigure>> for Scraper {
    type Result = ();

    fn handle(&mut self, m: Letter<Reconfigure>, _: &mut Context<Self>) {
        self.state.reconfigure(m.body.job.settings.clone());
        self.setup.job = m.body.job;
        self.setup.target = m.body.target;
    }
}

/// Ends the loop.
pub struct Stop {
    /// The target left discovery: its series end here. Never when only the owner changed.
    pub mark_stale: bool,
}

impl Message for Stop {
    type Result = ();
}

impl Handler<Letter<Stop>> for Scraper {
    type Result = ();

    fn handle(&mut self, m: Letter<Stop>, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        if m.body.mark_stale && self.last_due > i64::MIN {
            let mut out = Vec::new();
            // One interval after the last scrape, where the next one would have been.
            let at = self.last_due + self.setup.target.interval_ms;
            self.state.on_target_removed(at, &mut out);
            let ends = Batch { floats: out, histograms: Vec::new() };
            self.write(ends, true, ctx, |result, _, _| {
                if let Err(e) = result {
                    tracing::warn!(error = %e, "stale markers of a removed target not written");
                }
            });
        }
    }
}
