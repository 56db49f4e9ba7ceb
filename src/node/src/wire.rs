//! Wiring: from settings to running actors, in the order in which they depend on each other.
//!
//! Owns the handles of everything that runs. Nothing here decides; it plugs addresses into ports.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use koios_actors::blocks::moved::Moved;
use koios_actors::blocks::{
    self, CatalogueActor, CatalogueHandle, Compactor, LocalBlocks, Uploader, UploaderSetup,
};
use koios_actors::cluster::membership::{self, Membership, MembershipSetup, peers_see_live};
use koios_actors::ingest::{Distributor, HeadViews, ShardActor};
use koios_actors::kit::{ComputePool, Mailroom, Plan, Roll, Warden};
use koios_actors::query::{DeskAdmission, QueryCompute, QueryDesk, desk};
use koios_actors::scrape::discovery::{self, Discovery, Jobs, ScrapeSetup};
use koios_actors::scrape::pool::{PoolSetup, Tell};
use koios_actors::scrape::sources::{ASK_PATIENCE, Sources, SourcesSetup};
use koios_actors::scrape::{Relief, Scales, TargetBoard};
use koios_cluster::handover::linger_ms;
use koios_cluster::{ClusterView, Gossip, KeyRing, Losses, Reach, SoleRange, SoleTracker};
use koios_config::ScrapeConfig;
use koios_model::{Clock, Labels};
use koios_objstore::Bucket;
use koios_promql::Limits;
use koios_query::{Coordinator, FragmentLimits, Front, FrontLimits, Hedger, LocalParts, Peers, ServedStats};
use koios_remote::read::asking::AnswerLimits;
use koios_store::federation::Federation;
use koios_store::federation::beside::Neighbour;
use koios_store::{CatalogueView, Shelf};
use koios_tsdb::{Shard, ShardOptions, WalOptions};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::settings::Settings;
use crate::shipping::ShippingStats;
use crate::sidecar;

/// Jobs that wait for a CPU.
const COMPUTE_QUEUE: usize = 1024;
const SCRAPE_ARBITERS: usize = 2;
const TELL_PATIENCE: Duration = Duration::from_secs(5);

/// What lives before the cluster is joined.
pub struct Foundation {
    pub clock: Arc<dyn Clock>,
    pub net: Handle,
    pub plan: Arc<Plan>,
    pub roll: Roll,
    pub pool: ComputePool,
    pub heads: Arc<HeadViews>,
    pub distributor: Distributor,
    pub bucket: Bucket,
    pub catalogue: CatalogueHandle,
    pub shelf: Arc<Shelf>,
    /// File of the blocks that the catalogue knows.
    known_blocks: PathBuf,
    pub board: Arc<TargetBoard>,
    pub applied: Arc<Mutex<Jobs>>,
    pub readiness: Arc<AtomicU8>,
    pub external: Labels,
    /// Held while the head is cut, and by whatever must not meet a cut.
    pub cutting: Arc<tokio::sync::Mutex<()>>,
    /// What is done to the node's own bucket, once it runs.
    pub compactor: Arc<OnceLock<(Mailroom<Compactor>, Arc<LocalBlocks>)>>,
    /// What only this node holds.
    pub sole: Arc<Mutex<SoleTracker>>,
    /// What this node lost with its disk or a part of its log.
    pub losses: Arc<Mutex<Losses>>,
    /// What only its zone holds.
    pub zone_sole: Arc<Mutex<SoleTracker>>,
    /// Blocks that the head forgot samples into lately.
    pub moved: Arc<Moved>,
    /// The view that ownership goes by.
    pub owning: watch::Sender<Arc<ClusterView>>,
    /// How often the head could not be cut and uploaded.
    pub cuts_failed: Arc<AtomicU64>,
    /// What goes over the connections of peers.
    pub peer_bytes: Arc<crate::counted::PeerBytes>,
    /// What queries asked of this node.
    pub served: Arc<ServedStats>,
    /// What is told about the log's copy in the bucket.
    pub shipping: ShippingStats,
    /// What new owners of this node's scrape slots say.
    pub relief: Arc<Relief>,
    /// Who is asked beside the cluster.
    pub federation: Arc<Federation>,
    /// How much this node scrapes.
    pub scales: Arc<Scales>,
    wardens: Mutex<Vec<Arc<Warden>>>,
}

impl Foundation {
    /// Shards without logs yet, an unread bucket.
    pub fn lay(settings: &Settings, clock: Arc<dyn Clock>, net: Handle, bucket: Bucket) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let heads = Arc::new(HeadViews::new(cores));
        let shards = (0..cores).map(|_| Mailroom::new("shard", koios_actors::ingest::shard::BOUND)).collect();
        let external = settings.config.external_labels().clone();
        let cache = settings.args.storage_path.join("cache");
        let view: Arc<ArcSwap<CatalogueView>> = Arc::default();
        let state = settings.args.storage_path.join("cluster");
        let (cluster, files) = (settings.ring.cluster(), settings.args.store_sd_files.clone());
        let federation =
            Federation::new(cluster.to_owned(), settings.endpoints.clone(), files, clock.clone());
        let federation = Arc::new(federation);
        let holds = settings.args.storage_path.join("head").exists();
        let zone_sole = Arc::new(Mutex::new(SoleTracker::open_zone(&state, holds, clock.now_ms())));
        let sole = SoleTracker::open(&state);
        let losses = Losses::open(&state, sole.ranges(), clock.now_ms());
        let moved = Arc::new(Moved::open(state.join("moved"), clock.clone()));
        Self {
            scales: Arc::new(Scales::new(clock.clone())),
            losses: Arc::new(Mutex::new(losses)),
            zone_sole,
            moved,
            clock,
            net,
            plan: Arc::new(Plan::new()),
            roll: Roll::new(),
            pool: ComputePool::new(cores, COMPUTE_QUEUE),
            heads,
            distributor: Distributor::new(shards),
            shelf: Arc::new(
                Shelf::new(bucket.clone(), cache, external.clone())
                    .with_cache_bytes(settings.config.koios.store.cache_bytes),
            ),
            known_blocks: settings.args.storage_path.join("known-blocks"),
            bucket,
            catalogue: CatalogueHandle { view, room: Mailroom::new("catalogue", blocks::catalogue::BOUND) },
            board: Arc::default(),
            applied: Arc::default(),
            readiness: Arc::default(),
            external,
            cutting: Arc::default(),
            compactor: Arc::default(),
            sole: Arc::new(Mutex::new(sole)),
            owning: watch::Sender::default(),
            cuts_failed: Arc::default(),
            served: Arc::default(),
            peer_bytes: Arc::default(),
            shipping: ShippingStats::default(),
            relief: Arc::default(),
            federation,
            wardens: Mutex::default(),
        }
    }

    /// Takes the Prometheus beside this node for a part of the cluster, when there is one.
    ///
    /// # Errors
    /// The flag, what is wrong with it, and the fix.
    pub fn stand_beside(&self, settings: &Settings, me: Neighbour) -> Result<(), String> {
        let started = sidecar::start(sidecar::Setup {
            args: &settings.args.sidecar,
            limits: AnswerLimits {
                series: settings.config.koios.query.max_series,
                bytes: settings.config.koios.query.max_bytes,
            },
            bucket: &self.bucket,
            clock: &self.clock,
            net: &self.net,
        });
        if let Some(source) = started? {
            self.federation.put_beside(me, source);
        }
        Ok(())
    }

    /// Keeps an actor running and on the roll.
    pub(crate) fn keep<A: actix::Actor<Context = actix::Context<A>>>(
        &self,
        room: &Mailroom<A>,
        warden: Warden,
    ) {
        let warden = Arc::new(warden);
        let (observed, seen) = (room.clone(), warden.clone());
        self.roll.enter(move || koios_actors::kit::roll::Entry {
            name: observed.name().to_owned(),
            up: observed.is_up(),
            depth: observed.depth(),
            bound: observed.bound(),
            restarts: seen.restarts(),
        });
        self.wardens.lock().push(warden);
    }

    /// Replays all logs in parallel and starts the shards.
    ///
    /// # Errors
    /// The first shard that does not open.
    pub async fn open_shards(&self, settings: &Settings) -> Result<u64, String> {
        let mut opened = Vec::new();
        for number in 0..self.heads.shards() {
            let (options, clock) = (shard_options(settings, number), self.clock.clone());
            let pool = self.pool.clone();
            opened.push(async move { pool.run(move || Shard::open(options, clock)).await });
        }
        let mut corruptions = 0;
        for (number, shard) in futures::future::join_all(opened).await.into_iter().enumerate() {
            let (shard, report) =
                shard.map_err(|e| e.to_string())?.map_err(|e| format!("shard {number}: {e}"))?;
            corruptions += report.damaged.len() as u64;
            for d in &report.damaged {
                tracing::error!(
                    shard = number,
                    what = d.what,
                    bytes = d.bytes,
                    "damaged part of the log is left out; the rest is kept"
                );
            }
            tracing::info!(
                shard = number,
                series = report.series,
                samples = report.samples,
                torn_bytes = report.torn_bytes,
                "log replayed"
            );
            let first = Arc::new(Mutex::new(Some(shard)));
            let (heads, clock, options) =
                (self.heads.clone(), self.clock.clone(), shard_options(settings, number));
            let room = self.distributor.shards()[number].clone();
            let arbiter = self.plan.arbiter(&format!("ingest-{number}"));
            let warden = Warden::watch(room.clone(), arbiter, move |flare| {
                let taken = first.lock().take();
                let open = || match taken {
                    Some(shard) => Ok(shard),
                    None => {
                        Shard::open(options.clone(), clock.clone()).map(|(s, _)| s).map_err(|e| e.to_string())
                    }
                };
                ShardActor::new(number, open, &heads, flare)
            });
            self.keep(&room, warden);
        }
        if corruptions > 0 {
            // What was in the lost part, nobody knows; others have it, unless they are away too.
            let lost = SoleRange { from: 0, until: self.clock.now_ms() };
            let until_now = |r: &SoleRange| SoleRange { until: r.until.min(lost.until), ..*r };
            let alone: Vec<SoleRange> = self.sole.lock().ranges().iter().map(until_now).collect();
            self.losses.lock().add(&[lost], &alone).map_err(|e| e.to_string())?;
        }
        Ok(corruptions)
    }

    /// Starts the catalogue, which reads the bucket at once.
    pub fn open_catalogue(&self, settings: &Settings) {
        let (clock, visibility) = (self.clock.clone(), settings.visibility);
        let (bucket, view, shelf, net) =
            (self.bucket.clone(), self.catalogue.view.clone(), self.shelf.clone(), self.net.clone());
        let known = self.known_blocks.clone();
        let warden =
            Warden::watch(self.catalogue.room.clone(), self.plan.arbiter("background"), move |flare| {
                let seeing = (clock.clone(), visibility);
                CatalogueActor::new(bucket.clone(), view.clone(), shelf.clone(), seeing, net.clone(), flare)
                    .kept_in(known.clone())
            });
        self.keep(&self.catalogue.room, warden);
    }

    /// This node's data as queries see it.
    pub fn local_parts(&self, settings: &Settings) -> LocalParts {
        let q = &settings.config.koios.query;
        let limits = FragmentLimits {
            series_max: q.fragment_max_series,
            bytes_max: q.fragment_max_bytes,
            samples_max: q.fragment_max_samples,
            split_series: q.fragment_series,
            split_bytes: q.fragment_bytes,
        };
        LocalParts {
            head: self.heads.clone(),
            shelf: self.shelf.clone(),
            catalogue: self.catalogue.view.clone(),
            pool: Arc::new(QueryCompute(self.pool.clone())),
            limits: Arc::new(limits),
            served: self.served.clone(),
            moved: {
                let moved = self.moved.clone();
                Arc::new(move || moved.recent())
            },
        }
    }

    /// The front of all queries.
    pub fn front(
        &self,
        settings: &Settings,
        gossip: &Gossip,
        ring: &Arc<KeyRing>,
    ) -> (Arc<Front>, Arc<Peers>) {
        let reach = Arc::new(Reach::new(self.clock.clone()));
        let peers = Arc::new(Peers::new(ring.clone(), self.clock.clone(), reach));
        let room: Mailroom<QueryDesk> = Mailroom::new("query-desk", desk::BOUND);
        let (inner, places) = (room.clone(), settings.query_concurrency);
        let warden = Warden::watch(room.clone(), self.plan.arbiter("control"), move |flare| {
            QueryDesk::new(places, inner.clone(), flare)
        });
        self.keep(&room, warden);
        let k = &settings.config.koios;
        let limits = FrontLimits {
            timeout_ms: settings.query_timeout_ms,
            lookback_ms: settings.lookback_ms,
            subquery_step_ms: settings.config.global.evaluation_interval_ms,
            fetch_bytes_max: k.query.max_bytes.max(1 << 20),
            fetch_samples_max: k.query.max_fetched_samples,
            push_down: k.query.push_down,
            engine: Limits {
                samples_max: settings.query_samples_max,
                series_max: k.query.max_series,
                bytes_max: k.query.max_bytes.max(1 << 20),
                ..Limits::default()
            },
            options: settings.features.engine.clone(),
            replica_labels: settings.replica_labels().into(),
            auto_downsampling: settings.auto_downsampling(),
        };
        let coordinator = Coordinator {
            peers: peers.clone(),
            parts: self.local_parts(settings),
            stats: Arc::default(),
            hedger: Arc::new(Hedger::new(self.clock.clone(), k.query.hedging)),
            federation: self.federation.clone(),
        };
        let admission = Arc::new(DeskAdmission(room));
        (Arc::new(Front::new(coordinator, gossip.subscribe(), admission, self.clock.clone(), limits)), peers)
    }

    /// Starts the uploader.
    /// `node` is its name and its log's.
    pub fn open_uploader(
        &self,
        settings: &Settings,
        node: String,
        gossip: &Arc<Gossip>,
    ) -> Mailroom<Uploader> {
        let setup = Arc::new(UploaderSetup {
            heads: self.heads.clone(),
            distributor: self.distributor.clone(),
            bucket: self.bucket.clone(),
            catalogue: self.catalogue.clone(),
            shelf: self.shelf.clone(),
            pool: self.pool.clone(),
            net: self.net.clone(),
            node,
            moved: self.moved.clone(),
            external: self.external.clone(),
            block_range_ms: settings.config.koios.storage.block_range_ms,
            out_dir: settings.args.storage_path.join("cut"),
            peers_see: peers_see_live(gossip, &self.catalogue.view),
            turn: self.cutting.clone(),
            failures: self.cuts_failed.clone(),
        });
        let room = Mailroom::new("uploader", blocks::uploader::BOUND);
        let warden = Warden::watch(room.clone(), self.plan.arbiter("background"), move |flare| {
            Uploader::new(setup.clone(), flare)
        });
        self.keep(&room, warden);
        room
    }

    /// Starts membership.
    pub fn open_membership(&self, settings: &Settings, gossip: &Arc<Gossip>) -> Mailroom<Membership> {
        let applied = self.applied.clone();
        let setup = MembershipSetup {
            gossip: gossip.clone(),
            heads: self.heads.clone(),
            catalogue: self.catalogue.clone(),
            sole: self.sole.clone(),
            owning: self.owning.clone(),
            losses: self.losses.clone(),
            zone_sole: self.zone_sole.clone(),
            replicas: settings.config.koios.scrape.replicas,
            linger_ms: Arc::new(move || {
                let jobs = applied.lock();
                let longest = jobs.configured.iter().chain(&jobs.own).map(|j| j.scrape_interval_ms).max();
                linger_ms(longest.unwrap_or(60_000))
            }),
            load: {
                let scales = self.scales.clone();
                Arc::new(move || scales.told())
            },
            clock: self.clock.clone(),
        };
        let room = Mailroom::new("membership", membership::BOUND);
        let warden = Warden::watch(room.clone(), self.plan.arbiter("control"), move |flare| {
            Membership::new(setup.clone(), flare)
        });
        self.keep(&room, warden);
        room
    }

    /// Starts discovery with the jobs of the configuration.
    pub fn open_discovery(
        &self,
        settings: &Settings,
        hostname: &str,
        (gossip, peers): (&Arc<Gossip>, &Arc<Peers>),
        sources: &Arc<Sources>,
    ) -> Mailroom<Discovery> {
        *self.applied.lock() = jobs(settings);
        let setup = ScrapeSetup {
            pool: PoolSetup {
                views: self.owning.subscribe(),
                replicas: settings.config.koios.scrape.replicas,
                distributor: self.distributor.clone(),
                clock: self.clock.clone(),
                net: self.net.clone(),
                arbiters: (0..SCRAPE_ARBITERS).map(|i| self.plan.arbiter(&format!("scrape-{i}"))).collect(),
                board: self.board.clone(),
                external_host: hostname.to_owned(),
                relief: self.relief.clone(),
                scales: self.scales.clone(),
                tell: self.teller(gossip, peers),
            },
            arbiter: self.plan.arbiter("control"),
            applied: self.applied.clone(),
            sources: sources.clone(),
        };
        let room = Mailroom::new("discovery", discovery::BOUND);
        let warden = Warden::watch(room.clone(), self.plan.arbiter("control"), move |flare| {
            Discovery::new(setup.clone(), flare)
        });
        self.keep(&room, warden);
        room
    }

    /// Servers of targets, asked once a zone.
    pub fn sources(&self, settings: &Settings, gossip: &Arc<Gossip>, peers: &Arc<Peers>) -> Arc<Sources> {
        let peers = peers.clone();
        Sources::new(SourcesSetup {
            views: gossip.subscribe(),
            ask: Arc::new(move |member, kind| {
                let peers = peers.clone();
                Box::pin(async move {
                    peers.report(&member, &kind, ASK_PATIENCE).await.map_err(|e| e.text().to_owned())
                })
            }),
            dir: settings.args.storage_path.join("discovery"),
            net: self.net.clone(),
            clock: self.clock.clone(),
        })
    }

    /// Sends a node something it should do, and does not wait for it.
    pub fn teller(&self, gossip: &Arc<Gossip>, peers: &Arc<Peers>) -> Tell {
        let (gossip, peers, net) = (gossip.clone(), peers.clone(), self.net.clone());
        Arc::new(move |to, body| {
            let Some(member) = gossip.view().members.get(&to).filter(|m| m.is_alive()).cloned() else {
                return;
            };
            let peers = peers.clone();
            net.spawn(async move {
                if let Err(e) = peers.act(&member, &body, TELL_PATIENCE).await {
                    tracing::debug!(node = member.name, why = e.text(), "not told; it will see by itself");
                }
            });
        })
    }

    /// Lets all actors go.
    pub fn release(&self) {
        self.wardens.lock().iter().for_each(|w| w.release());
    }
}

/// The jobs of a configuration; without any, the cluster scrapes itself every 15 s.
pub fn jobs(settings: &Settings) -> Jobs {
    if settings.config.file.is_some() {
        let configured = settings.config.scrape_configs.iter().cloned().map(Arc::new).collect();
        return Jobs { configured, own: None };
    }
    let text = "scrape_configs: [{job_name: koios, scrape_interval: 15s, scrape_timeout: 10s}]";
    let own = koios_config::parse(text, "built in").ok().and_then(|c| c.scrape_configs.into_iter().next());
    Jobs { configured: Vec::new(), own: own.map(|c: ScrapeConfig| Arc::new(c)) }
}

/// How shard `number` is opened.
pub fn shard_options(settings: &Settings, number: usize) -> ShardOptions {
    let dir = settings.args.storage_path.join("head").join(format!("shard-{number}"));
    let defaults = ShardOptions::new(dir, number as u16);
    let series_max = match settings.config.koios.limits.max_series {
        0 => defaults.series_max,
        n => u32::try_from(n).unwrap_or(u32::MAX),
    };
    ShardOptions {
        block_range_ms: settings.config.koios.storage.block_range_ms,
        out_of_order_window_ms: settings.config.out_of_order_window_ms(),
        wal: WalOptions { sync: settings.wal_sync, ..WalOptions::default() },
        series_max,
        exemplars_max: exemplars_of_a_shard(settings),
        ..defaults
    }
}

/// The configured bound is the node's; shards are as many as cores.
fn exemplars_of_a_shard(settings: &Settings) -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    u32::try_from(settings.config.storage.max_exemplars.div_ceil(cores)).unwrap_or(u32::MAX)
}
