//! The gossip service: chitchat kept alive, and its state turned into published views.
//!
//! Owns the one chitchat handle of a node (through its `keeper`) and the watch channel of `ClusterView`s. Other code
//! reads views and never locks chitchat. Every round the node re-asserts its own keys, so that nobody else's write can
//! stand; a chitchat task that dies is started again under a new identity, which peers see as the same process. A
//! second process of this node's name is told apart by its heartbeats (`pulse`). What nodes say over connections (`told`)
//! is a second source of the same views.
//!
//! Bounds: see `keys`; a view is published at most every 100 ms; a young node meets at most 120 peers by itself.

mod keeper;
mod pulse;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use koios_model::Clock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::error::ClusterError;
use crate::keys::NodeRecord;
use crate::secret::KeyRing;
use crate::told::Told;
use crate::transport::{TransportStats, Weather};
use crate::view::ClusterView;

pub use pulse::Rival;

/// How gossip runs.
pub struct GossipOptions {
    /// This node's name.
    pub node: String,
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Address peers shall use.
    pub advertise: SocketAddr,
    /// Addresses seen to fit (`join::attempt`).
    pub seeds: Vec<SocketAddr>,
    /// Time between rounds.
    pub interval: Duration,
    /// Suspicion threshold of the failure detector, in mean intervals.
    pub phi: f64,
    /// How long a dead identity is remembered; it leaves what is exchanged after half of that.
    pub dead_grace: Duration,
    /// Keys.
    pub ring: Arc<KeyRing>,
    /// Where generation and peer book are kept.
    pub state_dir: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// First generation to use.
    pub generation: u64,
    /// A network worse than the real one, for tests.
    pub weather: Option<Weather>,
}

/// How the service itself fares.
#[derive(Debug, Default)]
pub struct GossipHealth {
    restarts: AtomicU64,
    blocked: AtomicU64,
    ids: AtomicU64,
    id_bytes: AtomicU64,
    doubles: AtomicU64,
    generation: AtomicU64,
    silent: AtomicBool,
}

impl GossipHealth {
    /// Times the gossip task ended by itself and was started again. Any is an alarm.
    pub fn task_restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Values that were too long to gossip and were kept back. Any is a fault.
    pub fn values_blocked(&self) -> u64 {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Identities that are gossiped, of living processes and of those that ended lately.
    pub fn ids(&self) -> u64 {
        self.ids.load(Ordering::Relaxed)
    }

    /// Estimated bytes of what is exchanged about them before any news, to be held against `IDS_BYTES_MAX`.
    pub fn id_bytes(&self) -> u64 {
        self.id_bytes.load(Ordering::Relaxed)
    }

    /// Names under which two processes run.
    pub fn doubles(&self) -> u64 {
        self.doubles.load(Ordering::Relaxed)
    }

    /// Generation of the gossip identity: that of the process, or a higher one after the task was started again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Whether gossip runs at all; while it does not, nothing this node thinks of its peers is news.
    pub fn is_running(&self) -> bool {
        !self.silent.load(Ordering::Relaxed)
    }
}

/// Estimated bytes of identities at which a message cannot carry them any more. The crate's limit is one datagram of
/// 65,507 bytes; beyond it its task panics.
pub const IDS_BYTES_MAX: u64 = 64_000;

/// A running gossip service.
pub struct Gossip {
    views: watch::Receiver<Arc<ClusterView>>,
    record: watch::Sender<NodeRecord>,
    greet: mpsc::Sender<SocketAddr>,
    told: mpsc::Sender<Told>,
    stats: Arc<TransportStats>,
    health: Arc<GossipHealth>,
    rival: watch::Receiver<Option<Rival>>,
    task: JoinHandle<()>,
}

impl Gossip {
    /// Starts gossiping `record`.
    ///
    /// # Errors
    /// `ClusterError::Bind` when the port is taken, `Gossip` when chitchat refuses.
    pub async fn start(options: GossipOptions, record: NodeRecord) -> Result<Self, ClusterError> {
        let stats = Arc::new(TransportStats::default());
        let health = Arc::new(GossipHealth::default());
        let empty = ClusterView {
            me: options.node.clone(),
            cluster: options.ring.cluster().to_owned(),
            ..ClusterView::default()
        };
        let (view_tx, views) = watch::channel(Arc::new(empty));
        let (record_tx, record_rx) = watch::channel(record);
        let (greet_tx, greet_rx) = mpsc::channel(64);
        let (told, told_rx) = mpsc::channel(64);
        let (rival_tx, rival) = watch::channel(None);
        for seed in options.seeds.iter().take(64) {
            let _ = greet_tx.try_send(*seed);
        }
        let ends = keeper::Ends { view_tx, record_rx, greet_rx, told_rx, rival_tx };
        let keeper = keeper::Keeper::start(options, ends, stats.clone(), health.clone()).await?;
        let task = tokio::spawn(keeper.run());
        Ok(Self { views, record: record_tx, greet: greet_tx, told, stats, health, rival, task })
    }

    /// The current view.
    pub fn view(&self) -> Arc<ClusterView> {
        self.views.borrow().clone()
    }

    /// Follows the views.
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.views.clone()
    }

    /// Changes what this node says of itself.
    pub fn publish(&self, change: impl FnOnce(&mut NodeRecord)) {
        self.record.send_if_modified(|r| {
            let before = r.clone();
            change(r);
            *r != before
        });
    }

    /// What this node says of itself.
    pub fn record(&self) -> NodeRecord {
        self.record.borrow().clone()
    }

    /// Exchanges state with `seed` now and a few times more.
    pub fn greet(&self, seed: SocketAddr) {
        let _ = self.greet.try_send(seed);
    }

    /// A node said of itself over a connection that it lives; gossip may not get through to it.
    pub fn hear(&self, told: Told) {
        let _ = self.told.try_send(told);
    }

    /// Frame counters.
    pub fn stats(&self) -> &TransportStats {
        &self.stats
    }

    /// How the service itself fares.
    pub fn health(&self) -> &GossipHealth {
        &self.health
    }

    /// Another process with this node's name, once one was heard.
    pub fn rival(&self) -> watch::Receiver<Option<Rival>> {
        self.rival.clone()
    }

    /// Stops gossip. Publish `leaving` two intervals earlier.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.task.abort();
    }
}
