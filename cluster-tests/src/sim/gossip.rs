//! Membership in the simulation: a model of gossip that feeds the real views.
//!
//! Every second tick a node sends what it knows of all to two others, so heartbeats travel through third parties as in
//! chitchat; ten seconds without a new heartbeat make a node dead. Peers are remembered on disk with what they said.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use koios_cluster::keys::HeadSummary;
use koios_cluster::replicas;
use koios_cluster::{ClusterView, Liveness, Member, NodeRecord, NodeState, SoleRange};

use super::ingest::WINDOW_MS;
use super::node::Process;
use super::types::{Effect, Entry, Ms, Msg, Note};

/// A node is dead when its heartbeat stood still for this long.
const DEAD_MS: Ms = 10_000;
/// A node listens this long before it takes part.
const LISTEN_MS: Ms = 5_000;
/// Clocks differ by no more than this.
const SKEW_MS: Ms = 15_000;
/// A node waits this long for what peers remember of it.
const RECALL_MS: Ms = 20_000;
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
            self.compare_disks(e);
            let known = Known { entry: e.clone(), heard: self.mono, liveness: Liveness::Alive };
            self.known[e.node] = Some(known);
        }
    }

    /// A node that comes back on another disk has lost what it held.
    fn compare_disks(&mut self, new: &Entry) {
        let Some(old) = &self.known[new.node] else { return };
        if old.entry.record.born != new.record.born {
            self.out.push(Effect::Note(Note::SeesDiskLost));
            for e in [old.entry.clone(), new.clone()] {
                let seen = self.member(e.node, e.generation, Liveness::Alive, &e.record);
                self.book.saw_alive(&seen, self.wall);
            }
        }
    }

    /// A process that is new on its disk asks what was on another one; who does not know that process yet says nothing.
    pub(super) fn recall(&mut self, from: usize, generation: u64) {
        let known = self.view.members.get(&self.common.names[from]).filter(|m| m.generation == generation);
        if let Some(head) = known.map(|m| m.record.head.clone()) {
            self.send(from, Msg::Remembered { holes: head.holes, alone: head.lost_alone });
        }
    }

    pub(super) fn remembered(&mut self, from: usize, holes: Vec<SoleRange>, alone: Vec<SoleRange>) {
        self.told.insert(from);
        for (own, told) in [(&mut self.disk.holes, holes), (&mut self.disk.lost_alone, alone)] {
            own.extend(told);
            *own = SoleRange::merged(std::mem::take(own));
        }
    }

    /// Whether all peers that are heard told what they remember, or had time to.
    fn has_recalled(&mut self) -> bool {
        let heard = self.known.iter().flatten().filter(|k| k.liveness == Liveness::Alive);
        let open: Vec<usize> = heard.map(|k| k.entry.node).filter(|n| !self.told.contains(n)).collect();
        self.disk.recalled |= open.is_empty() || self.mono - self.started > RECALL_MS;
        if !self.disk.recalled {
            let generation = self.generation;
            open.into_iter().for_each(|n| self.send(n, Msg::Recall(generation)));
        }
        self.disk.recalled
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
            lost_alone: self.disk.lost_alone.clone(),
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
    /// disk, its past told by its peers and itself known by more than half.
    fn next_state(&mut self) -> NodeState {
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
        if heard && listened && looked && known && (self.disk.recalled || self.has_recalled()) {
            NodeState::Ready
        } else {
            NodeState::Joining
        }
    }

    fn member(&self, node: usize, generation: u64, liveness: Liveness, record: &NodeRecord) -> Member {
        let (name, record) = (self.common.names[node].clone(), record.clone());
        Member { name, generation, gossip: record.rpc, liveness, record }
    }

    fn publish(&mut self) {
        if !std::mem::take(&mut self.view_stale) {
            return;
        }
        let mut members: BTreeMap<String, Arc<Member>> = BTreeMap::new();
        for k in self.known.iter().flatten() {
            let (name, entry) = (&self.common.names[k.entry.node], &k.entry);
            let reminded = self.book.remind(name, &entry.record);
            let record = reminded.as_ref().unwrap_or(&entry.record);
            let same = self.view.members.get(name).filter(|m| {
                m.generation == entry.generation && m.liveness == k.liveness && m.record == *record
            });
            let m = same
                .cloned()
                .unwrap_or_else(|| Arc::new(self.member(entry.node, entry.generation, k.liveness, record)));
            members.insert(m.name.clone(), m);
        }
        let own = Arc::new(self.member(self.me, self.generation, Liveness::Alive, &self.record));
        members.insert(own.name.clone(), own);
        let seq = self.view.seq + 1;
        self.view = Arc::new(ClusterView { seq, me: self.name().to_owned(), cluster: "sim".into(), members });
    }
}
