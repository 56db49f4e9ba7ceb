//! Writing in the simulation: pushed batches through placement and quorum, scrapes through handover, both into the log.

use std::collections::BTreeMap;
use std::rc::Rc;

use koios_cluster::handover::Step;
use koios_cluster::quorum::{Quorum, Send, Stored, Verdict};
use koios_cluster::replicas;
use koios_model::Slot;

use super::node::{Bug, Process, value};
use super::types::{Effect, Key, Ms, Msg, Note, Sample, Timer, Why};

/// A replica is slow after this long.
const REPLICA_MS: Ms = 2_000;
/// Samples that are older are refused.
pub(super) const WINDOW_MS: Ms = 60_000;
/// Samples that are further ahead are refused.
const FUTURE_MS: Ms = 600_000;

/// Who waits for a sync.
#[derive(Clone, Debug)]
pub enum Waiting {
    /// A replica's answer.
    Push { to: usize, batch: u64, results: Vec<(u32, Stored<Why>)> },
    /// A scrape.
    Scrape { target: u64, key: Key, due: Ms },
}

/// A batch that this node distributes.
#[derive(Debug)]
pub struct Batch {
    quorum: Quorum<Why>,
    items: Vec<Sample>,
    client: u64,
    asked: BTreeMap<usize, Ms>,
    one_zone: bool,
    /// For a planted bug: requests that brought some success.
    successes: usize,
}

impl Process {
    /// Everything that is on disk, into memory.
    pub(super) fn replay(&mut self) {
        for r in self.disk.durable.clone() {
            self.head_insert(r.sample.key, r.sample.t, r.sample.v);
        }
    }

    /// A client writes.
    pub fn client_write(&mut self, client: u64, items: Vec<Sample>) {
        if !self.is_ready() {
            self.out.push(Effect::Wrote(client, None));
            return;
        }
        let ring = replicas::ring(&self.view, self.wall);
        let usable =
            |m: &koios_cluster::Member| m.is_ready() && !self.reach.is_ejected(&m.name, m.generation);
        let placed = items.iter().map(|s| {
            let key = replicas::series_key("", &self.common.labels[&s.key.0]);
            replicas::place(&ring, key, &usable)
        });
        let (quorum, sends) = Quorum::new(placed.collect());
        let batch = self.fresh_id();
        let (asked, one_zone) = (BTreeMap::new(), !replicas::outlives_a_zone(&ring));
        self.batches.insert(batch, Batch { quorum, items, client, asked, one_zone, successes: 0 });
        self.out.push(Effect::Timer(REPLICA_MS, Timer::Batch(batch)));
        self.request(batch, sends);
        self.conclude(batch);
    }

    fn request(&mut self, id: u64, sends: Vec<Send>) {
        let now = self.mono;
        for s in sends {
            let to = self.index_of(&s.node.name);
            let Some(batch) = self.batches.get_mut(&id) else { return };
            batch.asked.insert(to, now);
            let items = s.series.iter().map(|i| (*i, batch.items[*i as usize])).collect();
            let one_zone = batch.one_zone;
            self.send(to, Msg::Push { batch: id, items: Rc::new(items), one_zone });
        }
    }

    pub(super) fn pushed(&mut self, from: usize, id: u64, results: &[(u32, Stored<Why>)]) {
        let name = self.common.names[from].clone();
        if let Some(k) = &self.known[from] {
            self.reach.answered(&name, k.entry.generation);
        }
        let Some(batch) = self.batches.get_mut(&id) else { return };
        batch.asked.remove(&from);
        batch.successes += usize::from(results.iter().any(|(_, r)| *r == Stored::Yes));
        let sends = batch.quorum.replied(&name, results);
        self.request(id, sends);
        self.conclude(id);
    }

    pub(super) fn push_lost(&mut self, to: usize, id: u64) {
        let name = self.common.names[to].clone();
        if let Some(k) = &self.known[to] {
            self.reach.failed(&name, k.entry.generation);
        }
        let Some(batch) = self.batches.get_mut(&id) else { return };
        batch.asked.remove(&to);
        let sends = batch.quorum.lost(&name);
        self.request(id, sends);
        self.conclude(id);
    }

    pub(super) fn batch_timeout(&mut self, id: u64) {
        let Some(batch) = self.batches.get(&id) else { return };
        let late: Vec<usize> = batch
            .asked
            .iter()
            .filter(|(_, since)| self.mono - **since >= REPLICA_MS - 1)
            .map(|(n, _)| *n)
            .collect();
        late.into_iter().for_each(|n| self.push_lost(n, id));
        if self.batches.contains_key(&id) {
            self.out.push(Effect::Timer(REPLICA_MS / 4, Timer::Batch(id)));
        }
    }

    fn conclude(&mut self, id: u64) {
        let Some(batch) = self.batches.get(&id) else { return };
        let mut verdict = batch.quorum.verdict();
        let good = |s: &Sample| s.v == value(s.key.0, s.t) && s.t <= self.wall + FUTURE_MS;
        if self.common.bug == Bug::QuorumPerRequest && batch.successes >= 2 && batch.items.iter().all(good) {
            let stored = batch.items.len();
            verdict = Some(Verdict { stored, refused: Vec::new(), unavailable: Vec::new() });
        }
        if let Some(v) = verdict {
            self.out.push(Effect::Wrote(batch.client, Some(v)));
            self.batches.remove(&id);
        }
    }

    /// A peer (or this node itself) wants samples stored here.
    pub(super) fn push(&mut self, from: usize, batch: u64, items: &[(u32, Sample)], one_zone: bool) {
        let ready = self.is_ready();
        let times = || items.iter().map(|(_, s)| s.t);
        if let (true, Some(first), Some(last)) = (one_zone && ready, times().min(), times().max()) {
            self.zone_sole.ensure(first, last);
        }
        let results: Vec<(u32, Stored<Why>)> =
            items.iter().map(|(i, s)| (*i, if ready { self.take(*s) } else { Stored::Failed })).collect();
        let waits = results.iter().any(|(_, r)| *r == Stored::Yes);
        if !waits || self.common.bug == Bug::AckBeforeSync {
            self.send(from, Msg::Pushed { batch, results });
            self.sync();
        } else {
            self.waiting.push((self.disk.next_lsn, Waiting::Push { to: from, batch, results }));
            self.sync();
        }
    }

    fn take(&mut self, s: Sample) -> Stored<Why> {
        if s.t > self.wall + FUTURE_MS {
            return Stored::Refused(Why::Future);
        }
        match self.head.get(&s.key).and_then(|c| c.get(&s.t)) {
            Some(v) if v.to_bits() == s.v.to_bits() => return Stored::Yes,
            Some(_) => return Stored::Refused(Why::Conflict),
            None => {}
        }
        let newest = self.head.get(&s.key).and_then(|c| c.keys().last());
        if s.t < self.disk.refuse_before || newest.is_some_and(|n| s.t < n - WINDOW_MS) {
            return Stored::Refused(Why::TooOld);
        }
        match self.disk.append(s) {
            Some(_) => {
                self.head_insert(s.key, s.t, s.v);
                Stored::Yes
            }
            None => Stored::Failed,
        }
    }

    /// Starts a sync unless one is under way; that one's end starts the next.
    pub(super) fn sync(&mut self) {
        if self.syncing.is_none() && (!self.waiting.is_empty() || !self.disk.pending.is_empty()) {
            self.syncing = Some(self.disk.next_lsn);
            self.out.push(Effect::Sync);
        }
    }

    /// The disk has synced. After a failure nobody who waits is told of success, and the process should end.
    pub fn synced(&mut self) -> bool {
        let Some(upto) = self.syncing.take() else { return true };
        let worked = self.disk.synced(upto);
        let (done, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(lsn, _)| !worked || *lsn <= upto);
        self.waiting = rest;
        for (_, w) in done {
            match w {
                Waiting::Push { to, batch, results } if worked => {
                    self.send(to, Msg::Pushed { batch, results })
                }
                Waiting::Push { to, batch, results } => {
                    let results = results.into_iter().map(|(i, _)| (i, Stored::Failed)).collect();
                    self.send(to, Msg::Pushed { batch, results });
                }
                Waiting::Scrape { target, key, due } if worked => {
                    self.out.push(Effect::Note(Note::Scraped(key, due, value(key.0, due))));
                    let steps = self.handover.stored(target, key.1, due);
                    self.handover_steps(steps);
                }
                Waiting::Scrape { .. } => {}
            }
        }
        self.sync();
        worked
    }

    pub(super) fn handover_steps(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Start { key, slot } => {
                    let epoch = self.fresh_id();
                    self.loops.insert((key, slot), epoch);
                    self.arm_scrape(key, slot, epoch);
                }
                Step::Stop { key, slot, mark_stale } => {
                    assert!(!mark_stale, "P2: a handover of {key} wrote stale markers");
                    self.loops.remove(&(key, slot));
                }
                Step::Tell { to, key, slot, since_ms } => {
                    let to = self.index_of(&to);
                    self.send(to, Msg::Covered { key, slot, since: since_ms });
                }
            }
        }
    }

    /// The next scheduled time after now, the same on every node.
    fn arm_scrape(&mut self, key: u64, slot: Slot, epoch: u64) {
        let Some(target) = self.common.targets.iter().find(|t| t.key == key) else { return };
        let due = scheduled_after(key, target.interval_ms, self.wall);
        self.out.push(Effect::Timer(due - self.wall, Timer::Scrape(key, slot, epoch, due)));
    }

    pub(super) fn scrape(&mut self, target: u64, slot: Slot, epoch: u64, due: Ms) {
        if self.loops.get(&(target, slot)) != Some(&epoch) {
            return;
        }
        let series = self.series_of(target);
        let key = (series, slot);
        let known = self.head.get(&key).and_then(|c| c.keys().last()).copied();
        if due >= self.disk.refuse_before && known.is_none_or(|k| k < due) {
            let v = value(series, due);
            if self.disk.append(Sample { key, t: due, v }).is_some() {
                self.head_insert(key, due, v);
                let waiting = Waiting::Scrape { target, key, due };
                self.waiting.push((self.disk.next_lsn, waiting));
                self.sync();
            }
        }
        self.arm_scrape(target, slot, epoch);
    }
}

/// The first scheduled time of a target after `now`.
pub(super) fn scheduled_after(key: u64, interval: Ms, now: Ms) -> Ms {
    let offset = (key % interval as u64) as i64;
    (now - offset).div_euclid(interval) * interval + interval + offset
}
