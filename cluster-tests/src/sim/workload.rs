//! The users: one writer that keeps what is not acknowledged, one reader that asks anybody anything.
//!
//! The writer sends batches of self-describing samples to random nodes and repeats a batch until it is acknowledged,
//! refused, or a minute old; some batches are bad on purpose. The reader asks random nodes for random ranges; at the
//! end it asks all nodes the same.

use std::collections::BTreeMap;

use koios_cluster::quorum::Verdict;
use koios_model::Slot;

use super::node::value;
use super::oracle::{Asked, CONFLICT};
use super::types::{EPOCH, Ms, ReadAnswer, SCRAPED, Sample, Why};
use super::world::{Event, HEAL, World};

/// Pushed series.
pub const PUSHED: u16 = 6;
/// A batch is repeated for this long.
const KEEP_MS: Ms = 60_000;
/// A writer waits this long for an answer.
const CLIENT_MS: Ms = 15_000;
/// A reader waits this long, and asks another node then.
const READER_MS: Ms = 10_000;

#[derive(Debug)]
struct Writing {
    items: Vec<Sample>,
    since: Ms,
    turn: u32,
}

#[derive(Debug)]
struct Asking {
    node: usize,
    series: Vec<u16>,
    range: (Ms, Ms),
    asked: Asked,
    turn: usize,
}

/// What the users have under way.
#[derive(Debug, Default)]
pub struct Workload {
    writing: BTreeMap<u64, Writing>,
    asking: BTreeMap<u64, Asking>,
    next: u64,
    finale: Vec<Vec<Vec<(Ms, u64)>>>,
    due: usize,
    started: bool,
}

impl World {
    /// The writer makes a batch.
    pub(super) fn writer(&mut self) {
        let pause = self.rng.within(1_000, 3_500);
        self.after(pause, Event::Writer);
        let mut items = Vec::new();
        for _ in 0..self.rng.within(1, 5) {
            let series = self.rng.below(u64::from(PUSHED)) as u16;
            let late = if self.rng.chance(15) { self.rng.within(0, 40_000) } else { 0 };
            let t = EPOCH + self.now - late;
            let s = match self.rng.below(40) {
                0 => Sample { key: (series, Slot(0)), t: t + 3_600_000, v: value(series, t + 3_600_000) },
                1 => match self.oracle.conflict(series, t) {
                    Some(s) => s,
                    None => continue,
                },
                _ => Sample { key: (series, Slot(0)), t, v: value(series, t) },
            };
            let twice = items.iter().any(|i: &Sample| i.key == s.key && i.t == s.t);
            if !twice && (s.v == CONFLICT || self.oracle.sends(&s)) {
                items.push(s);
            }
        }
        if items.is_empty() {
            return;
        }
        self.work.next += 1;
        let id = self.work.next;
        self.work.writing.insert(id, Writing { items, since: self.now, turn: 0 });
        self.write(id);
    }

    /// Sends a batch to somebody.
    pub(super) fn write(&mut self, id: u64) {
        let nodes = self.machines.len() as u64;
        let node = self.rng.below(nodes) as usize;
        let Some(w) = self.work.writing.get_mut(&id) else { return };
        if self.now - w.since > KEEP_MS {
            self.work.writing.remove(&id);
            return;
        }
        w.turn += 1;
        let (turn, items) = (w.turn, w.items.clone());
        // The client's number and the try: an answer to a try that was given up is still an answer.
        let there = self.with(node, None, Event::Retry(id), |p| p.client_write(id, items));
        let wait = if there { CLIENT_MS } else { 500 };
        self.after(wait, Event::GiveUp(id, turn));
    }

    /// No answer to this try.
    pub(super) fn give_up(&mut self, id: u64, turn: u32) {
        if self.work.writing.get(&id).is_some_and(|w| w.turn == turn) {
            self.write(id);
        }
    }

    /// An answer to a write.
    pub(super) fn wrote(&mut self, id: u64, verdict: Option<Verdict<Why>>) {
        let Some(w) = self.work.writing.get(&id) else { return };
        let Some(v) = verdict.filter(|v| !v.is_retryable()) else {
            let (pause, turn) = (self.rng.within(300, 1_500), w.turn);
            self.after(pause, Event::GiveUp(id, turn));
            return;
        };
        let kept = |i: usize| !v.refused.iter().any(|(at, _)| *at as usize == i);
        let acked: Vec<Sample> =
            w.items.iter().enumerate().filter(|(i, _)| kept(*i)).map(|(_, s)| *s).collect();
        self.work.writing.remove(&id);
        self.oracle.counts.refused += u64::from(!v.refused.is_empty());
        self.oracle.acked(self.now, &acked, &self.plan);
        self.ack_seen();
    }

    /// The reader asks.
    pub(super) fn reader(&mut self) {
        let pause = self.rng.within(2_000, 5_000);
        self.after(pause, Event::Reader);
        let now = EPOCH + self.now;
        let range = match self.rng.below(4) {
            0 => (EPOCH, now),
            1 => (now - self.rng.within(1_000, 40_000), now),
            _ => {
                let from = self.rng.within(EPOCH, now);
                (from, self.rng.within(from, now) + 1)
            }
        };
        let one = |w: &mut World| match w.rng.below(4) {
            0 => SCRAPED + w.rng.below(2) as u16,
            _ => w.rng.below(u64::from(PUSHED)) as u16,
        };
        let (a, b) = (one(self), one(self));
        let mut series = vec![a, b];
        series.sort_unstable();
        series.dedup();
        let nodes = self.machines.len() as u64;
        let node = self.rng.below(nodes) as usize;
        self.ask(node, series, range, 1);
    }

    /// Asks a node; a try that finds nobody, or is not answered in time, goes to the next; a late answer is judged too.
    /// `turn` 0 is the question at the end, without a second try.
    fn ask(&mut self, node: usize, series: Vec<u16>, range: (Ms, Ms), turn: usize) {
        self.work.next += 1;
        let id = self.work.next;
        let walls = self.machines.iter().map(|m| m.clocks.at(self.now).0);
        let asked = Asked { at: self.now, slowest_clock: walls.min().unwrap_or(i64::MAX) };
        let asking = Asking { node, series: series.clone(), range, asked, turn };
        self.work.asking.insert(id, asking);
        if !self.with(node, None, Event::Retry(0), |p| p.client_read(id, series, range)) {
            self.ask_next(id);
        } else if turn > 0 {
            self.after(READER_MS, Event::Impatient(id));
        }
    }

    fn ask_next(&mut self, id: u64) {
        self.impatient(id);
        self.work.asking.remove(&id);
    }

    /// Nobody waits for this answer any more.
    pub(super) fn impatient(&mut self, id: u64) {
        let nodes = self.machines.len();
        let Some(q) = self.work.asking.get_mut(&id) else { return };
        let turn = std::mem::replace(&mut q.turn, nodes);
        if (1..nodes).contains(&turn) {
            let (node, series, range) = ((q.node + 1) % nodes, q.series.clone(), q.range);
            self.ask(node, series, range, turn + 1);
        }
    }

    /// An answer to a question.
    pub(super) fn answer(&mut self, id: u64, answer: Result<ReadAnswer, &'static str>) {
        let Some(q) = self.work.asking.get(&id) else { return };
        let last = q.turn == 0;
        match answer {
            Ok(a) => {
                let q = self.work.asking.remove(&id).expect("BUG: a question that vanished");
                self.oracle.answer(self.now, q.asked, q.node, &q.series, q.range, &a);
                if last {
                    self.oracle.healed(q.node, &a);
                    let bits = a.series.iter().map(|s| s.iter().map(|(t, v)| (*t, v.to_bits())).collect());
                    self.work.finale.push(bits.collect());
                }
            }
            Err(why) if last => self.oracle.broken(format!("P6: after healing node {} {why}", q.node)),
            Err(_) => self.ask_next(id),
        }
    }

    /// Two minutes after the last fault: everybody answers the same question, whole and alike.
    pub(super) fn finale(&mut self) {
        if std::mem::replace(&mut self.work.started, true) {
            let answers = std::mem::take(&mut self.work.finale);
            if answers.len() != self.work.due {
                let (got, due) = (answers.len(), self.work.due);
                self.oracle.broken(format!("P6: {got} of {due} nodes answered after healing"));
            }
            if let Some(w) = answers.windows(2).find(|w| w[0] != w[1]) {
                let lens: Vec<usize> = w.iter().flat_map(|a| a.iter().map(Vec::len)).collect();
                self.oracle.broken(format!("P3: two nodes answer the same question differently: {lens:?}"));
            }
            if self.oracle.last_ack < self.now - 20_000 {
                self.oracle.broken(format!("P6: no write since {}", self.oracle.last_ack));
            }
            let common = self.common.clone();
            let (now, first) = (self.now, self.common.first);
            self.oracle.slots_are_whole(&common, &self.plan, now - 30_000, first);
            return;
        }
        let series: Vec<u16> = (0..PUSHED).chain(SCRAPED..SCRAPED + 2).collect();
        self.work.due = self.machines.len();
        for node in 0..self.machines.len() {
            self.ask(node, series.clone(), (EPOCH, EPOCH + HEAL + 60_000), 0);
        }
        self.after(6_500, Event::Finale);
    }
}
