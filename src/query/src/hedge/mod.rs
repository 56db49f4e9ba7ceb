//! When a question is asked a second time elsewhere, because the first holder is late.
//!
//! Owns how long answers took lately, by kind of question; who was late or had no room lately; and the budget for
//! asking twice. `Judge` is pure: times come in, decisions go out. `Hedger` is the node's one judge with a clock and counts.
//! Refuses to know networks and blocks: whom to ask instead says `plan`.
//!
//! Invariants: of all questions at most 5 % are asked twice (and a burst of ten); none when many nodes are late,
//! because then the work itself is too much; never of a node that said it has no room. (The scheme is Dean and
//! Barroso's, "The tail at scale", CACM 2013.)

mod budget;
mod sketch;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use koios_model::Clock;
use parking_lot::Mutex;

pub use budget::Budget;
pub use sketch::Sketch;

/// Share of answer times after which a holder is late, per cent.
const LATE_PERCENT: u32 = 95;
/// Answers before their times are believed.
const SEEN_LEAST: u32 = 20;
/// No holder is late before this, milliseconds: below lies the noise of any machine.
pub const LATE_FLOOR_MS: u64 = 25;
/// Every holder is late after this, milliseconds.
pub const LATE_CAP_MS: u64 = 1_500;
/// While too few answers were seen, milliseconds.
const LATE_UNKNOWN_MS: u64 = 250;
/// A head whose replicas answered is waited for this many times as long as it takes to be late ...
const HEAD_FACTOR: u64 = 8;
/// ... and at least this long, milliseconds: without it the answer rests on the other slot's samples.
const HEAD_FLOOR_MS: u64 = 1_000;
/// Questions asked twice, per cent of all, and at a time.
const HEDGE_PERCENT: u64 = 5;
const HEDGE_BURST: u64 = 10;
/// Questions asked again because a holder had no room, per cent of all, and at a time.
const RETRY_PERCENT: u64 = 10;
const RETRY_BURST: u64 = 20;
/// Late this many times in a row makes a node slow.
const SLOW_AFTER: u32 = 3;
/// How long a node counts as slow, or as without room, after it last was, milliseconds.
const MARK_MS: u64 = 10_000;
/// More slow nodes than this share of all, per cent, and more than one, end hedging.
const SLOW_PERCENT: usize = 20;
/// Most nodes that something is remembered of.
const PEERS_MAX: usize = 4096;

/// What kind of question; each takes its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Series of a head.
    Head,
    /// Series of blocks.
    Blocks,
    /// Names and values of labels.
    Words,
}

/// Why a question is not asked twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Too many were lately.
    Budget,
    /// Too many nodes are late: more work would make it worse.
    Slow,
    /// Nobody with room is left.
    Nobody,
}

impl Denied {
    /// All of them with their names, by number.
    pub const NAMES: [&str; 3] = ["budget", "slow", "nobody"];
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    late: u32,
    slow_until: u64,
    full_until: u64,
}

/// The decisions, without clock or network. All times in milliseconds but those of answers.
#[derive(Debug)]
pub struct Judge {
    times: [Sketch; 3],
    peers: HashMap<String, Peer>,
    hedges: Budget,
    retries: Budget,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            times: Default::default(),
            peers: HashMap::new(),
            hedges: Budget::new(HEDGE_PERCENT, HEDGE_BURST),
            retries: Budget::new(RETRY_PERCENT, RETRY_BURST),
        }
    }
}

impl Judge {
    /// A question is sent.
    pub fn sent(&mut self) {
        self.hedges.earn();
        self.retries.earn();
    }

    /// A holder answered after `us` microseconds.
    pub fn answered(&mut self, peer: &str, class: Class, us: u64) {
        self.times[class as usize].add(us);
        if us <= self.late_after_ms(class) * 1000
            && let Some(p) = self.peers.get_mut(peer)
        {
            (p.late, p.slow_until) = (0, 0);
        }
    }

    /// A holder was late.
    pub fn late(&mut self, peer: &str, now_ms: u64) {
        let p = self.peer(peer);
        p.late = p.late.saturating_add(1);
        if p.late >= SLOW_AFTER {
            p.slow_until = now_ms + MARK_MS;
        }
    }

    /// A holder said that it has no room.
    pub fn full(&mut self, peer: &str, now_ms: u64) {
        self.peer(peer).full_until = now_ms + MARK_MS;
    }

    fn peer(&mut self, name: &str) -> &mut Peer {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(name) {
            self.peers.clear();
        }
        self.peers.entry(name.to_owned()).or_default()
    }

    /// When a holder is late, after the question was sent.
    pub fn late_after_ms(&self, class: Class) -> u64 {
        let times = &self.times[class as usize];
        match times.quantile(LATE_PERCENT) {
            Some(us) if times.seen() >= SEEN_LEAST => us.div_ceil(1000).clamp(LATE_FLOOR_MS, LATE_CAP_MS),
            _ => LATE_UNKNOWN_MS,
        }
    }

    /// How long a head is waited for that others can stand in for.
    pub fn head_patience_ms(&self) -> u64 {
        (self.late_after_ms(Class::Head) * HEAD_FACTOR).max(HEAD_FLOOR_MS)
    }

    /// Whether a node is better asked last.
    pub fn avoid(&self, peer: &str, now_ms: u64) -> bool {
        self.peers.get(peer).is_some_and(|p| p.slow_until > now_ms || p.full_until > now_ms)
    }

    /// Takes from the budget for asking twice; `nodes` is how many there are.
    ///
    /// # Errors
    /// Why not.
    pub fn may_hedge(&mut self, nodes: usize, now_ms: u64) -> Result<(), Denied> {
        let slow = self.peers.values().filter(|p| p.slow_until > now_ms || p.full_until > now_ms).count();
        if slow > 1.max(nodes * SLOW_PERCENT / 100) {
            return Err(Denied::Slow);
        }
        if self.hedges.take() { Ok(()) } else { Err(Denied::Budget) }
    }

    /// Takes from the budget for asking another node because one had no room.
    pub fn may_retry(&mut self) -> bool {
        self.retries.take()
    }
}

/// The judge of this node.
pub struct Hedger {
    judge: Mutex<Judge>,
    clock: Arc<dyn Clock>,
    on: bool,
    /// Questions asked twice.
    pub hedges: AtomicU64,
    /// Questions that the second holder answered first.
    pub won: AtomicU64,
    /// Questions not asked twice, by `Denied`.
    pub denied: [AtomicU64; 3],
    /// Heads not waited for, because replicas answered for them.
    pub heads_left: AtomicU64,
    /// Questions that holders had no room for.
    pub full: AtomicU64,
    /// Questions not put to another holder after that.
    pub retries_denied: AtomicU64,
}

impl Hedger {
    /// A judge that has seen nothing. Without `on` nothing is asked twice; late heads are left all the same.
    pub fn new(clock: Arc<dyn Clock>, on: bool) -> Self {
        Self {
            judge: Mutex::default(),
            clock,
            on,
            hedges: AtomicU64::new(0),
            won: AtomicU64::new(0),
            denied: Default::default(),
            heads_left: AtomicU64::new(0),
            full: AtomicU64::new(0),
            retries_denied: AtomicU64::new(0),
        }
    }

    fn now_ms(&self) -> u64 {
        self.clock.mono_ns() / 1_000_000
    }

    /// A moment to measure from.
    pub(crate) fn now_us(&self) -> u64 {
        self.clock.mono_ns() / 1000
    }

    pub(crate) fn sent(&self) {
        self.judge.lock().sent();
    }

    pub(crate) fn answered(&self, peer: &str, class: Class, asked_us: u64) {
        let took = self.now_us().saturating_sub(asked_us);
        self.judge.lock().answered(peer, class, took);
    }

    pub(crate) fn late(&self, peer: &str) {
        let now = self.now_ms();
        self.judge.lock().late(peer, now);
    }

    /// A holder had no room; whether another may be asked, where there is another (`others`).
    pub(crate) fn full(&self, peer: &str, others: bool) -> bool {
        let now = self.now_ms();
        count(&self.full);
        let mut judge = self.judge.lock();
        judge.full(peer, now);
        if !others {
            return false;
        }
        let may = judge.may_retry();
        if !may {
            count(&self.retries_denied);
        }
        may
    }

    pub(crate) fn late_after(&self, class: Class) -> Duration {
        Duration::from_millis(self.judge.lock().late_after_ms(class))
    }

    pub(crate) fn head_patience(&self) -> Duration {
        Duration::from_millis(self.judge.lock().head_patience_ms())
    }

    /// Whether a node is better asked last.
    pub fn avoid(&self, peer: &str) -> bool {
        let now = self.now_ms();
        self.judge.lock().avoid(peer, now)
    }

    /// Whether a question may be asked twice now; `others` tells whether somebody is left to ask.
    pub(crate) fn may_hedge(&self, nodes: usize, others: bool) -> bool {
        if !self.on {
            return false;
        }
        let now = self.now_ms();
        let answer = if others { self.judge.lock().may_hedge(nodes, now) } else { Err(Denied::Nobody) };
        match answer {
            Ok(()) => count(&self.hedges),
            Err(why) => count(&self.denied[why as usize]),
        }
        answer.is_ok()
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
