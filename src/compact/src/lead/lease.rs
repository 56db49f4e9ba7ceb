//! Who works on a group: a chain of numbered objects, each created once.
//!
//! `_koios/lease/<group>/<term>` says who holds the lease of that number; the highest counts. Its holder proves that it
//! goes on by overwriting `<term>.hb` with a growing count; nobody else writes there. Nobody compares clocks: who waits
//! judges by its own monotonic clock how long term and count have not changed, and the holder stops by its own well before
//! that. A lease saves work and nothing more: two who believe in theirs lose nothing but time.

use serde::{Deserialize, Serialize};

/// Folder of all chains.
pub const FOLDER: &str = "_koios/lease";
/// How long a holder may be silent, milliseconds, unless told otherwise.
pub const TTL_MS: u64 = 60_000;
/// Terms of a chain that are kept.
pub const KEPT: usize = 16;
/// Ending of the object that the holder overwrites.
const BEAT: &str = ".hb";

/// Folder of a chain.
pub fn folder(group: &str) -> String {
    format!("{FOLDER}/{group}")
}

/// Path of a term.
pub fn key(group: &str, term: u64) -> String {
    format!("{FOLDER}/{group}/{term:020}")
}

/// Path of its sign of life.
pub fn beat_key(group: &str, term: u64) -> String {
    format!("{}{BEAT}", key(group, term))
}

/// Group and term of a path; `None` for a sign of life and for anything else.
pub fn term_of(path: &str) -> Option<(&str, u64)> {
    let (group, number) = path.strip_prefix(FOLDER)?.strip_prefix('/')?.split_once('/')?;
    Some((group, number.parse().ok().filter(|_| number.len() == 20)?))
}

/// What lies under a term. The nonce tells the creator whose answer was lost that it was the one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Name of the holder.
    pub owner: String,
    /// Generation of its process.
    pub generation: u64,
    /// Made up for this attempt.
    pub nonce: u64,
    /// How long it may be silent, milliseconds.
    pub ttl_ms: u64,
    /// The group, for people.
    pub about: String,
}

/// A sign of life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beat {
    /// Grows.
    pub count: u64,
    /// The holder has let go.
    pub released: bool,
    /// What it does, for people.
    pub job: String,
    /// Samples it has written so far under this lease.
    pub samples: u64,
}

/// What is seen of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Highest number.
    pub term: u64,
    /// What lies there.
    pub lease: Lease,
    /// The last sign of life; `None` before the first.
    pub beat: Option<Beat>,
}

impl Seen {
    fn free(&self) -> bool {
        self.beat.as_ref().is_some_and(|b| b.released)
    }
}

/// Watches one chain.
#[derive(Debug, Default)]
pub struct Watch {
    last: Option<(Option<Seen>, u64)>,
}

impl Watch {
    /// Takes what the bucket says at monotonic `now_ns`. The number to create, when the lease is free or its holder was silent
    /// for one and a half times what it may. `wait_ns` is how long this node lets others go first: a hint.
    pub fn look(&mut self, now_ns: u64, seen: Option<Seen>, wait_ns: u64) -> Option<u64> {
        let changed = self.last.as_ref().is_none_or(|(last, _)| *last != seen);
        let since = if changed { now_ns } else { self.last.as_ref().map_or(now_ns, |(_, since)| *since) };
        let silence_ns = match &seen {
            Some(s) if !s.free() => s.lease.ttl_ms.saturating_mul(1_500_000),
            _ => 0,
        };
        let next = seen.as_ref().map_or(1, |s| s.term + 1);
        self.last = Some((seen, since));
        (now_ns.saturating_sub(since) >= silence_ns.saturating_add(wait_ns)).then_some(next)
    }
}

/// A lease from its holder's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub term: u64,
    ttl_ns: u64,
    /// When the last renewal that succeeded was begun, monotonic.
    begun_ns: u64,
}

impl Held {
    /// Just created, by a request begun at `begun_ns`.
    pub fn new(term: u64, ttl_ms: u64, begun_ns: u64) -> Self {
        Self { term, ttl_ns: ttl_ms.saturating_mul(1_000_000), begun_ns }
    }

    /// Whether anything may be begun: four fifths of the time have not passed since the last success was begun.
    pub fn may_act(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.begun_ns) < self.ttl_ns / 5 * 4
    }

    /// Time between renewals, nanoseconds.
    pub fn renew_every_ns(&self) -> u64 {
        self.ttl_ns / 3
    }

    /// A renewal begun at `begun_ns` has succeeded.
    pub fn renewed(&mut self, begun_ns: u64) {
        self.begun_ns = self.begun_ns.max(begun_ns);
    }

    /// Whether it is still the highest of the numbers that a list shows. A number can be created twice when its first
    /// object was cleared away meanwhile, so the holder looks after creating, and with every renewal.
    pub fn is_highest(&self, terms: &[u64]) -> bool {
        terms.iter().all(|t| *t <= self.term)
    }
}

/// Terms that are cleared away: all but the highest.
pub fn stale(terms: &[u64]) -> Vec<u64> {
    let mut sorted = terms.to_vec();
    sorted.sort_unstable();
    sorted.truncate(sorted.len().saturating_sub(KEPT));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn seen(term: u64, count: u64, released: bool) -> Option<Seen> {
        let lease =
            Lease { owner: "n".into(), generation: 1, nonce: term, ttl_ms: TTL_MS, about: String::new() };
        let beat = Some(Beat { count, released, ..Beat::default() });
        Some(Seen { term, lease, beat })
    }

    #[test]
    fn paths_go_there_and_back() {
        let path = key("abc", 7);
        assert_eq!(path, "_koios/lease/abc/00000000000000000007");
        assert_eq!(term_of(&path), Some(("abc", 7)));
        for no in [beat_key("abc", 7), folder("abc"), "_koios/lease/abc/7".into(), "x".into()] {
            assert_eq!(term_of(&no), None, "{no}");
        }
    }

    #[test]
    fn a_silent_holder_is_waited_for_by_the_own_clock() {
        let mut w = Watch::default();
        assert_eq!(w.look(100 * S, seen(4, 1, false), 0), None);
        assert_eq!(w.look(189 * S, seen(4, 1, false), 0), None);
        assert_eq!(w.look(189 * S, seen(4, 2, false), 0), None, "a sign of life");
        assert_eq!(w.look(278 * S, seen(4, 2, false), 0), None);
        assert_eq!(w.look(279 * S, seen(4, 2, false), 10 * S), None, "another one is first");
        assert_eq!(w.look(279 * S, seen(4, 2, false), 0), Some(5));
        assert_eq!(w.look(280 * S, seen(5, 0, false), 0), None, "another one was");
    }

    #[test]
    fn a_free_lease_is_taken_in_turn() {
        let mut w = Watch::default();
        assert_eq!(w.look(0, None, 0), Some(1));
        assert_eq!(w.look(0, None, 10 * S), None);
        assert_eq!(w.look(10 * S, None, 10 * S), Some(1));
        assert_eq!(w.look(11 * S, seen(1, 9, true), 10 * S), None);
        assert_eq!(w.look(21 * S, seen(1, 9, true), 10 * S), Some(2));
    }

    #[test]
    fn a_holder_stops_before_others_begin() {
        let mut h = Held::new(3, TTL_MS, 100 * S);
        assert!(h.may_act(148 * S - 1) && !h.may_act(148 * S));
        h.renewed(120 * S);
        assert!(h.may_act(167 * S) && !h.may_act(168 * S), "from when the renewal was begun");
        h.renewed(90 * S);
        assert!(h.may_act(167 * S), "an old answer changes nothing");
        assert!(h.is_highest(&[1, 2, 3]) && !h.is_highest(&[3, 4]));
        assert_eq!(h.renew_every_ns(), 20 * S);
    }

    #[test]
    fn sixteen_terms_are_kept() {
        let all: Vec<u64> = (1..=20).rev().collect();
        assert_eq!(stale(&all), [1, 2, 3, 4]);
        assert!(stale(&all[..16]).is_empty());
    }
}
