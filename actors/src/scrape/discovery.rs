//! Discovery: owns the configuration's jobs and the targets found for them.
//!
//! Takes `Apply` (a configuration) and `StopAll` (the drain). Looks at the files of file discovery every
//! second when a watch says so, and at their refresh interval in any case; what servers of targets told is in `Sources`.
//! A job that nobody configured, the
//! cluster scraping itself, is kept from the cluster view. Tells pools; each job has one. Bound: 8 messages.
//! On death: starts again with the last applied configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, ArbiterHandle, AsyncContext, Context, Handler, Message};
use koios_cluster::ClusterView;
use koios_config::ScrapeConfig;
use koios_model::Labels;
use koios_scrape::{FileDiscovery, FileWatch, TargetGroup, TargetSet, static_groups};
use parking_lot::Mutex;

use super::pool::{self, End, PoolSetup, ScrapePool, SetJob};
use super::sources::Sources;
use crate::kit::{Flare, Letter, Mailroom, Warden};

/// Most messages.
pub const BOUND: usize = 8;
const LOOK: Duration = Duration::from_secs(1);

/// What discovery works with.
#[derive(Clone)]
pub struct ScrapeSetup {
    /// For pools.
    pub pool: PoolSetup,
    /// Where pools live.
    pub arbiter: ArbiterHandle,
    /// The configuration last applied; survives a restart of the actor.
    pub applied: Arc<Mutex<Jobs>>,
    /// Servers that tell targets.
    pub sources: Arc<Sources>,
}

/// The jobs of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    /// As configured.
    pub configured: Vec<Arc<ScrapeConfig>>,
    /// The job of the cluster scraping itself, when nothing is configured.
    pub own: Option<Arc<ScrapeConfig>>,
}

struct Job {
    config: Arc<ScrapeConfig>,
    room: Mailroom<ScrapePool>,
    warden: Warden,
    files: FileDiscovery,
    _watch: Option<FileWatch>,
    touched: Arc<AtomicBool>,
    file_groups: Vec<TargetGroup>,
    next_poll_ns: u64,
    last: Option<Arc<Vec<TargetGroup>>>,
    posted_restarts: u64,
}

/// The actor.
pub struct Discovery {
    setup: ScrapeSetup,
    jobs: BTreeMap<String, Job>,
    stopped: bool,
    _flare: Flare,
}

impl Discovery {
    /// Starts with what was applied last.
    pub fn new(setup: ScrapeSetup, flare: Flare) -> Self {
        Self { setup, jobs: BTreeMap::new(), stopped: false, _flare: flare }
    }

    fn apply(&mut self, jobs: &Jobs) {
        let wanted: BTreeMap<String, Arc<ScrapeConfig>> =
            jobs.configured.iter().chain(&jobs.own).map(|c| (c.job_name.clone(), c.clone())).collect();
        self.jobs.retain(|name, job| {
            let stays = wanted.contains_key(name);
            if !stays {
                let _ = job.room.tell(End { mark_stale: true });
                job.warden.release();
            }
            stays
        });
        self.setup.sources.keep(wanted.values().flat_map(|c| &c.http_sd_configs));
        for (name, config) in wanted {
            match self.jobs.get_mut(&name) {
                Some(job) if *job.config == *config => {}
                Some(job) => {
                    job.config = config;
                    job.watch_files();
                }
                None => {
                    let job = self.open(&name, config);
                    self.jobs.insert(name, job);
                }
            }
        }
        self.look();
    }

    fn open(&self, name: &str, config: Arc<ScrapeConfig>) -> Job {
        let room = Mailroom::new("scrape-pool", pool::BOUND);
        let (pool_setup, pool_name) = (self.setup.pool.clone(), name.to_owned());
        let warden = Warden::watch(room.clone(), self.setup.arbiter.clone(), move |flare| {
            ScrapePool::new(pool_name.clone(), pool_setup.clone(), flare)
        });
        let mut job = Job {
            files: FileDiscovery::new(&config.file_sd_configs),
            config,
            room,
            warden,
            _watch: None,
            touched: Arc::default(),
            file_groups: Vec::new(),
            next_poll_ns: 0,
            last: None,
            posted_restarts: 0,
        };
        job.watch_files();
        job
    }

    fn look(&mut self) {
        if self.stopped {
            return;
        }
        let now_ns = self.setup.pool.clock.mono_ns();
        let view = self.setup.pool.views.borrow().clone();
        let own = self.setup.applied.lock().own.clone();
        self.setup.sources.look();
        self.setup.pool.scales.look(&view, self.setup.pool.replicas, &self.setup.pool.tell);
        for (name, job) in &mut self.jobs {
            let mut groups = static_groups(&job.config);
            groups.extend(job.poll_files(now_ns).iter().cloned());
            for config in &job.config.http_sd_configs {
                groups.extend(self.setup.sources.targets(config).iter().cloned());
            }
            if own.as_ref().is_some_and(|o| o.job_name == *name) {
                groups.push(own_group(&view));
            }
            job.post(groups);
        }
    }
}

impl Job {
    fn watch_files(&mut self) {
        self.files = FileDiscovery::new(&self.config.file_sd_configs);
        self.touched = Arc::new(AtomicBool::new(true));
        self.last = None;
        self._watch = None;
        if !self.config.file_sd_configs.is_empty() {
            let touched = self.touched.clone();
            match self.files.watch(move || touched.store(true, Ordering::Release)) {
                Ok(watch) => self._watch = Some(watch),
                Err(why) => tracing::warn!(job = self.config.job_name, why, "files are polled, not watched"),
            }
        }
    }

    fn poll_files(&mut self, now_ns: u64) -> &[TargetGroup] {
        if self.config.file_sd_configs.is_empty() {
            return &[];
        }
        if self.touched.swap(false, Ordering::AcqRel) || now_ns >= self.next_poll_ns {
            self.next_poll_ns = now_ns + self.files.refresh_ms().max(1000) as u64 * 1_000_000;
            let update = self.files.poll();
            for p in update.problems {
                tracing::warn!(file = %p.path.display(), cause = p.cause, "target file not read; its last targets stay");
            }
            self.file_groups = update.groups;
        }
        &self.file_groups
    }

    fn post(&mut self, groups: Vec<TargetGroup>) {
        let restarts = self.warden.restarts();
        let same = self.last.as_ref().is_some_and(|l| **l == groups) && self.posted_restarts == restarts;
        if same {
            return;
        }
        let set = Arc::new(TargetSet::of(&self.config, &groups));
        for (labels, e) in &set.errors {
            tracing::warn!(job = self.config.job_name, target = %labels, error = %e, "target is not usable");
        }
        if self.room.tell(SetJob { config: self.config.clone(), set }).is_ok() {
            self.last = Some(Arc::new(groups));
            self.posted_restarts = restarts;
        }
    }
}

/// Every node that has not left, so that a dead one shows as `up 0`.
fn own_group(view: &ClusterView) -> TargetGroup {
    let shown = view.members.values().filter(|m| m.shown_state() != "left");
    let targets = shown.map(|m| Labels::from_pairs([("__address__", m.record.http.to_string())])).collect();
    TargetGroup { source: "cluster".to_owned(), labels: Labels::empty(), targets }
}

impl Actor for Discovery {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let jobs = self.setup.applied.lock().clone();
        self.apply(&jobs);
        again(ctx);
    }
}

fn again(ctx: &mut Context<Discovery>) {
    ctx.run_later(LOOK, |me, ctx| {
        me.look();
        again(ctx);
    });
}

/// Takes a configuration.
pub struct Apply(pub Jobs);

impl Message for Apply {
    type Result = ();
}

impl Handler<Letter<Apply>> for Discovery {
    type Result = ();

    fn handle(&mut self, m: Letter<Apply>, _: &mut Context<Self>) {
        *self.setup.applied.lock() = m.body.0.clone();
        self.apply(&m.body.0);
    }
}

/// Ends all scraping of this node; other nodes go on with the targets.
pub struct StopAll;

impl Message for StopAll {
    type Result = ();
}

impl Handler<Letter<StopAll>> for Discovery {
    type Result = ();

    fn handle(&mut self, _: Letter<StopAll>, _: &mut Context<Self>) {
        self.stopped = true;
        for job in self.jobs.values() {
            let _ = job.room.tell(End { mark_stale: false });
        }
    }
}
