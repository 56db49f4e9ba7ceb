//! ScrapePool: owns the scrapers of one job on this node.
//!
//! Takes `SetJob` from discovery; follows by itself, twice a second, the view that ownership goes by. Which targets are
//! scraped here in which slot is `koios_cluster::Handover`, which is pure: a target that vanished from discovery
//! ends with stale markers; a slot that another node took over goes on until that node says that it has stored a
//! scrape (`relief`), or for a while, and ends without. Bound: 16
//! messages. On death: the scrapers' rooms are dropped with it and discovery posts the job again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use actix::{Actor, ArbiterHandle, AsyncContext, Context, Handler, Message};
use koios_cluster::balance::{Held, Moves};
use koios_cluster::handover::{Step, Wanted};
use koios_cluster::{ClusterView, Handover};
use koios_config::ScrapeConfig;
use koios_model::{Clock, Slot};
use koios_scrape::{DroppedTarget, Fetcher, IngestSettings, SharedFamilies, Target, TargetSet, TargetStatus};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::board::{BoardTarget, JobBoard, SharedStatus, TargetBoard};
use super::relief::{self, Covered, Relief, SLOTS_PER_MESSAGE};
use super::scales::Scales;
use super::scraper::{self, JobRuntime, Reconfigure, Scraper, ScraperSetup, Stop};
use crate::ingest::Distributor;
use crate::kit::{Flare, Letter, Mailroom, Warden};

/// Most messages.
pub const BOUND: usize = 16;
const FOLLOW: Duration = Duration::from_millis(500);

/// What a pool works with.
#[derive(Clone)]
pub struct PoolSetup {
    /// The cluster, as ownership sees it.
    pub views: watch::Receiver<Arc<ClusterView>>,
    /// Copies of a target.
    pub replicas: u8,
    /// Where samples go.
    pub distributor: Distributor,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where fetching happens.
    pub net: Handle,
    /// Where scrapers live.
    pub arbiters: Vec<ArbiterHandle>,
    /// Where outcomes are shown.
    pub board: Arc<TargetBoard>,
    /// Name of this machine in global URLs.
    pub external_host: String,
    /// What new owners of this node's slots say.
    pub relief: Arc<Relief>,
    /// How much this node scrapes, and which slots moved because of that.
    pub scales: Arc<Scales>,
    /// Tells a node something; whether it arrives is not waited for.
    pub tell: Tell,
}

/// Sends a message to a node by name.
pub type Tell = Arc<dyn Fn(String, String) + Send + Sync>;

struct Loop {
    target: Arc<Target>,
    room: Mailroom<Scraper>,
    warden: Warden,
    status: SharedStatus,
    families: SharedFamilies,
    /// Scheduled time of the last scrape that was stored, and the last of them that the handover knows of.
    stored: Arc<AtomicI64>,
    known: i64,
    /// Samples of the last good scrape.
    samples: Arc<AtomicI64>,
}

/// The actor.
pub struct ScrapePool {
    name: String,
    setup: PoolSetup,
    job: Option<(Arc<ScrapeConfig>, Arc<JobRuntime>, Arc<TargetSet>)>,
    loops: BTreeMap<(u64, Slot), Loop>,
    handover: Handover,
    ring_hash: Option<u64>,
    moves: Arc<Moves>,
    _flare: Flare,
}

impl ScrapePool {
    /// A pool without targets.
    pub fn new(name: String, setup: PoolSetup, flare: Flare) -> Self {
        Self {
            name,
            setup,
            job: None,
            loops: BTreeMap::new(),
            handover: Handover::default(),
            ring_hash: None,
            moves: Arc::default(),
            _flare: flare,
        }
    }

    fn reconcile(&mut self) {
        let Some((config, runtime, set)) = self.job.clone() else { return };
        let view = self.setup.views.borrow().clone();
        self.ring_hash = Some(view.ring_hash());
        let wanted: Vec<Wanted> =
            set.active.iter().map(|t| Wanted { key: t.key, interval_ms: t.interval_ms }).collect();
        let targets: BTreeMap<u64, &Target> = set.active.iter().map(|t| (t.key, t)).collect();
        let now_ns = self.setup.clock.mono_ns();
        self.moves = self.setup.scales.moves();
        let steps = self.handover.look_with(now_ns, &view, self.setup.replicas, &wanted, &self.moves);
        for step in &steps {
            if let Step::Start { key, slot } = *step {
                let started = self.open_loop(slot, Arc::new(targets[&key].clone()), runtime.clone());
                self.loops.insert((key, slot), started);
            }
        }
        self.stop_and_tell(steps);
        self.post(&config, &set);
    }

    /// Ends loops, and tells old owners what is covered here now.
    fn stop_and_tell(&mut self, steps: Vec<Step>) {
        let mut told: BTreeMap<String, Vec<Covered>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Start { .. } => {}
                Step::Stop { key, slot, mark_stale } => {
                    if let Some(mut l) = self.loops.remove(&(key, slot)) {
                        l.end(mark_stale);
                    }
                }
                Step::Tell { to, key, slot, since_ms } => {
                    told.entry(to).or_default().push(Covered { key, slot, since_ms });
                }
            }
        }
        for (to, slots) in told {
            for part in slots.chunks(SLOTS_PER_MESSAGE) {
                (self.setup.tell)(to.clone(), relief::message(&self.name, part));
            }
        }
    }

    /// Takes what was stored here and what others say they have stored; whether a loop ended.
    fn hand_over(&mut self) -> bool {
        let mut steps = Vec::new();
        for (&(key, slot), l) in &mut self.loops {
            let stored = l.stored.load(Ordering::Acquire);
            if stored > l.known {
                l.known = stored;
                steps.extend(self.handover.stored(key, slot, stored));
            }
        }
        for c in self.setup.relief.take(&self.name) {
            steps.extend(self.handover.covered(c.key, c.slot, c.since_ms));
        }
        let ended = steps.iter().any(|s| matches!(s, Step::Stop { .. }));
        self.stop_and_tell(steps);
        ended
    }

    /// Says how much the slots bring that are this node's.
    fn weigh(&self) {
        let rate = |l: &Loop| {
            let samples = u32::try_from(l.samples.load(Ordering::Relaxed)).ok()?;
            Some(f64::from(samples) * 1000.0 / l.target.interval_ms.max(1) as f64)
        };
        let own = self.loops.iter().filter(|((key, slot), _)| !self.handover.lingers(*key, *slot));
        let held = own.map(|(&(key, slot), l)| Held { key, slot, rate: rate(l) }).collect();
        self.setup.scales.weigh(&self.name, held);
    }

    fn open_loop(&self, slot: Slot, target: Arc<Target>, job: Arc<JobRuntime>) -> Loop {
        let status = Arc::new(Mutex::new(TargetStatus::new(&target, &self.setup.external_host)));
        let families = SharedFamilies::default();
        let stored = Arc::new(AtomicI64::new(i64::MIN));
        let samples = Arc::new(AtomicI64::new(scraper::NEVER));
        let setup = ScraperSetup {
            job,
            target: target.clone(),
            slot,
            distributor: self.setup.distributor.clone(),
            clock: self.setup.clock.clone(),
            net: self.setup.net.clone(),
            status: status.clone(),
            families: families.clone(),
            stored: stored.clone(),
            samples: samples.clone(),
        };
        let arbiter = &self.setup.arbiters[(target.key % self.setup.arbiters.len() as u64) as usize];
        let room = Mailroom::new("scraper", scraper::BOUND);
        let warden =
            Warden::watch(room.clone(), arbiter.clone(), move |flare| Scraper::new(setup.clone(), flare));
        Loop { target, room, warden, status, families, stored, known: i64::MIN, samples }
    }

    fn post(&self, config: &ScrapeConfig, set: &TargetSet) {
        let keep = match config.limits.keep_dropped_targets {
            0 => usize::MAX,
            n => n as usize,
        };
        let dropped = set
            .dropped
            .iter()
            .take(keep)
            .map(|l| DroppedTarget { discovered_labels: l.clone(), scrape_pool: self.name.clone() })
            .collect();
        let lingering = self.loops.keys().filter(|(key, slot)| self.handover.lingers(*key, *slot)).count();
        let active = self
            .loops
            .iter()
            .filter(|((key, slot), _)| !self.handover.lingers(*key, *slot))
            .map(|((key, slot), l)| BoardTarget {
                key: *key,
                slot: *slot,
                status: l.status.clone(),
                families: l.families.clone(),
            })
            .collect();
        self.setup
            .board
            .post(&self.name, JobBoard { active, dropped, dropped_count: set.dropped_count, lingering });
    }
}

impl Loop {
    fn end(&mut self, mark_stale: bool) {
        if self.room.tell(Stop { mark_stale }).is_err() {
            tracing::debug!(url = self.target.url, "scraper was gone already");
        }
        self.warden.release();
    }
}

impl Actor for ScrapePool {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        follow(ctx);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        for l in self.loops.values_mut() {
            l.end(false);
        }
    }
}

fn follow(ctx: &mut Context<ScrapePool>) {
    ctx.run_later(FOLLOW, |me, ctx| {
        let changed = me.ring_hash != Some(me.setup.views.borrow().ring_hash())
            || !Arc::ptr_eq(&me.moves, &me.setup.scales.moves());
        me.weigh();
        if me.hand_over() || changed || me.handover.is_waiting() {
            me.reconcile();
        }
        follow(ctx);
    });
}

/// The job's configuration and targets.
pub struct SetJob {
    /// Configuration.
    pub config: Arc<ScrapeConfig>,
    /// What discovery found.
    pub set: Arc<TargetSet>,
}

impl Message for SetJob {
    type Result = ();
}

impl Handler<Letter<SetJob>> for ScrapePool {
    type Result = ();

    fn handle(&mut self, m: Letter<SetJob>, _: &mut Context<Self>) {
        let SetJob { config, set } = m.body;
        let runtime = match &self.job {
            Some((old, runtime, _)) if **old == *config => runtime.clone(),
            _ => {
                let fetcher = Fetcher::new(&config, self.setup.clock.clone());
                let runtime = Arc::new(JobRuntime { fetcher, settings: IngestSettings::of(&config) });
                for ((key, _), l) in &mut self.loops {
                    if let Some(target) = set.active.iter().find(|t| t.key == *key) {
                        l.target = Arc::new(target.clone());
                        let _ = l.room.tell(Reconfigure { job: runtime.clone(), target: l.target.clone() });
                    }
                }
                runtime
            }
        };
        if let Some(why) = &set.limit_error {
            tracing::error!(job = self.name, why, "no target of the job is scraped");
        }
        self.job = Some((config, runtime, set));
        self.reconcile();
    }
}

/// Ends all loops of the job.
pub struct End {
    /// The job left the configuration: its series end here.
    pub mark_stale: bool,
}

impl Message for End {
    type Result = ();
}

impl Handler<Letter<End>> for ScrapePool {
    type Result = ();

    fn handle(&mut self, m: Letter<End>, _: &mut Context<Self>) {
        for l in self.loops.values_mut() {
            l.end(m.body.mark_stale);
        }
        self.loops.clear();
        self.handover = Handover::default();
        self.job = None;
        self.setup.board.remove(&self.name);
        self.setup.scales.remove(&self.name);
    }
}
