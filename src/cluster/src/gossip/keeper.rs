//! The keeper: the task that owns chitchat's handle, says what this node says, and publishes what it hears.
//!
//! A member's generation is that of its process. Gossip identities are finer: a gossip task that ended is started again
//! under a higher one, and a node that meets a higher generation of its own name at its own address takes one above
//! that, because the other is its own past from a disk that was lost. Neither looks like a new process to anybody.
//!
//! Bounds: restarts at most every 2 s and, when they come in a row, every 30 s; a young node meets 120 peers by itself.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion,
    spawn_chitchat,
};
use tokio::sync::{mpsc, watch};

use super::pulse::{Pulses, Rival};
use super::{GossipHealth, GossipOptions, IDS_BYTES_MAX};
use crate::error::ClusterError;
use crate::identity::next_generation;
use crate::keys::{NodeRecord, PROCESS, REQUIRED, parse_process, process_pair, within_bounds};
use crate::peers::{BOOK_STEP_MS, PeerBook};
use crate::told::Told;
use crate::transport::{SealedTransport, TransportStats};
use crate::view::{ClusterView, Liveness, Member};

const ROUND: Duration = Duration::from_millis(100);
const GREETINGS: u32 = 8;
/// Rounds after which the peer book is written, and after which it is when somebody is new.
const BOOK_ROUNDS: u64 = 100;
const NEWS_ROUNDS: u64 = 10;
/// Peers told at once of a change of the own record.
const PEERS_TOLD: usize = 8;
const RESTART_PAUSE: Duration = Duration::from_secs(2);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A task that ran for this long did not end in a row with the one before.
const RAN_WELL_NS: u64 = 60_000_000_000;
/// Peers that a young node meets itself each time, in turn. The failure detector believes in a node after three beats of
/// its heart, and through third parties they take some intervals to come.
const INTRODUCED: usize = 8;
/// How often.
const INTRODUCTIONS: u32 = 15;
const INTRODUCTION_ROUNDS: u64 = 2;
/// Most nodes that say of themselves over connections who they are, and for how long one may be silent.
const TOLD_MAX: usize = 1_000;
const TOLD_SILENT_INTERVALS: u32 = 8;
const TOLD_SILENT_MIN: Duration = Duration::from_secs(5);
/// One of the peers that gossip has forgotten is tried again after this many intervals.
const SEARCH_INTERVALS: u32 = 2;
/// Of what an identity costs in a message, beside its name; the crate compresses generations and addresses.
const ID_BYTES: u64 = 12;
/// While there are too many identities, the dead are forgotten this much sooner.
const CROWDED_GRACE_DIVISOR: u32 = 10;

type Ended = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// What the keeper shares with the service.
pub struct Ends {
    pub view_tx: watch::Sender<Arc<ClusterView>>,
    pub record_rx: watch::Receiver<NodeRecord>,
    pub greet_rx: mpsc::Receiver<SocketAddr>,
    pub told_rx: mpsc::Receiver<Told>,
    pub rival_tx: watch::Sender<Option<Rival>>,
}

/// What an identity said last, and the version of it.
struct Heard {
    version: u64,
    record: Option<NodeRecord>,
    process: u64,
    live: bool,
}

/// See the module.
pub struct Keeper {
    options: GossipOptions,
    id: ChitchatId,
    handle: ChitchatHandle,
    ends: Ends,
    stats: Arc<TransportStats>,
    health: Arc<GossipHealth>,
    book: PeerBook,
    dead_since: BTreeMap<(String, u64), i64>,
    heard: HashMap<ChitchatId, Heard>,
    /// What nodes said over connections, and when, monotonic nanoseconds.
    told: BTreeMap<String, (Told, u64)>,
    pulses: Pulses,
    /// A higher generation of this node's own past, when one was met.
    past: u64,
    crowded: bool,
    /// Version of the own keys as they were left here.
    own_version: u64,
    introductions: u32,
    started_ns: u64,
    pause: Duration,
}

impl Keeper {
    /// Starts chitchat.
    ///
    /// # Errors
    /// `ClusterError::Bind` when the port is taken, `Gossip` when chitchat refuses.
    pub async fn start(
        options: GossipOptions,
        ends: Ends,
        stats: Arc<TransportStats>,
        health: Arc<GossipHealth>,
    ) -> Result<Self, ClusterError> {
        let id = ChitchatId::new(options.node.clone(), options.generation, options.advertise);
        let record = ends.record_rx.borrow().clone();
        let handle = spawn(&options, &id, options.dead_grace, &record, &stats).await?;
        health.generation.store(id.generation_id, Ordering::Relaxed);
        Ok(Self {
            book: PeerBook::open(&options.state_dir),
            started_ns: options.clock.mono_ns(),
            options,
            id,
            handle,
            ends,
            stats,
            health,
            dead_since: BTreeMap::new(),
            heard: HashMap::new(),
            told: BTreeMap::new(),
            pulses: Pulses::default(),
            past: 0,
            crowded: false,
            own_version: 0,
            introductions: INTRODUCTIONS,
            pause: RESTART_PAUSE,
        })
    }

    /// Runs until the service is dropped.
    pub async fn run(mut self) {
        let mut ticker = tokio::time::interval(ROUND);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut greetings: Vec<(SocketAddr, u32)> = Vec::new();
        let mut ended: Ended = Box::pin(self.handle.termination_watcher());
        let mut round: u64 = 0;
        loop {
            tokio::select! {
                _ = ticker.tick() => {}
                changed = self.ends.record_rx.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // News of one's own state should not wait for the next round.
                    self.assert_own_state().await;
                    self.tell_peers(round as usize, PEERS_TOLD);
                }
                Some(seed) = self.ends.greet_rx.recv() => greetings.push((seed, GREETINGS)),
                Some(told) = self.ends.told_rx.recv() => self.note(told),
                why = &mut ended => {
                    tracing::error!(?why, "gossip task ended; starting it again with a new generation");
                    self.health.restarts.fetch_add(1, Ordering::Relaxed);
                    self.pause().await;
                    self.restart().await;
                    ended = Box::pin(self.handle.termination_watcher());
                }
            }
            round += 1;
            if round.is_multiple_of(2) {
                greetings.retain_mut(|(seed, left)| {
                    let _ = self.handle.gossip(*seed);
                    *left -= 1;
                    *left > 0 && !self.knows(*seed)
                });
            }
            if round.is_multiple_of(INTRODUCTION_ROUNDS) && self.introductions > 0 {
                let turn = (INTRODUCTIONS - self.introductions) as usize;
                self.introductions -= u32::from(self.tell_peers(turn * INTRODUCED, INTRODUCED) > 0);
            }
            self.assert_own_state().await;
            self.publish_view().await;
            if self.must_start_afresh() {
                // Its port is free when it has ended.
                let _ = self.handle.initiate_shutdown();
                let _ = tokio::time::timeout(RESTART_PAUSE, &mut ended).await;
                self.restart().await;
                ended = Box::pin(self.handle.termination_watcher());
            }
            if round.is_multiple_of(self.rounds_in(SEARCH_INTERVALS)) {
                self.search(round);
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

    fn rounds_in(&self, intervals: u32) -> u64 {
        ((self.options.interval * intervals).as_nanos() / ROUND.as_nanos()).max(1) as u64
    }

    /// Tries one peer of the book that gossip has forgotten. Two halves of a cluster that were apart for longer than the
    /// grace would otherwise never find each other again, and neither would who lost its only seed.
    fn search(&self, turn: u64) {
        let forgotten = |(name, _): &(&String, _)| !self.heard.keys().any(|id| *id.node_id == ***name);
        let addresses: Vec<SocketAddr> = self.book.iter().filter(forgotten).map(|(_, p)| p.gossip).collect();
        let turn = turn / self.rounds_in(SEARCH_INTERVALS);
        if let Some(address) = addresses.get(turn as usize % addresses.len().max(1)) {
            let _ = self.handle.gossip(*address);
        }
    }

    /// Whether an address has spoken as a member.
    fn knows(&self, address: SocketAddr) -> bool {
        self.heard.keys().any(|id| id.gossip_advertise_addr == address)
    }

    /// Exchanges state at once with up to `count` peers, from the `first` on; with how many. Not only with those that
    /// are known to live: a young node knows that of nobody.
    fn tell_peers(&self, first: usize, count: usize) -> usize {
        let may_live = |(id, h): &(&ChitchatId, &Heard)| {
            (h.live || self.introductions > 0) && id.node_id != self.id.node_id
        };
        let mut peers: Vec<SocketAddr> =
            self.heard.iter().filter(may_live).map(|(id, _)| id.gossip_advertise_addr).collect();
        peers.sort_unstable();
        peers.dedup();
        // Not everybody shall begin with the same ones.
        let own = peers.partition_point(|a| *a < self.options.advertise);
        let turned = peers.iter().cycle().skip((own + first) % peers.len().max(1));
        turned.take(count.min(peers.len())).filter(|addr| self.handle.gossip(**addr).is_ok()).count()
    }

    /// Waits before the task is started again: longer when it ended right after the last time.
    async fn pause(&mut self) {
        let now_ns = self.options.clock.mono_ns();
        let in_a_row = now_ns.saturating_sub(self.started_ns) < RAN_WELL_NS;
        self.pause = if in_a_row { (self.pause * 2).min(RESTART_PAUSE_MAX) } else { RESTART_PAUSE };
        self.health.silent.store(true, Ordering::Relaxed);
        tokio::time::sleep(self.pause).await;
    }

    /// Starts chitchat again under a higher generation than any before.
    async fn restart(&mut self) {
        loop {
            let above = self.id.generation_id.max(self.past).saturating_add(1);
            let next = next_generation(&self.options.state_dir, &*self.options.clock);
            let generation = next.map_or(above, |g| g.value.max(above));
            let id = ChitchatId::new(self.options.node.clone(), generation, self.options.advertise);
            let record = self.ends.record_rx.borrow().clone();
            let grace = if self.crowded {
                self.options.dead_grace / CROWDED_GRACE_DIVISOR
            } else {
                self.options.dead_grace
            };
            match spawn(&self.options, &id, grace, &record, &self.stats).await {
                Ok(handle) => {
                    tracing::warn!(generation, "gossip runs again");
                    (self.handle, self.id) = (handle, id);
                    (self.introductions, self.own_version) = (INTRODUCTIONS, 0);
                    self.started_ns = self.options.clock.mono_ns();
                    self.health.generation.store(generation, Ordering::Relaxed);
                    self.health.silent.store(false, Ordering::Relaxed);
                    return;
                }
                Err(e) => tracing::error!(error = %e, "gossip does not start"),
            }
            self.health.silent.store(true, Ordering::Relaxed);
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    /// Whether gossip has to go on under another identity although its task runs: its own past is ahead of it, or so
    /// many identities are known that a message will soon not carry them.
    fn must_start_afresh(&mut self) -> bool {
        if self.past > self.id.generation_id {
            tracing::warn!(
                past = self.past,
                "a higher generation of this node is known from before its disk was lost; gossip goes on above it"
            );
            return true;
        }
        let bytes = self.health.id_bytes();
        if !self.crowded && bytes > IDS_BYTES_MAX * 3 / 4 {
            let ids = self.health.ids();
            tracing::error!(
                ids,
                bytes,
                "so many nodes were started lately that gossip can soon not carry them; the dead are forgotten sooner"
            );
            self.crowded = true;
            return true;
        }
        self.crowded &= bytes > IDS_BYTES_MAX / 4;
        false
    }

    /// Writes this node's keys; equal values are no change to chitchat. When somebody else wrote here (peers do, who
    /// remember an earlier process of the same generation) every key is written anew, or those that they do not get a
    /// newer version of would keep the old value with them.
    async fn assert_own_state(&mut self) {
        let record = self.ends.record_rx.borrow_and_update().clone();
        let (pairs, blocked) = own_pairs(&record, self.options.generation);
        if blocked > 0 {
            self.health.blocked.fetch_add(blocked, Ordering::Relaxed);
        }
        let left = self.own_version;
        self.own_version = self
            .handle
            .with_chitchat(|c| {
                let state = c.self_node_state();
                let foreign = state.max_version() > left;
                for (key, value) in &pairs {
                    if foreign {
                        state.set(key, "");
                    }
                    state.set(key, value);
                }
                state.max_version()
            })
            .await;
    }

    async fn publish_view(&mut self) {
        let (now, now_ns) = (self.options.clock.now_ms(), self.options.clock.mono_ns());
        let own = self.ends.record_rx.borrow().clone();
        let me = self.options.node.clone();
        let (heard, pulses, interval) = (&mut self.heard, &mut self.pulses, self.options.interval);
        self.handle.with_chitchat(|c| listen(c, heard, pulses, (interval, now_ns))).await;
        self.measure(now_ns);
        let heard = std::mem::take(&mut self.heard);
        let mut members: BTreeMap<String, (u64, Arc<Member>)> = BTreeMap::new();
        for (id, h) in heard.iter().filter(|(id, _)| *id.node_id != *me) {
            let Some(m) = self.member(id, h, now) else { continue };
            let rank = (m.is_alive(), id.generation_id);
            if members.get(&m.name).is_none_or(|(best, old)| rank > (old.is_alive(), *best)) {
                members.insert(m.name.clone(), (id.generation_id, Arc::new(m)));
            }
        }
        for (m, generation) in self.told_members(&me, now, now_ns) {
            let rank = (m.is_alive(), generation);
            if members.get(&m.name).is_none_or(|(best, old)| rank > (old.is_alive(), *best)) {
                members.insert(m.name.clone(), (generation, Arc::new(m)));
            }
        }
        let told = &self.told;
        self.dead_since.retain(|(name, generation), _| {
            heard.keys().any(|id| id.generation_id == *generation && *id.node_id == **name)
                || told.get(name).is_some_and(|(t, _)| t.generation == *generation)
        });
        self.heard = heard;
        let mut members: BTreeMap<String, Arc<Member>> =
            members.into_iter().map(|(name, (_, m))| (name, m)).collect();
        for m in members.values().filter(|m| m.is_alive()) {
            self.book.saw_alive(m, now);
        }
        self.add_forgotten(&mut members, &me);
        for m in members.values_mut() {
            if let Some(record) = self.book.remind(&m.name, &m.record) {
                *m = Arc::new(Member { record, ..Member::clone(m) });
            }
        }
        let myself = Member {
            name: me.clone(),
            generation: self.options.generation,
            gossip: self.options.advertise,
            liveness: Liveness::Alive,
            record: own,
        };
        members.insert(me.clone(), Arc::new(myself));
        self.ends.view_tx.send_if_modified(|current| {
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

    /// Takes what a node said over a connection; an older process of it says nothing any more.
    fn note(&mut self, told: Told) {
        let known = self.told.get(&told.name).map(|(t, _)| t.generation);
        let fits = self.told.len() < TOLD_MAX || known.is_some();
        if told.name != self.options.node && known.is_none_or(|g| g <= told.generation) && fits {
            self.told.insert(told.name.clone(), (told, self.options.clock.mono_ns()));
        }
    }

    /// Those who said over connections that they live, with their generations; who has been silent is dead. Whom gossip
    /// hears is gossip's.
    fn told_members(&mut self, me: &str, now: i64, now_ns: u64) -> Vec<(Member, u64)> {
        let patience = (self.options.interval * TOLD_SILENT_INTERVALS).max(TOLD_SILENT_MIN).as_nanos() as u64;
        let mut out = Vec::new();
        for (name, (told, at_ns)) in self.told.iter().filter(|(name, _)| *name != me) {
            let key = (name.clone(), told.generation);
            let liveness = if now_ns.saturating_sub(*at_ns) <= patience {
                self.dead_since.remove(&key);
                Liveness::Alive
            } else {
                Liveness::Dead { since: *self.dead_since.entry(key).or_insert(now) }
            };
            let (gossip, record) = (told.gossip, told.record.clone());
            let member = Member { name: name.clone(), generation: told.generation, gossip, liveness, record };
            out.push((member, told.generation));
        }
        out
    }

    /// Counts identities, and looks for another process of a name.
    fn measure(&mut self, now_ns: u64) {
        let bytes: u64 = self.heard.keys().map(|id| id.node_id.len() as u64 + ID_BYTES).sum();
        self.health.ids.store(self.heard.len() as u64, Ordering::Relaxed);
        self.health.id_bytes.store(bytes, Ordering::Relaxed);
        let own_past = |id: &&ChitchatId| {
            id.node_id == self.id.node_id && id.gossip_advertise_addr == self.id.gossip_advertise_addr
        };
        self.past = self.heard.keys().filter(own_past).map(|id| id.generation_id).max().unwrap_or(0);
        let doubles = self.pulses.doubles(&self.id, self.options.interval, now_ns);
        self.health.doubles.store(doubles.len() as u64, Ordering::Relaxed);
        let other = doubles.iter().find_map(|(a, b)| match (a == &self.id, b == &self.id) {
            (true, _) => Some(b),
            (_, true) => Some(a),
            _ => None,
        });
        let rival = other.map(|id| {
            let theirs = self.heard.get(id).map_or(id.generation_id, |h| h.process);
            let i_am_second =
                (self.options.generation, self.options.advertise) > (theirs, id.gossip_advertise_addr);
            Rival { gossip: id.gossip_advertise_addr, generation: theirs, i_am_second }
        });
        self.ends.rival_tx.send_if_modified(|last| {
            let news = *last != rival;
            if let (true, Some(r)) = (news, &rival) {
                let node = &self.options.node;
                tracing::error!(
                    node,
                    other = %r.gossip,
                    "two processes run under this node's name; fix: give each its own --storage.path and --node.name"
                );
            }
            *last = rival;
            news
        });
    }

    fn member(&mut self, id: &ChitchatId, h: &Heard, now: i64) -> Option<Member> {
        let name = id.node_id.to_string();
        let key = (name.clone(), id.generation_id);
        let liveness = if h.live {
            self.dead_since.remove(&key);
            Liveness::Alive
        } else {
            Liveness::Dead { since: *self.dead_since.entry(key).or_insert(now) }
        };
        let record = h.record.clone()?;
        let first_hand = h.live || self.book.was_heard(&name);
        let record = if first_hand { record } else { record.by_hearsay() };
        let (generation, gossip) = (h.process, id.gossip_advertise_addr);
        let member = Member { name, generation, gossip, liveness, record };
        // A joiner is first known, then alive: it is not dead in between.
        let known_before =
            self.book.iter().any(|(n, p)| *n == member.name && p.generation >= member.generation);
        (h.live || known_before).then_some(member)
    }

    /// Peers that gossip no longer knows, from the book.
    fn add_forgotten(&self, members: &mut BTreeMap<String, Arc<Member>>, me: &str) {
        for (name, peer) in self.book.iter() {
            if name == me || members.contains_key(name) {
                continue;
            }
            let record = NodeRecord::from_lookup(|k| peer.pairs.get(k).map(String::as_str));
            if let Some(record) = record {
                let record = if self.book.was_heard(name) { record } else { record.by_hearsay() };
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
}

/// Takes what changed since the last time.
fn listen(
    c: &Chitchat,
    heard: &mut HashMap<ChitchatId, Heard>,
    pulses: &mut Pulses,
    (interval, now_ns): (Duration, u64),
) {
    for (id, state) in c.node_states() {
        pulses.observe(id, state.heartbeat().into(), now_ns);
        let version = state.max_version();
        if heard.get(id).is_none_or(|h| h.version != version) {
            let process = state.get(PROCESS).and_then(parse_process).unwrap_or(id.generation_id);
            let record = NodeRecord::from_lookup(|k| state.get(k));
            heard.insert(id.clone(), Heard { version, record, process, live: false });
        }
    }
    if heard.len() > c.node_states().len() {
        heard.retain(|id, _| c.node_state(id).is_some());
        pulses.keep(|id| c.node_state(id).is_some());
    }
    for (id, h) in heard.iter_mut() {
        let limit = c.failure_detection_timeout(id);
        h.live = h.record.is_some() && pulses.is_live(id, limit, interval, now_ns);
    }
}

/// What this node says, within the bounds of gossip, and how many values had to be kept back.
fn own_pairs(record: &NodeRecord, process: u64) -> (Vec<(&'static str, String)>, u64) {
    let mut pairs = record.to_pairs();
    pairs.push(process_pair(process));
    within_bounds(pairs)
}

async fn spawn(
    o: &GossipOptions,
    id: &ChitchatId,
    grace: Duration,
    record: &NodeRecord,
    stats: &Arc<TransportStats>,
) -> Result<ChitchatHandle, ClusterError> {
    let config = ChitchatConfig {
        chitchat_id: id.clone(),
        cluster_id: o.ring.cluster().to_owned(),
        gossip_interval: o.interval,
        listen_addr: o.listen,
        seed_nodes: o.seeds.iter().map(ToString::to_string).collect(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: o.phi,
            initial_interval: o.interval,
            dead_node_grace_period: grace,
            ..FailureDetectorConfig::default()
        },
        marked_for_deletion_grace_period: grace,
        catchup_callback: None,
        // A node is invisible until peers know how to call it.
        extra_liveness_predicate: Some(Box::new(|state| REQUIRED.iter().all(|k| state.get(k).is_some()))),
        protocol_version: ProtocolVersion::V1,
    };
    let pairs = own_pairs(record, o.generation).0.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let transport =
        SealedTransport::new(o.ring.clone(), o.clock.clone(), stats.clone()).in_weather(o.weather.clone());
    spawn_chitchat(config, pairs, &transport).await.map_err(|e| match e.downcast_ref::<std::io::Error>() {
        Some(io) => ClusterError::Bind { addr: o.listen, detail: io.to_string() },
        None => ClusterError::Gossip(e.to_string()),
    })
}
