//! Membership in the simulation: a model of gossip that feeds the real views.
//!
//! Every second tick a node sends what it knows of all to two others, so heartbeats travel through third parties as in
//! chitchat; ten seconds without a new heartbeat make a node dead. Peers are remembered on disk with what they said.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use koios_cluster::keys::HeadSummary;
use koios_cluster::replicas;
use koios_cluster::{ClusterView, Liveness, Member, NodeRecord, NodeState};

use super::ingest::WINDOW_MS;
use super::node::Process;
use super::types::{Entry, Ms, Msg};

/// A node is dead when its heartbeat stood still for this long.
const DEAD_MS: Ms = 10_000;
/// A node listens this long before it takes part.
const LISTEN_MS: Ms = 5_000;
/// Clocks differ by no more than this.
const SKEW_MS: Ms = 15_000;
/// How long a new owner of a slot needs at most, for the stretches of sole data.
const LINGER_MS: Ms = 25_000;

/// What is known of a peer.
#[derive(Clone, Debug)]
pub struct Known {
    pub(super) entry: Entry,
    heard: Ms,
    liveness: Liveness,
}

impl Process {
    /// Peers as the disk remembers them; the first start knows the nodes of the first configuration.
    pub(super) fn learn_peers(&mut self) {
        for mut entry in std::mem::take(&mut self.disk.peers) {
            let node = entry.node;
            entry.record = Arc::new(NodeRecord::clone(&entry.record).by_hearsay());
            let liveness = Liveness::Dead { since: self.wall };
            self.known[node] = Some(Known { entry, heard: i64::MIN / 2, liveness });
        }
        self.known[self.me] = None;
    }

    pub(super) fn gossiped(&mut self, from: usize, entries: &[Entry]) {
        for e in entries {
            if e.node == self.me {
                self.known_by[from] |= e.generation == self.generation;
                continue;
            }
            let newer = match &self.known[e.node] {
                Some(k) => (e.generation, e.beat) > (k.entry.generation, k.entry.beat),
                None => true,
            };
            if !newer {
                continue;
            }
            let same = self.known[e.node].as_ref().is_some_and(|k| {
                k.entry.generation == e.generation
                    && k.liveness == Liveness::Alive
                    && Arc::ptr_eq(&k.entry.record, &e.record)
            });
            self.view_stale |= !same;
            let known = Known { entry: e.clone(), heard: self.mono, liveness: Liveness::Alive };
            self.known[e.node] = Some(known);
        }
    }

    /// Notices the dead, says what this node is, publishes a new view if something changed.
    pub(super) fn follow_membership(&mut self) {
        self.beat += 1;
        for known in self.known.iter_mut().flatten() {
            if known.liveness == Liveness::Alive && self.mono - known.heard > DEAD_MS {
                known.liveness = Liveness::Dead { since: self.wall };
                self.view_stale = true;
            }
        }
        // What this node is depends on what it knows now, and the view on what it is.
        self.publish();
        self.describe();
        self.publish();
        if self.ticks % 2 == 1 {
            self.spread();
        }
    }

    fn spread(&mut self) {
        let mine = Entry {
            node: self.me,
            generation: self.generation,
            beat: self.beat,
            record: self.record.clone(),
        };
        let mut all: Vec<Entry> = self.known.iter().flatten().map(|k| k.entry.clone()).collect();
        self.disk.peers.clone_from(&all);
        all.push(mine);
        let all = Rc::new(all);
        let n = self.common.names.len();
        // In turn, so that a healthy node is heard by everybody well within `DEAD_MS`.
        let first = 1 + (self.ticks / 2 * 2) as usize % (n - 1).max(1);
        for step in [first, first % n.max(2) + 1] {
            // Two others, never the same, never itself.
            let to = (self.me + if step >= n { 1 } else { step }) % n;
            if to != self.me && (step == first || n > 2) {
                self.send(to, Msg::Gossip(all.clone()));
            }
        }
    }

    fn describe(&mut self) {
        let oldest = self.head.values().filter_map(|c| c.keys().next()).min().copied();
        // The window counts from the newest sample of a series, and that may be ahead of this node's clock.
        // A node that joins says so too: it may turn ready unheard, behind a cut.
        let min_time = Some(HeadSummary::bound(oldest, self.wall - SKEW_MS, WINDOW_MS, 10_000));
        if self.is_ready() && self.ticks.is_multiple_of(2) {
            let ring = replicas::ring(&self.view, self.wall);
            let ready = self.view.ready("scrape");
            // One copy is a success while two make a ring: then each of them may be the only one.
            let is_pair = replicas::quorum(replicas::factor(ring.len())) < 2;
            let near = if is_pair { 0 } else { ready.len().saturating_sub(1) };
            self.sole.observe(self.wall, near, LINGER_MS);
            let far = ready.iter().filter(|m| m.record.zone != self.common.zones[self.me]).count();
            let far = if replicas::outlives_a_zone(&ring) { far } else { 0 };
            self.zone_sole.observe(self.wall, far, LINGER_MS);
        }
        let head = HeadSummary {
            min_time,
            sole: self.sole.ranges().to_vec(),
            zone_sole: self.zone_sole.ranges().to_vec(),
            series_log2: 0,
            holes: self.disk.holes.clone(),
        };
        let state = self.next_state();
        let catalogue = self.catalogue.digest();
        let r = &self.record;
        if r.state != state || r.head != head || r.catalogue != catalogue {
            let since = if r.state == state { r.since } else { self.wall };
            self.record = Arc::new(NodeRecord { head, state, since, catalogue, ..NodeRecord::clone(r) });
            self.view_stale = true;
        }
    }

    /// Ready after listening for a while, with a peer heard (or none there), the bucket looked at once, and, on an empty
    /// disk, its own past found in the bucket and itself known by more than half.
    fn next_state(&self) -> NodeState {
        if self.is_ready() {
            return NodeState::Ready;
        }
        let alone = self.common.first == 1;
        let heard = alone || self.known.iter().flatten().any(|k| k.liveness == Liveness::Alive);
        let listened = self.mono - self.started >= LISTEN_MS;
        let looked = self.catalogue_at.is_some() || self.mono - self.started >= 20_000;
        let ring = replicas::ring(&self.view, self.wall);
        let knows = |m: &Member| self.known_by[self.index_of(&m.name)];
        let known = !self.new || replicas::is_known(&ring, self.name(), &knows);
        if heard && listened && looked && self.logs_seen && known {
            NodeState::Ready
        } else if self.logs_seen {
            NodeState::Joining
        } else {
            NodeState::Starting
        }
    }

    fn publish(&mut self) {
        if !std::mem::take(&mut self.view_stale) {
            return;
        }
        let member = |node: usize, generation, liveness, record: &Arc<NodeRecord>| Member {
            name: self.common.names[node].clone(),
            generation,
            gossip: record.rpc,
            liveness,
            record: NodeRecord::clone(record),
        };
        let mut members: BTreeMap<String, Arc<Member>> = BTreeMap::new();
        for k in self.known.iter().flatten() {
            let same = self.view.members.get(&self.common.names[k.entry.node]).filter(|m| {
                m.generation == k.entry.generation && m.liveness == k.liveness && m.record == *k.entry.record
            });
            let m = same.cloned().unwrap_or_else(|| {
                Arc::new(member(k.entry.node, k.entry.generation, k.liveness, &k.entry.record))
            });
            members.insert(m.name.clone(), m);
        }
        let own = Arc::new(member(self.me, self.generation, Liveness::Alive, &self.record));
        members.insert(own.name.clone(), own);
        let seq = self.view.seq + 1;
        self.view = Arc::new(ClusterView { seq, me: self.name().to_owned(), cluster: "sim".into(), members });
    }
}
