//! One simulated node: a process made of the real cores, on a disk that outlives it.
//!
//! The process is a state machine: an event comes in with the node's own clocks, effects go out. What is real:
//! placement, quorum, handover, freeze, unloading, adoption, the plan and its rounds, completeness, reach, the record
//! that is gossiped, exact deduplication. What is a model: the head (maps), the log (`disk`), gossip (a digest of all
//! to two peers), the shapes of messages. The rules of the models mirror the engine's, see `docs/adr/0006-simulator.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use koios_cluster::adoption::Watch;
use koios_cluster::handover::Wanted;
use koios_cluster::peers::PeerBook;
use koios_cluster::{
    ClusterView, Freeze, Handover, LogId, NodeRecord, NodeState, Reach, SoleTracker, Unload,
};
use koios_model::{BlockId, Clock, Labels, ManualClock, Slot};
use koios_store::CatalogueView;

use super::disk::Disk;
use super::gossip::Known;
use super::ingest::{Batch, Waiting};
use super::querying::Query;
use super::rng::Rng;
use super::storing::{Adopting, Cutting, Loading};
use super::types::{BlockData, Done, Effect, Key, Ms, Msg, SCRAPED, Tag, Timer};

/// A bug that is planted into the nodes, to see whether it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// As it should be.
    None,
    /// A replica answers before its disk has synced.
    AckBeforeSync,
    /// A node lets a block go as soon as another should have it.
    EarlyUnload,
    /// A batch is acknowledged when enough requests brought some success.
    QuorumPerRequest,
}

/// What all nodes of a world share and never change.
#[derive(Debug)]
pub struct Common {
    /// Names by node.
    pub names: Vec<String>,
    /// Zones by node.
    pub zones: Vec<String>,
    /// Nodes that the first configuration names.
    pub first: usize,
    /// Scrape targets; the series of target `i` is `SCRAPED + i`.
    pub targets: Vec<Wanted>,
    /// Labels of each series.
    pub labels: BTreeMap<u16, Labels>,
    /// Planted.
    pub bug: Bug,
}

/// The value of a series at a time.
pub fn value(series: u16, t: Ms) -> f64 {
    f64::from(series) * 1e9 + 1e6 + (t % 1_000_000) as f64
}

/// Clocks of a node: `wall = world × rate + skew`.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Parts per million too fast.
    pub drift_ppm: i64,
    /// Wall clock ahead of the world.
    pub skew: Ms,
}

impl Clocks {
    /// Wall and monotonic milliseconds at a world time.
    pub fn at(&self, world: Ms) -> (Ms, Ms) {
        let mono = world + world * self.drift_ppm / 1_000_000;
        (super::types::EPOCH + mono + self.skew, mono)
    }

    /// World milliseconds that pass while this node counts `ms`.
    pub fn stretch(&self, ms: Ms) -> Ms {
        (ms - ms * self.drift_ppm / 1_000_000).max(0)
    }
}

/// A running process.
pub struct Process {
    pub(super) common: Rc<Common>,
    pub(super) me: usize,
    pub(super) generation: u64,
    pub(super) rng: Rng,
    pub(super) disk: Disk,
    pub(super) wall: Ms,
    pub(super) mono: Ms,
    pub(super) out: Vec<Effect>,
    pub(super) ticks: u64,
    pub(super) started: Ms,
    // membership
    pub(super) known: Vec<Option<Known>>,
    pub(super) record: Arc<NodeRecord>,
    pub(super) beat: u64,
    /// Started on an empty disk.
    pub(super) new: bool,
    pub(super) known_by: Vec<bool>,
    pub(super) book: PeerBook,
    /// Who told what this node held on another disk.
    pub(super) told: BTreeSet<usize>,
    pub(super) view: Arc<ClusterView>,
    pub(super) view_stale: bool,
    pub(super) owning: Arc<ClusterView>,
    looked_at: Arc<ClusterView>,
    owning_changed: bool,
    pub(super) freeze: Freeze,
    pub(super) clock: Arc<ManualClock>,
    pub(super) reach: Reach,
    pub(super) sole: SoleTracker,
    pub(super) zone_sole: SoleTracker,
    // head
    pub(super) head: BlockData,
    pub(super) waiting: Vec<(u64, Waiting)>,
    pub(super) syncing: Option<u64>,
    pub(super) batches: BTreeMap<u64, Batch>,
    pub(super) next_id: u64,
    pub(super) handover: Handover,
    pub(super) loops: BTreeMap<(u64, Slot), u64>,
    // blocks
    pub(super) catalogue: Arc<CatalogueView>,
    pub(super) catalogue_at: Option<Ms>,
    pub(super) loaded: BTreeMap<BlockId, Rc<BlockData>>,
    pub(super) loading: Loading,
    pub(super) unload: Unload,
    pub(super) cutting: Option<Cutting>,
    pub(super) shipping: bool,
    pub(super) shipped_at: Ms,
    pub(super) watch: Watch,
    pub(super) own_watch: Watch,
    pub(super) adopting: Option<Adopting>,
    pub(super) deciding: bool,
    pub(super) finishing: BTreeSet<BlockId>,
    // queries
    pub(super) queries: BTreeMap<u64, Query>,
}

/// Nanoseconds of the cores.
pub(super) fn ns(ms: Ms) -> u64 {
    ms.max(0) as u64 * 1_000_000
}

/// Silence before a log is adopted in the simulation; ten minutes would be the whole run.
const SILENCE_MS: Ms = 90_000;

impl Process {
    /// Starts a process of `generation` on a disk; an empty disk begins a log.
    pub fn start(
        common: Rc<Common>,
        me: usize,
        generation: u64,
        mut disk: Disk,
        rng: Rng,
        wall: Ms,
        mono: Ms,
    ) -> Self {
        let fresh = disk.begin(generation);
        let clock = ManualClock::at(wall);
        let record = Arc::new(NodeRecord { born: disk.born, ..first_record(&common, me, wall) });
        let book = disk.book.take().unwrap_or_else(|| PeerBook::open(Path::new("no-such-place")));
        let sole = SoleTracker::resume(PathBuf::new(), std::mem::take(&mut disk.sole));
        let zone_sole = SoleTracker::resume(PathBuf::new(), std::mem::take(&mut disk.zone_sole));
        let mut p = Self {
            known: (0..common.names.len()).map(|_| None).collect(),
            record,
            beat: 0,
            new: fresh,
            known_by: vec![false; common.names.len()],
            book,
            told: BTreeSet::new(),
            view: Arc::default(),
            view_stale: true,
            owning: Arc::default(),
            looked_at: Arc::default(),
            owning_changed: true,
            freeze: Freeze::default(),
            reach: Reach::new(clock.clone()),
            clock,
            sole,
            zone_sole,
            head: BTreeMap::new(),
            waiting: Vec::new(),
            syncing: None,
            batches: BTreeMap::new(),
            next_id: generation << 20,
            handover: Handover::default(),
            loops: BTreeMap::new(),
            catalogue: Arc::default(),
            catalogue_at: None,
            loaded: BTreeMap::new(),
            loading: Loading::default(),
            unload: Unload::default(),
            cutting: None,
            shipping: false,
            shipped_at: mono,
            watch: Watch::new(ns(SILENCE_MS)),
            own_watch: Watch::new(0),
            adopting: None,
            deciding: false,
            finishing: BTreeSet::new(),
            queries: BTreeMap::new(),
            common,
            me,
            generation,
            rng,
            disk,
            wall,
            mono,
            out: Vec::new(),
            ticks: 0,
            started: mono,
        };
        p.begin();
        p
    }

    fn begin(&mut self) {
        self.replay();
        self.learn_peers();
        self.out.push(Effect::Timer(1, Timer::Tick));
    }

    /// Sets the clocks for the event at hand.
    pub fn at(&mut self, wall: Ms, mono: Ms) {
        if mono > self.mono {
            self.clock.advance_ms((mono - self.mono) as u64);
        }
        self.clock.step_wall_to(wall);
        debug_assert_eq!(self.clock.now_ms(), wall);
        (self.wall, self.mono) = (wall, self.mono.max(mono));
    }

    /// What is to be done after the last event.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out)
    }

    /// The process is gone; its disk stays.
    pub fn end(mut self, rng: &mut Rng) -> Disk {
        self.disk.book = Some(self.book);
        self.disk.sole = self.sole.ranges().to_vec();
        self.disk.zone_sole = self.zone_sole.ranges().to_vec();
        self.disk.crash(rng);
        self.disk
    }

    /// Takes part fully.
    pub fn is_ready(&self) -> bool {
        self.record.state == NodeState::Ready
    }

    /// What it thinks of everybody, for people.
    pub fn scene(&self) -> String {
        let seen = self.view.members.values().map(|m| {
            let (r, head) = (&m.record, &m.record.head);
            let (from, holes) = (head.min_time.map(|t| t - super::types::EPOCH), head.holes.len());
            format!("{} {} {} from {from:?} holes {holes}", m.name, m.shown_state(), r.zone)
        });
        format!("{} sees: {}", self.name(), seen.collect::<Vec<_>>().join("; "))
    }

    /// The disk, for faults.
    pub fn disk_mut(&mut self) -> &mut Disk {
        &mut self.disk
    }

    /// The log on this disk.
    pub(super) fn log_id(&self) -> LogId {
        LogId { node: self.name().to_owned(), log: self.disk.log }
    }

    pub(super) fn name(&self) -> &str {
        &self.common.names[self.me]
    }

    pub(super) fn index_of(&self, name: &str) -> usize {
        self.common.names.iter().position(|n| n == name).expect("BUG: a node without a number")
    }

    pub(super) fn send(&mut self, to: usize, msg: Msg) {
        self.out.push(Effect::Send(to, msg));
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A message arrived.
    pub fn received(&mut self, from: usize, msg: Msg) {
        match msg {
            Msg::Gossip(entries) => self.gossiped(from, &entries),
            Msg::Push { batch, items, one_zone } => self.push(from, batch, &items, one_zone),
            Msg::Pushed { batch, results } => self.pushed(from, batch, &results),
            Msg::Ask { query, seq, scope, series } => self.asked(from, query, seq, &scope, &series),
            Msg::Answered { query, seq, answer, moved } => self.answered(from, query, seq, answer, &moved),
            Msg::Covered { key, slot, since } => {
                let steps = self.handover.covered(key, slot, since);
                self.handover_steps(steps);
            }
            Msg::Recall(generation) => self.recall(from, generation),
            Msg::Remembered { holes, alone } => self.remembered(from, holes, alone),
            Msg::WhichLoaded { blocks } => {
                let blocks = blocks.into_iter().filter(|b| self.loaded.contains_key(b)).collect();
                if self.is_ready() {
                    self.send(from, Msg::Loaded { generation: self.generation, blocks });
                }
            }
            Msg::Loaded { generation, blocks } => {
                let name = self.common.names[from].clone();
                self.unload.reported(ns(self.mono), &name, generation, &blocks);
            }
        }
    }

    /// A message could not be delivered: nobody listens there.
    pub fn bounced(&mut self, to: usize, msg: Msg) {
        match msg {
            Msg::Push { batch, .. } => self.push_lost(to, batch),
            Msg::Ask { query, seq, .. } => self.answered(to, query, seq, Err("is not there"), &[]),
            _ => {}
        }
    }

    /// A timer fired.
    pub fn fired(&mut self, timer: Timer) {
        match timer {
            Timer::Tick => self.tick(),
            Timer::Batch(batch) => self.batch_timeout(batch),
            Timer::Query(query, round) => self.query_timeout(query, round),
            Timer::Scrape(key, slot, epoch, due) => self.scrape(key, slot, epoch, due),
        }
    }

    /// The bucket answered.
    pub fn bucket(&mut self, tag: Tag, done: Done) {
        match tag {
            Tag::Read(query, seq, id) => self.block_read(query, seq, id, done),
            other => self.stored(other, done),
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        self.out.push(Effect::Timer(1_000, Timer::Tick));
        self.follow_membership();
        self.follow_ownership();
        self.follow_storage();
    }

    fn follow_ownership(&mut self) {
        if self.ticks.is_multiple_of(5) || !Arc::ptr_eq(&self.view, &self.looked_at) {
            self.looked_at = self.view.clone();
            let owning = self.freeze.look(ns(self.mono), &self.looked_at);
            self.owning_changed |= !Arc::ptr_eq(&owning, &self.owning);
            self.owning = owning;
        }
        if std::mem::take(&mut self.owning_changed) || self.handover.is_waiting() {
            let owning = self.owning.clone();
            let common = self.common.clone();
            let steps = self.handover.look(ns(self.mono), &owning, 2, &common.targets);
            self.handover_steps(steps);
        }
    }

    /// The series of a target.
    pub(super) fn series_of(&self, target: u64) -> u16 {
        let at = self.common.targets.iter().position(|t| t.key == target);
        SCRAPED + at.expect("BUG: an unknown target") as u16
    }

    pub(super) fn head_insert(&mut self, key: Key, t: Ms, v: f64) {
        self.head.entry(key).or_default().insert(t, v);
    }
}

fn first_record(common: &Common, me: usize, wall: Ms) -> NodeRecord {
    let port = me as u16;
    NodeRecord {
        since: wall,
        bucket: "B".into(),
        ..NodeRecord::new(&common.zones[me], ([127, 0, 0, 1], port).into(), ([127, 0, 0, 1], port).into())
    }
}
