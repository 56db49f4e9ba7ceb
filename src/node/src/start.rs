//! The order of start.
//!
//! Settings, lock, identity, listeners (so that a taken port is the first thing said), bucket, gossip as
//! `starting`, HTTP and gRPC (which say "not ready"), logs replayed, actors, joining, ready. Then signals.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web;
use koios_actors::blocks::CatalogueHandle;
use koios_actors::cluster::SetState;
use koios_actors::scrape::Sources as TargetSources;
use koios_cluster::{EventLog, Gossip, NodeState, doorbell};
use koios_http::state::RuntimeFacts;
use koios_http::{ApiState, NodeFacts, Readiness};
use koios_model::{BlockId, Clock, SystemClock};
use koios_objstore::{Bucket, ObjstoreError};
use koios_query::speaking::Speaker;
use koios_query::{Front, PeerService, Peers};
use koios_remote::Receiver;
use koios_store::federation::beside::Neighbour;
use koios_store::storeapi::Sides;
use koios_telemetry::{LogFormat, Registry, init_logging, install_panic_hook};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use crate::admin::Admin;
use crate::banner::Banner;
use crate::cli::RunArgs;
use crate::facts_port::FactsOfAll;
use crate::gossiping::{self, Gossiping};
use crate::identity::{Identity, displaced, hostname};
use crate::joining::{self, Joined};
use crate::listen::{Listeners, bind};
use crate::metrics::{self, Sources};
use crate::port::Port;
use crate::reports::OwnReports;
use crate::rpc::{self, Services};
use crate::serve::{self, Signals};
use crate::settings::Settings;
use crate::shutdown::Ending;
use crate::static_peers;
use crate::watching::Watching;
use crate::wire::Foundation;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a node to its end.
pub fn run(args: RunArgs) -> ExitCode {
    let outcome = Settings::read(args).and_then(|settings| {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores.max(2))
            .thread_name("net")
            .enable_all()
            .build()
            .map_err(|e| format!("network runtime: {e}"))?;
        let net = runtime.handle().clone();
        let result = actix::System::new().block_on(node(settings, net));
        runtime.shutdown_timeout(Duration::from_secs(2));
        result
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("koios: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn node(settings: Settings, net: Handle) -> Result<(), String> {
    let clock = SystemClock::shared();
    let start_ns = clock.mono_ns();
    let me = Identity::take(&settings, &*clock)?;
    let format = if settings.args.log_format == "json" { LogFormat::Json } else { LogFormat::Logfmt };
    init_logging(format, &settings.args.log_level, &me.name).map_err(|e| e.to_string())?;
    install_panic_hook();
    settings.features.notes.iter().for_each(|note| tracing::warn!("{note}"));
    settings.bucket.ignored.iter().for_each(
        |name| tracing::info!(option = %name, "this option of the object store changes nothing here"),
    );
    let listeners = Listeners {
        web: bind("web.listen-address", settings.args.web_listen)?,
        grpc: bind("grpc.listen-address", settings.args.grpc_listen)?,
        doorbell: bind("cluster.listen-address", settings.args.cluster_listen)?,
    };
    let bucket = open_bucket(&settings, &*clock, &net).await?;
    let foundation = Arc::new(Foundation::lay(&settings, clock.clone(), net, bucket));
    let (web_addr, grpc_addr) = (settings.args.web_listen, settings.args.grpc_listen);
    // Open before the others are rung: nodes that start together would wait for each other.
    let met = open_doorbell(listeners.doorbell, &settings, &me, &foundation);
    let gossiping = gossiping::start(&settings, &me, &foundation, web_addr, grpc_addr).await?;
    let _ = met.set(gossiping.gossip.clone());
    foundation.stand_beside(
        &settings,
        Neighbour {
            name: me.name.clone(),
            generation: me.generation.value,
            address: gossiping.rpc.to_string(),
            alive: true,
        },
    )?;
    let mut node = Node { settings, me, foundation, gossiping, signals: Signals::listen()? };
    let faces = node.show_faces(listeners.web, listeners.grpc)?;
    let ending = node.open_engines(faces.http, &faces.port).await?;
    let joined = node.join(&ending, &faces.port.peers).await?;
    if let Some(joined) = joined {
        let seconds = (node.foundation.clock.mono_ns() - start_ns) as f64 / 1e9;
        node.banner(seconds, &joined).print();
        let rival = displaced(&node.gossiping.gossip);
        tokio::select! {
            () = node.signals.serve(&faces.port) => {}
            // Without a drain: whatever it would do in the bucket, it would do to the other one's things.
            why = rival => return Err(why),
        }
    }
    node.end(ending).await;
    Ok(())
}

/// Answers the doorbell; knows other nodes as soon as what it gives back is set.
fn open_doorbell(
    listener: TcpListener,
    settings: &Settings,
    me: &Identity,
    f: &Foundation,
) -> Arc<OnceLock<Arc<Gossip>>> {
    let met = Arc::new(OnceLock::<Arc<Gossip>>::new());
    let (node, keys, gossip) = ((me.name.clone(), me.generation.value), settings.ring.clone(), met.clone());
    let known = move |asked: &str| gossip.get()?.view().members.get(asked).map(|m| m.gossip);
    f.net.spawn(async move {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(l) => doorbell::serve(l, node, keys, Arc::new(known)).await,
            Err(e) => tracing::error!(error = %e, "doorbell does not open"),
        }
    });
    met
}

struct Node {
    settings: Settings,
    me: Identity,
    foundation: Arc<Foundation>,
    gossiping: Gossiping,
    signals: Signals,
}

/// What others see of the node.
struct Faces {
    http: ServerHandle,
    port: Arc<Port>,
}

impl Node {
    /// HTTP and gRPC; both say "not ready" until the node is.
    fn show_faces(&self, web: TcpListener, grpc: TcpListener) -> Result<Faces, String> {
        let (f, s, gossip) = (&self.foundation, &self.settings, &self.gossiping.gossip);
        let (front, peers) = f.front(s, gossip, &s.ring);
        let hostname = hostname();
        let now = f.clock.now_ms();
        let runtime = Arc::new(RwLock::new(RuntimeFacts {
            reload_ok: true,
            config_time_ms: now,
            corruptions: 0,
            retention: crate::local_blocks::retention_text(&s.retention),
        }));
        let registry = Registry::new();
        let events = EventLog::new(f.clock.clone());
        let receiver = crate::push::receiver(s, f, gossip, &peers);
        let sources = f.sources(s, gossip, &peers);
        metrics::register(&registry, self.sources(&runtime, &receiver, &front, &sources));
        let reports = self.reports(&sources, &peers);
        let watched = (gossip.clone(), peers.clone(), events.clone());
        let port = Arc::new(Port {
            args: s.args.clone(),
            board: f.board.clone(),
            heads: f.heads.clone(),
            registry,
            gossip: gossip.clone(),
            peers: peers.clone(),
            discovery: f.open_discovery(s, &hostname, (gossip, &peers), &sources),
            keys: s.ring.clone(),
            runtime,
            config_yaml: RwLock::new(s.config.redacted_yaml()),
            clock: f.clock.clone(),
            reports: reports.clone(),
            told_to_drain: Notify::new(),
            events: events.clone(),
        });
        static_peers::follow(&f.net, s.peers.clone(), gossiping::interval(s), gossip, &port.peers);
        Watching::over(f, watched).start(&f.net);
        let state = web::Data::new(ApiState {
            front,
            node: port.clone(),
            facts: self.facts(&hostname, now),
            net: f.net.clone(),
            clock: f.clock.clone(),
            readiness: f.readiness.clone(),
            lifecycle: s.args.web_enable_lifecycle,
            admin: s.args.web_enable_admin_api,
            events,
            replicas: s.config.koios.scrape.replicas,
            owning: f.owning.subscribe(),
            receiver,
            reads: Arc::new(Semaphore::new(koios_http::READS_MAX)),
        });
        let http = serve::http(web, state.clone())?;
        self.speak(grpc, reports, &state)?;
        Ok(Faces { http, port })
    }

    /// gRPC: for peers, and for whoever speaks Thanos' protocols.
    fn speak(&self, grpc: TcpListener, reports: Arc<OwnReports>, state: &ApiState) -> Result<(), String> {
        let (f, s) = (&self.foundation, &self.settings);
        let service = PeerService {
            node: self.me.name.clone(),
            generation: self.me.generation.value,
            ring: s.ring.clone(),
            clock: f.clock.clone(),
            parts: f.local_parts(s),
            reports,
            keeper: crate::push::keeper(s, f),
            room: Arc::new(Semaphore::new(koios_query::server::REQUESTS_MAX)),
            writes: Arc::new(Semaphore::new(koios_query::server::WRITES_MAX)),
        };
        let readiness = f.readiness.clone();
        let services = Services {
            peer: service,
            sides: Sides {
                cluster: Arc::new(Speaker {
                    front: state.front.clone(),
                    own: f.external.clone(),
                    slots: s.config.koios.scrape.replicas.max(1),
                }),
                facts: Arc::new(FactsOfAll(state.facts_of_all())),
                beside: f.federation.beside_me(),
            },
            front: state.front.clone(),
            ready: Arc::new(move || readiness.load(Ordering::Acquire) == Readiness::Ready as u8),
        };
        rpc::serve(&f.net, grpc, services, f.peer_bytes.clone())?;
        crate::federating::start(&f.net, &f.federation, &self.gossiping.gossip);
        Ok(())
    }

    /// What it tells peers of itself and does for them.
    fn reports(&self, sources: &Arc<TargetSources>, peers: &Arc<Peers>) -> Arc<OwnReports> {
        let (f, s) = (&self.foundation, &self.settings);
        let admin = Arc::new(Admin {
            enabled: s.args.web_enable_admin_api,
            node: self.me.name.clone(),
            storage: s.args.storage_path.clone(),
            foundation: f.clone(),
        });
        Arc::new(OwnReports {
            gossip: self.gossiping.gossip.clone(),
            board: f.board.clone(),
            heads: f.heads.clone(),
            relief: f.relief.clone(),
            scales: f.scales.clone(),
            tell: f.teller(&self.gossiping.gossip, peers),
            sources: sources.clone(),
            admin,
        })
    }

    /// Replays the logs and starts what keeps and cuts samples.
    async fn open_engines(&self, http: ServerHandle, port: &Arc<Port>) -> Result<Ending, String> {
        let (f, s, gossip) = (&self.foundation, &self.settings, &self.gossiping.gossip);
        crate::moving_in::run(s, f).await?;
        f.open_catalogue(s);
        port.runtime.write().corruptions = f.open_shards(s).await?;
        f.open_compactor(s);
        Ok(Ending {
            foundation: f.clone(),
            gossip: gossip.clone(),
            gossip_interval: gossiping::interval(s),
            membership: f.open_membership(s, gossip),
            discovery: port.discovery.clone(),
            uploader: f.open_uploader(s, format!("{}/{}", self.me.name, self.me.log_id(s)?), gossip),
            shipper: crate::shipping::open(f, s, &self.me, gossip),
            http,
            events: port.events.clone(),
        })
    }

    /// Meets the peers and turns ready; `None` when a signal came first.
    async fn join(&mut self, ending: &Ending, peers: &Arc<Peers>) -> Result<Option<Joined>, String> {
        let set = |state| ending.membership.ask(SetState(state), PATIENCE);
        set(NodeState::Joining).await.map_err(|e| e.to_string())?;
        let (seeds, name, restarted) =
            (self.settings.join.clone(), self.me.name.clone(), self.me.generation.restarted);
        let has_static_peers = !self.settings.peers.is_empty();
        let (keys, gossip) = (self.settings.ring.clone(), self.gossiping.gossip.clone());
        let clock = self.foundation.clock.clone();
        let (catalogue, peers) = (self.foundation.catalogue.clone(), peers.clone());
        let state_dir = self.settings.args.storage_path.join("cluster");
        let losses = self.foundation.losses.clone();
        let federation = self.foundation.federation.clone();
        let work = async move {
            let joined = match seeds.is_empty() && has_static_peers {
                true => Ok(joining::meet_static_peers(&gossip).await),
                false => joining::join(seeds, &name, &keys, &gossip, restarted, &*clock).await,
            };
            bucket_read(&catalogue).await;
            if joined.is_ok() && !restarted {
                joining::until_known(&gossip, &peers, &*clock).await;
            }
            if joined.is_ok() {
                joining::recall(&gossip, &peers, &losses, &state_dir).await;
                crate::federating::meet_all(&federation, &gossip).await;
            }
            joined
        };
        let rival = displaced(&self.gossiping.gossip);
        tokio::select! {
            why = rival => Err(why),
            joined = self.foundation.net.spawn(work) => {
                let joined = joined.map_err(|e| e.to_string())?.map_err(|problem| format!("cannot join: {problem}"))?;
                set(NodeState::Ready).await.map_err(|e| e.to_string())?;
                self.foundation.readiness.store(Readiness::Ready as u8, Ordering::Release);
                Ok(Some(joined))
            }
            () = self.signals.stop() => Ok(None),
        }
    }

    async fn end(&mut self, ending: Ending) {
        tracing::info!("stopping; a second signal ends at once");
        tokio::select! {
            () = ending.run() => {}
            () = self.signals.stop() => tracing::warn!("ended by a second signal"),
        }
        self.foundation.plan.stop();
        tracing::info!("stopped");
    }

    fn sources(
        &self,
        runtime: &Arc<RwLock<RuntimeFacts>>,
        receiver: &Option<Arc<Receiver>>,
        front: &Arc<Front>,
        targets: &Arc<TargetSources>,
    ) -> Sources {
        let f = &self.foundation;
        Sources {
            version: VERSION.to_owned(),
            revision: revision(),
            heads: f.heads.clone(),
            roll: f.roll.clone(),
            board: f.board.clone(),
            targets: targets.clone(),
            scales: f.scales.clone(),
            gossip: self.gossiping.gossip.clone(),
            catalogue: f.catalogue.view.clone(),
            shelf: f.shelf.clone(),
            compactor: f.compactor.clone(),
            shipping: f.shipping.clone(),
            peer_bytes: f.peer_bytes.clone(),
            runtime: runtime.clone(),
            receiver: receiver.clone(),
            front: front.clone(),
            clock: f.clock.clone(),
            cuts_failed: f.cuts_failed.clone(),
        }
    }

    fn facts(&self, hostname: &str, start_ms: i64) -> NodeFacts {
        NodeFacts {
            node: self.me.name.clone(),
            version: VERSION.to_owned(),
            revision: revision(),
            rustc: "rustc".to_owned(),
            start_ms,
            flags: self.settings.flags(),
            hostname: hostname.to_owned(),
            cwd: std::env::current_dir().map(|p| p.display().to_string()).unwrap_or_default(),
            external: self.foundation.external.clone(),
        }
    }

    fn banner(&self, seconds: f64, joined: &Joined) -> Banner {
        let view = self.gossiping.gossip.view();
        let mut warnings = self.gossiping.warnings.clone();
        match joined {
            Joined::Alone => {
                warnings.push("data has one copy on this node: join more nodes for a second one".to_owned())
            }
            Joined::Rejoining => warnings.push("no seed answered; serving what this node has".to_owned()),
            Joined::Met => {}
        }
        if !self.foundation.bucket.is_conditional() {
            let unsafe_store =
                "the object store ignores conditional writes: logs of lost nodes are not adopted over it";
            warnings.push(unsafe_store.to_owned());
        }
        Banner {
            version: VERSION,
            seconds,
            cluster: view.cluster.clone(),
            node: self.me.name.clone(),
            zone: self.settings.zone.clone(),
            http: self.gossiping.http,
            gossip: self.gossiping.advertise,
            ready_nodes: view.members.values().filter(|m| m.is_ready()).count().max(1),
            receives: crate::push::receives(&self.settings),
            data: self.settings.args.storage_path.display().to_string(),
            config: self.settings.config.file.as_ref().map(|p| p.display().to_string()),
            warnings,
        }
    }
}

async fn open_bucket(settings: &Settings, clock: &dyn Clock, net: &Handle) -> Result<Bucket, String> {
    let fresh = BlockId::from_parts(
        clock.now_ms().max(0) as u64,
        u128::from(clock.mono_ns()) << 32 | u128::from(std::process::id()),
    );
    let config = settings.bucket.clone();
    let cluster = (!settings.own_bucket).then(|| settings.ring.cluster().to_owned());
    let open = async move {
        let bucket = Bucket::open(&config, fresh).await?;
        if let Some(cluster) = cluster {
            bucket.claim(&cluster).await?;
        }
        Ok(bucket)
    };
    let opened: Result<Bucket, ObjstoreError> = net.spawn(open).await.map_err(|e| e.to_string())?;
    opened.map_err(|e| match e {
        ObjstoreError::OtherCluster { .. } => format!("step bucket: {e}"),
        e => format!("step bucket: {e}; fix: check --objstore.config-file and --storage.path"),
    })
}

fn revision() -> String {
    option_env!("KOIOS_REVISION").unwrap_or("unknown").to_owned()
}

/// Longest wait for the first look into the bucket. Without it answers say what is missing.
const BUCKET_PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the bucket was looked at once.
async fn bucket_read(catalogue: &CatalogueHandle) {
    let read = async {
        while !catalogue.view.load().read() && catalogue.fresh().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(BUCKET_PATIENCE, read).await.is_err() {
        tracing::warn!("the bucket could not be read yet; answers say so until it can");
    }
}
