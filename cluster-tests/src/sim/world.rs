//! The world of one seed: a queue of events in virtual time, one thread, no clock.
//!
//! Everything that happens is an event with a time and a number; equal times go by number, so a seed has one history. The
//! trace is a hash over that history. Nodes get events with their own clocks and give effects, which become events.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use koios_cluster::handover::Wanted;
use koios_model::Labels;

use super::bucket::Bucket;
use super::disk::Disk;
use super::faults::{self, Planned};
use super::net::{MAX, Net};
use super::node::{Bug, Clocks, Common, Process};
use super::oracle::Oracle;
use super::rng::Rng;
use super::types::{Done, Effect, Ms, Msg, Op, SCRAPED, Tag, Timer};
use super::workload::{PUSHED, Workload};

/// Length of a run.
pub const END: Ms = 600_000;
/// Everything is mended by then; two minutes later everything must work.
pub const HEAL: Ms = 475_000;

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    Timer(usize, u64, Timer),
    Deliver(usize, usize, Msg),
    Bounce(usize, u64, usize, Msg),
    Synced(usize, u64),
    Apply(usize, u64, Op, Tag),
    Replied(usize, u64, Tag, Done),
    Begin(usize),
    End(usize),
    Start(usize),
    Heal,
    Writer,
    Retry(u64),
    GiveUp(u64, u32),
    Impatient(u64),
    Reader,
    Look,
    Finale,
}

/// One machine.
pub(super) struct Machine {
    pub process: Option<Process>,
    pub disk: Option<Disk>,
    pub clocks: Clocks,
    /// Counts processes, so that what was meant for an old one does not reach a new one.
    pub life: u64,
    pub paused_until: Ms,
    /// The machine belongs to the cluster by now.
    pub joined: bool,
    /// Faults that keep it down.
    pub held: u32,
}

/// Nodes and zones; node `i` is in zone `i` modulo their number.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Nodes of the first configuration.
    pub first: usize,
    /// Those and the ones that join.
    pub nodes: usize,
    /// Zones.
    pub zones: usize,
}

/// A world.
pub struct World {
    pub(super) now: Ms,
    number: u64,
    queue: BinaryHeap<Reverse<(Ms, u64, usize)>>,
    slab: Vec<Option<Event>>,
    free: Vec<usize>,
    pub(super) rng: Rng,
    pub(super) common: Rc<Common>,
    pub(super) machines: Vec<Machine>,
    pub(super) net: Net,
    pub(super) bucket: Bucket,
    pub(super) oracle: Oracle,
    pub(super) plan: Vec<Planned>,
    pub(super) work: Workload,
    /// Crashes that wait for an acknowledgement: number of the fault.
    pub(super) armed: Vec<usize>,
    /// Crashes that happened and hold machines down.
    pub(super) struck: Vec<usize>,
    pub(super) trace: u64,
    pub(super) events: u64,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, bug: Bug) -> Self {
        let mut rng = Rng::new(seed);
        let first = rng.pick(&[1, 2, 3, 3, 3, 4, 5, 5, 6]);
        let late = if first >= 3 { rng.below(2) as usize } else { 0 };
        let nodes = first + late;
        let zones = rng.within(1, 4).min(first as i64).max(1) as usize;
        let plan = faults::plan(&mut rng, nodes);
        Self::made(seed, rng, Shape { first, nodes, zones }, plan, bug)
    }

    /// A world that is known beforehand but for its chances.
    pub fn drawn(seed: u64, shape: Shape, plan: Vec<Planned>) -> Self {
        Self::made(seed, Rng::new(seed), shape, plan, Bug::None)
    }

    fn made(seed: u64, mut rng: Rng, shape: Shape, plan: Vec<Planned>, bug: Bug) -> Self {
        let Shape { first, nodes, zones } = shape;
        let targets = (0..2).map(|_| Wanted { key: rng.next(), interval_ms: 15_000 }).collect();
        let series = (0..PUSHED).chain(SCRAPED..SCRAPED + 2);
        let labels =
            series.map(|s| (s, Labels::from_pairs([("__name__", format!("s{s}").as_str())]))).collect();
        let common = Common {
            names: (0..nodes).map(|i| format!("n{i}")).collect(),
            zones: (0..nodes).map(|i| format!("z{}", i % zones)).collect(),
            first,
            targets,
            labels,
            bug,
        };
        assert!(nodes <= MAX, "BUG: too many nodes");
        let machines = (0..nodes)
            .map(|_| Machine {
                process: None,
                disk: Some(Disk::default()),
                clocks: Clocks { drift_ppm: rng.within(-10_000, 10_000), skew: rng.within(-1_500, 1_500) },
                life: 0,
                paused_until: 0,
                joined: false,
                held: 0,
            })
            .collect();
        let mut world = Self {
            now: 0,
            number: 0,
            queue: BinaryHeap::new(),
            slab: Vec::new(),
            free: Vec::new(),
            rng,
            common: Rc::new(common),
            machines,
            net: Net::default(),
            bucket: Bucket::default(),
            oracle: Oracle::default(),
            plan,
            work: Workload::default(),
            armed: Vec::new(),
            struck: Vec::new(),
            trace: seed,
            events: 0,
        };
        world.oracle.zones.clone_from(&world.common.zones);
        world.schedule();
        world
    }

    fn schedule(&mut self) {
        for node in 0..self.machines.len() {
            let late = node >= self.common.first;
            let at = if late { self.rng.within(120_000, 260_000) } else { self.rng.within(0, 500) };
            self.after(at, Event::Start(node));
        }
        for (i, p) in self.plan.clone().into_iter().enumerate() {
            self.after(p.at, Event::Begin(i));
            self.after(p.ends, Event::End(i));
        }
        self.after(HEAL, Event::Heal);
        self.after(12_000, Event::Writer);
        self.after(15_000, Event::Reader);
        self.after(20_000, Event::Look);
        self.after(END - 8_000, Event::Finale);
    }

    /// Something happens in `delay` milliseconds.
    pub(super) fn after(&mut self, delay: Ms, event: Event) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slab[slot] = Some(event);
                slot
            }
            None => {
                self.slab.push(Some(event));
                self.slab.len() - 1
            }
        };
        self.number += 1;
        self.queue.push(Reverse((self.now + delay.max(0), self.number, slot)));
    }

    /// Runs to the end or to the first broken promise.
    pub fn run(&mut self) {
        while let Some(Reverse((at, number, slot))) = self.queue.pop() {
            if at > END || !self.oracle.violations.is_empty() {
                return;
            }
            self.now = at;
            let event = self.slab[slot].take().expect("BUG: an empty event");
            self.free.push(slot);
            self.events += 1;
            let mark = (at as u64) << 32 ^ number << 8 ^ event.code();
            self.trace = (self.trace ^ mark).wrapping_mul(0x100_0000_01b3).rotate_left(29);
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Timer(n, life, timer) => {
                self.with(n, Some(life), Event::Timer(n, life, timer), |p| p.fired(timer));
            }
            Event::Deliver(from, to, msg) => self.deliver(from, to, msg),
            Event::Bounce(n, life, to, msg) => {
                self.with(n, Some(life), Event::Bounce(n, life, to, msg.clone()), |p| p.bounced(to, msg));
            }
            Event::Synced(n, life) => self.synced(n, life),
            Event::Apply(n, life, op, tag) => self.apply(n, life, op, tag),
            Event::Replied(n, life, tag, done) => {
                let again = Event::Replied(n, life, tag.clone(), done.clone());
                self.with(n, Some(life), again, |p| p.bucket(tag, done));
            }
            Event::Begin(i) => self.begin(i),
            Event::End(i) => self.end(i),
            Event::Start(n) => self.start(n),
            Event::Heal => self.heal(),
            Event::Writer => self.writer(),
            Event::Retry(id) => self.write(id),
            Event::GiveUp(id, turn) => self.give_up(id, turn),
            Event::Impatient(id) => self.impatient(id),
            Event::Reader => self.reader(),
            Event::Look => {
                self.oracle.flows(self.now, &self.plan, self.machines.len());
                self.after(1_000, Event::Look);
            }
            Event::Finale => self.finale(),
        }
    }

    /// Hands an event to the process of a machine, with its clocks; `again` comes when the process was paused.
    pub(super) fn with(
        &mut self,
        n: usize,
        life: Option<u64>,
        again: Event,
        f: impl FnOnce(&mut Process),
    ) -> bool {
        let m = &mut self.machines[n];
        if life.is_some_and(|l| l != m.life) {
            return false;
        }
        let Some(p) = &mut m.process else { return false };
        if self.now < m.paused_until {
            let wait = m.paused_until - self.now;
            self.after(wait, again);
            return true;
        }
        let (wall, mono) = m.clocks.at(self.now);
        p.at(wall, mono);
        f(p);
        let effects = p.effects();
        self.take_effects(n, effects);
        true
    }

    fn take_effects(&mut self, n: usize, effects: Vec<Effect>) {
        let life = self.machines[n].life;
        for e in effects {
            match e {
                Effect::Send(to, msg) if to == n => self.after(0, Event::Deliver(n, n, msg)),
                Effect::Send(to, msg) => {
                    for delay in self.net.fate(n, to, &mut self.rng).into_iter().flatten() {
                        self.after(delay, Event::Deliver(n, to, msg.clone()));
                    }
                }
                Effect::Timer(ms, timer) => {
                    let delay = self.machines[n].clocks.stretch(ms);
                    self.after(delay.max(1), Event::Timer(n, life, timer));
                }
                Effect::Sync => {
                    let slow = self.machines[n].process.as_mut().map_or(1, |p| p.disk_mut().slow.max(1));
                    let delay = self.rng.within(1, 12) * slow;
                    self.after(delay, Event::Synced(n, life));
                }
                Effect::Bucket(op, tag) => {
                    // Loading a block is not one request.
                    let more = if matches!(tag, Tag::Load(_)) { self.rng.within(0, 12_000) } else { 0 };
                    let delay = more + self.rng.within(2, 40) * self.bucket.slow.max(1);
                    self.after(delay, Event::Apply(n, life, op, tag));
                }
                Effect::Wrote(client, verdict) => self.wrote(client, verdict),
                Effect::Read(client, answer) => self.answer(client, answer),
                Effect::Note(note) => {
                    self.oracle.noted(self.now, n, note, &self.bucket, self.machines.len());
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, msg: Msg) {
        let again = Event::Deliver(from, to, msg.clone());
        let bounced = matches!(msg, Msg::Push { .. } | Msg::Ask { .. }).then(|| msg.clone());
        let there = self.with(to, None, again, |p| p.received(from, msg));
        if let Some(msg) = bounced.filter(|_| !there && self.net.is_open(to, from)) {
            let life = self.machines[from].life;
            let delay = self.rng.within(1, 4);
            self.after(delay, Event::Bounce(from, life, to, msg));
        }
    }

    fn synced(&mut self, n: usize, life: u64) {
        let mut worked = true;
        self.with(n, Some(life), Event::Synced(n, life), |p| worked = p.synced());
        if !worked {
            // The log is closed for good: the process ends and is started again.
            self.kill(n);
            self.after(3_000, Event::Start(n));
        }
    }

    fn apply(&mut self, n: usize, life: u64, op: Op, tag: Tag) {
        let failed = self.bucket.down || self.rng.chance(self.bucket.conflicts);
        let stale = self.rng.chance(self.bucket.stale_lists);
        let mut done = if failed { Done::Failed } else { self.bucket.apply(op, stale) };
        let mut delay = self.rng.within(2, 40) * self.bucket.slow.max(1);
        if self.rng.chance(self.bucket.lost_replies) {
            (done, delay) = (Done::Failed, 3_000);
        }
        self.after(delay, Event::Replied(n, life, tag, done));
    }

    /// A machine starts its process, unless it runs or a fault keeps it down.
    pub(super) fn start(&mut self, n: usize) {
        let m = &mut self.machines[n];
        m.joined = true;
        if m.process.is_some() || m.held > 0 {
            return;
        }
        m.life += 1;
        let (wall, mono) = m.clocks.at(self.now);
        let disk = m.disk.take().unwrap_or_default();
        let generation = (self.now as u64 + 1) << 16 | m.life << 4 | n as u64;
        let rng = Rng::new(self.rng.next());
        m.process = Some(Process::start(self.common.clone(), n, generation, disk, rng, wall, mono));
        let effects = m.process.as_mut().map(Process::effects).unwrap_or_default();
        self.take_effects(n, effects);
    }

    /// A process ends without a word.
    pub(super) fn kill(&mut self, n: usize) {
        let m = &mut self.machines[n];
        m.life += 1;
        m.paused_until = 0;
        if let Some(p) = m.process.take() {
            m.disk = Some(p.end(&mut self.rng));
            self.oracle.ended(self.now, n);
        }
    }
}

impl Event {
    fn code(&self) -> u64 {
        match self {
            Event::Timer(n, ..) => *n as u64,
            Event::Deliver(from, to, _) => 16 + (*from * MAX + *to) as u64,
            Event::Bounce(n, ..) => 96 + *n as u64,
            Event::Synced(n, _) => 112 + *n as u64,
            Event::Apply(n, ..) => 128 + *n as u64,
            Event::Replied(n, ..) => 144 + *n as u64,
            Event::Begin(i) | Event::End(i) => 160 + *i as u64,
            Event::Start(n) => 200 + *n as u64,
            Event::Heal | Event::Look | Event::Finale => 220,
            Event::Writer | Event::Reader => 221,
            Event::Retry(id) | Event::GiveUp(id, _) | Event::Impatient(id) => 222 + *id,
        }
    }
}
