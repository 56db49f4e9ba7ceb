//! The gossip service: chitchat kept alive, and its state turned into published views.
//!
//! Owns the one chitchat handle of a node and the watch channel of `ClusterView`s. Other code reads views
//! and never locks chitchat. Every round the node re-asserts its own keys, so that nobody else's write can
//! stand; a chitchat task that dies is started again with a higher generation.
//!
//! Bounds: see `keys`; a view is published at most every 100 ms.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion, spawn_chitchat,
};
use koios_model::Clock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::error::ClusterError;
use crate::identity::next_generation;
use crate::keys::{NodeRecord, REQUIRED};
use crate::peers::{BOOK_STEP_MS, PeerBook};
use crate::secret::KeyRing;
use crate::transport::{SealedTransport, TransportStats};
use crate::view::{ClusterView, Liveness, Member};

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
    /// How long gossip itself remembers a dead node; the peer book does longer.
    pub dead_grace: Duration,
    /// Keys.
    pub ring: Arc<KeyRing>,
    /// Where generation and peer book are kept.
    pub state_dir: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// First generation to use.
    pub generation: u64,
}

/// A running gossip service.
pub struct Gossip {
    views: watch::Receiver<Arc<ClusterView>>,
    record: watch::Sender<NodeRecord>,
    greet: mpsc::Sender<SocketAddr>,
    stats: Arc<TransportStats>,
    task: JoinHandle<()>,
}

const ROUND: Duration = Duration::from_millis(100);
const GREETINGS: u32 = 8;
/// Rounds after which the peer book is written, and after which it is when somebody is new.
const BOOK_ROUNDS: u64 = 100;
const NEWS_ROUNDS: u64 = 10;
/// Rounds between two calls to peers that are not heard.
const CALLS: u64 = 30;
/// Peers told at once of a change of the own record.
const PEERS_TOLD: usize = 8;
const RESTART_PAUSE: Duration = Duration::from_secs(2);

impl Gossip {
    /// Starts gossiping `record`.
    ///
    /// # Errors
    /// `ClusterError::Bind` when the port is taken, `Gossip` when chitchat refuses.
    pub async fn start(options: GossipOptions, record: NodeRecord) -> Result<Self, ClusterError> {
        let stats = Arc::new(TransportStats::default());
        let handle = spawn(&options, options.generation, &record, &stats).await?;
        let empty = ClusterView {
            me: options.node.clone(),
            cluster: options.ring.cluster().to_owned(),
            ..ClusterView::default()
        };
        let (view_tx, views) = watch::channel(Arc::new(empty));
        let (record_tx, record_rx) = watch::channel(record);
        let (greet_tx, greet_rx) = mpsc::channel(64);
        for seed in options.seeds.iter().take(64) {
            let _ = greet_tx.try_send(*seed);
        }
        let book = PeerBook::open(&options.state_dir);
        let generation = options.generation;
        let keeper = Keeper {
            options,
            generation,
            handle,
            view_tx,
            record_rx,
            greet_rx,
            stats: stats.clone(),
            book,
            called: 0,
            dead_since: BTreeMap::new(),
        };
        let task = tokio::spawn(keeper.run());
        Ok(Self { views, record: record_tx, greet: greet_tx, stats, task })
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

    /// Frame counters.
    pub fn stats(&self) -> &TransportStats {
        &self.stats
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

async fn spawn(
    o: &GossipOptions,
    generation: u64,
    record: &NodeRecord,
    stats: &Arc<TransportStats>,
) -> Result<ChitchatHandle, ClusterError> {
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new(o.node.clone(), generation, o.advertise),
        cluster_id: o.ring.cluster().to_owned(),
        gossip_interval: o.interval,
        listen_addr: o.listen,
        seed_nodes: o.seeds.iter().map(ToString::to_string).collect(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: o.phi,
            initial_interval: o.interval,
            dead_node_grace_period: o.dead_grace,
            ..FailureDetectorConfig::default()
        },
        marked_for_deletion_grace_period: o.dead_grace,
        catchup_callback: None,
        // A node is invisible until peers know how to call it.
        extra_liveness_predicate: Some(Box::new(|state| REQUIRED.iter().all(|k| state.get(k).is_some()))),
        protocol_version: ProtocolVersion::V1,
    };
    let pairs = record.to_pairs().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let transport = SealedTransport::new(o.ring.clone(), o.clock.clone(), stats.clone());
    spawn_chitchat(config, pairs, &transport).await.map_err(|e| match e.downcast_ref::<std::io::Error>() {
        Some(io) => ClusterError::Bind { addr: o.listen, detail: io.to_string() },
        None => ClusterError::Gossip(e.to_string()),
    })
}

struct Keeper {
    options: GossipOptions,
    generation: u64,
    handle: ChitchatHandle,
    view_tx: watch::Sender<Arc<ClusterView>>,
    record_rx: watch::Receiver<NodeRecord>,
    greet_rx: mpsc::Receiver<SocketAddr>,
    stats: Arc<TransportStats>,
    book: PeerBook,
    called: usize,
    dead_since: BTreeMap<(String, u64), i64>,
}

impl Keeper {
    async fn run(mut self) {
        let mut ticker = tokio::time::interval(ROUND);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut greetings: Vec<(SocketAddr, u32)> = Vec::new();
        let mut ended = Box::pin(self.handle.termination_watcher());
        let mut round: u64 = 0;
        loop {
            tokio::select! {
                _ = ticker.tick() => {}
                changed = self.record_rx.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // News of one's own state should not wait for the next round.
                    self.assert_own_state().await;
                    self.tell_peers();
                }
                Some(seed) = self.greet_rx.recv() => greetings.push((seed, GREETINGS)),
                why = &mut ended => {
                    tracing::error!(?why, "gossip task ended; starting it again with a new generation");
                    self.restart().await;
                    ended = Box::pin(self.handle.termination_watcher());
                }
            }
            round += 1;
            if round.is_multiple_of(2) {
                greetings.retain_mut(|(seed, left)| {
                    let _ = self.handle.gossip(*seed);
                    *left -= 1;
                    *left > 0
                });
            }
            self.assert_own_state().await;
            self.publish_view().await;
            if round.is_multiple_of(CALLS) {
                self.call_silent();
            }
            let is_due = round.is_multiple_of(BOOK_ROUNDS) || self.book.has_news();
            if is_due && round.is_multiple_of(NEWS_ROUNDS) {
                self.book.prune(self.options.clock.now_ms());
                if let Err(e) = self.book.save() {
                    tracing::warn!(error = %e, "peer book not saved");
                }
            }
        }
    }

    /// Exchanges state at once with a few living peers.
    fn tell_peers(&self) {
        let view = self.view_tx.borrow().clone();
        for m in view.members.values().filter(|m| m.is_alive() && m.name != view.me).take(PEERS_TOLD) {
            let _ = self.handle.gossip(m.gossip);
        }
    }

    /// Calls one peer of the book that is not heard, the next one each time: after a cut that was longer than gossip
    /// remembers nobody else would, and the two sides would stay two clusters.
    fn call_silent(&mut self) {
        let view = self.view_tx.borrow().clone();
        let is_heard = |name: &str| view.members.get(name).is_some_and(|m| m.is_alive());
        let silent: Vec<SocketAddr> =
            self.book.iter().filter(|(n, _)| **n != view.me && !is_heard(n)).map(|(_, p)| p.gossip).collect();
        if let Some(addr) = silent.get(self.called % silent.len().max(1)) {
            let _ = self.handle.gossip(*addr);
            self.called += 1;
        }
    }

    async fn restart(&mut self) {
        loop {
            tokio::time::sleep(RESTART_PAUSE).await;
            if let Ok(g) = next_generation(&self.options.state_dir, &*self.options.clock) {
                self.generation = g.value;
            } else {
                self.generation += 1;
            }
            let record = self.record_rx.borrow().clone();
            match spawn(&self.options, self.generation, &record, &self.stats).await {
                Ok(handle) => {
                    self.handle = handle;
                    return;
                }
                Err(e) => tracing::error!(error = %e, "gossip does not start"),
            }
        }
    }

    /// Writes this node's keys; equal values are no change to chitchat.
    async fn assert_own_state(&mut self) {
        let pairs = self.record_rx.borrow_and_update().to_pairs();
        self.handle
            .with_chitchat(|c| {
                let state = c.self_node_state();
                for (key, value) in &pairs {
                    state.set(key, value);
                }
            })
            .await;
    }

    async fn publish_view(&mut self) {
        let now = self.options.clock.now_ms();
        let own = self.record_rx.borrow().clone();
        let me = self.options.node.clone();
        let heard: Vec<(ChitchatId, bool, Option<NodeRecord>)> = self
            .handle
            .with_chitchat(|c| {
                let live: Vec<ChitchatId> = c.live_nodes().cloned().collect();
                c.node_states()
                    .iter()
                    .map(|(id, state)| {
                        (id.clone(), live.contains(id), NodeRecord::from_lookup(|k| state.get(k)))
                    })
                    .collect()
            })
            .await;
        let mut members: BTreeMap<String, Arc<Member>> = BTreeMap::new();
        for (id, live, record) in heard {
            if *id.node_id == *me {
                continue;
            }
            if let Some(m) = self.member(&id, live, record, now) {
                let newer = members.get(&m.name).is_none_or(|old| better(&m, old));
                if newer {
                    members.insert(m.name.clone(), Arc::new(m));
                }
            }
        }
        for m in members.values().filter(|m| m.is_alive()) {
            self.book.saw_alive(m, now);
        }
        self.add_forgotten(&mut members, &me);
        let myself = Member {
            name: me.clone(),
            generation: self.generation,
            gossip: self.options.advertise,
            liveness: Liveness::Alive,
            record: own,
        };
        members.insert(me.clone(), Arc::new(myself));
        self.view_tx.send_if_modified(|current| {
            if current.members == members {
                return false;
            }
            *current = Arc::new(ClusterView {
                seq: current.seq + 1,
                me: me.clone(),
                cluster: self.options.ring.cluster().to_owned(),
                members,
            });
            true
        });
    }

    fn member(
        &mut self,
        id: &ChitchatId,
        live: bool,
        record: Option<NodeRecord>,
        now: i64,
    ) -> Option<Member> {
        let name = id.node_id.to_string();
        let key = (name.clone(), id.generation_id);
        let liveness = if live {
            self.dead_since.remove(&key);
            Liveness::Alive
        } else {
            Liveness::Dead { since: *self.dead_since.entry(key).or_insert(now) }
        };
        let member = Member {
            name,
            generation: id.generation_id,
            gossip: id.gossip_advertise_addr,
            liveness,
            record: record?,
        };
        // A joiner is first known, then alive: it is not dead in between.
        let known_before =
            self.book.iter().any(|(n, p)| *n == member.name && p.generation >= member.generation);
        (live || known_before).then_some(member)
    }

    /// Peers that gossip no longer knows, from the book.
    fn add_forgotten(&self, members: &mut BTreeMap<String, Arc<Member>>, me: &str) {
        for (name, peer) in self.book.iter() {
            if name == me || members.contains_key(name) {
                continue;
            }
            let record = NodeRecord::from_lookup(|k| peer.pairs.get(k).map(String::as_str));
            let Some(record) = record else { continue };
            let member = Member {
                name: name.clone(),
                generation: peer.generation,
                gossip: peer.gossip,
                // The book may be a minute old, and its owner may have lived on until then.
                liveness: Liveness::Dead { since: peer.last_alive + BOOK_STEP_MS },
                record,
            };
            members.insert(name.clone(), Arc::new(member));
        }
    }
}

/// Of two incarnations of one node the living one counts, then the younger one.
fn better(a: &Member, b: &Member) -> bool {
    (a.is_alive(), a.generation) > (b.is_alive(), b.generation)
}
