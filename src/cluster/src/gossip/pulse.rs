//! Whose heart beats: by the heartbeat counters that gossip carries.
//!
//! A node is alive after three different counters, for as long as the failure detector allows it to be silent, which
//! follows how often news of it came before. A burst of news (a start of many nodes) would make that very short and a
//! busy second look like a death, so there is a floor of six intervals, and a ceiling of fifteen.
//!
//! A process that was replaced a moment ago is still called alive for some intervals, while its successor already is. Its
//! counter, however, stands still. Two lives of one name whose counters both go on growing are two processes: somebody
//! copied a disk or gave a name twice. Pure; as many entries as gossip has identities.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use chitchat::ChitchatId;

/// A heart is believed after this many intervals of beats.
pub const BELIEF_INTERVALS: u32 = 4;
/// Distinct counters that must have been seen by then.
const BEATS_MIN: u32 = 4;
/// A counter that has not grown for this many intervals stands still.
const SILENCE_INTERVALS: u32 = 3;

/// Counters that grew before a node is believed to live: news of a dead one may come in twice.
const ALIVE_BEATS: u32 = 2;
/// Silence that is always allowed, and silence that never is, in intervals.
const SILENT_MIN: u32 = 6;
const SILENT_MAX: u32 = 15;

struct Pulse {
    counter: u64,
    first_ns: u64,
    last_ns: u64,
    beats: u32,
}

/// Another process with the name of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Where it gossips.
    pub gossip: SocketAddr,
    /// Its generation; the younger of two processes has the higher one.
    pub generation: u64,
    /// Whether this node is the younger one, which has to give way.
    pub i_am_second: bool,
}

/// Counters of all identities, as they grow.
#[derive(Default)]
pub struct Pulses {
    seen: HashMap<ChitchatId, Pulse>,
}

impl Pulses {
    /// Takes the counter of an identity at monotonic `now_ns`.
    pub fn observe(&mut self, id: &ChitchatId, counter: u64, now_ns: u64) {
        match self.seen.get_mut(id) {
            Some(p) if counter > p.counter => {
                (p.counter, p.last_ns) = (counter, now_ns);
                p.beats = p.beats.saturating_add(1);
            }
            Some(_) => {}
            None => {
                let first = Pulse { counter, first_ns: now_ns, last_ns: now_ns, beats: 0 };
                self.seen.insert(id.clone(), first);
            }
        }
    }

    /// Whether an identity lives; `allowed` is the failure detector's limit for its silence.
    pub fn is_live(
        &mut self,
        id: &ChitchatId,
        allowed: Option<Duration>,
        interval: Duration,
        now_ns: u64,
    ) -> bool {
        let (least, most) = (interval * SILENT_MIN, interval * SILENT_MAX);
        let allowed = allowed.unwrap_or(least).clamp(least, most).as_nanos() as u64;
        self.seen.get_mut(id).is_some_and(|p| {
            if now_ns.saturating_sub(p.last_ns) > allowed {
                // Who returns proves itself again.
                (p.beats, p.first_ns) = (0, p.last_ns);
            }
            p.beats >= ALIVE_BEATS
        })
    }

    /// Forgets identities that gossip has forgotten.
    pub fn keep(&mut self, known: impl Fn(&ChitchatId) -> bool) {
        self.seen.retain(|id, _| known(id));
    }

    /// Whether the counter has grown for a while and still does.
    pub fn beats(&self, id: &ChitchatId, interval: Duration, now_ns: u64) -> bool {
        let ns = interval.as_nanos() as u64;
        self.seen.get(id).is_some_and(|p| {
            p.beats >= BEATS_MIN
                && p.last_ns - p.first_ns > u64::from(BELIEF_INTERVALS) * ns
                && now_ns.saturating_sub(p.last_ns) < u64::from(SILENCE_INTERVALS) * ns
        })
    }

    /// Names behind which more than one address beats; this node is one of them at `own`.
    pub fn doubles(
        &self,
        own: &ChitchatId,
        interval: Duration,
        now_ns: u64,
    ) -> Vec<(ChitchatId, ChitchatId)> {
        let mut beating: Vec<&ChitchatId> = self
            .seen
            .keys()
            .filter(|id| *id != own && self.beats(id, interval, now_ns))
            .chain([own])
            .collect();
        beating.sort();
        let same = |a: &ChitchatId, b: &ChitchatId| {
            a.node_id == b.node_id && a.gossip_advertise_addr != b.gossip_advertise_addr
        };
        beating.windows(2).filter(|w| same(w[0], w[1])).map(|w| (w[0].clone(), w[1].clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const INTERVAL: Duration = Duration::from_secs(1);

    fn id(name: &str, generation: u64, port: u16) -> ChitchatId {
        ChitchatId::new(name, generation, ([127, 0, 0, 1], port).into())
    }

    #[test]
    fn only_a_counter_that_goes_on_growing_is_another_process() {
        let me = id("a", 2, 2);
        let (before, clone) = (id("a", 1, 1), id("a", 1, 3));
        let mut pulses = Pulses::default();
        for t in 0..10 {
            pulses.observe(&clone, 100 + t, t * S);
            // The replaced process: news of its last beats comes in for two rounds.
            pulses.observe(&before, 100 + t.min(2), t * S);
            let doubles = pulses.doubles(&me, INTERVAL, t * S);
            assert_eq!(doubles.len(), usize::from(t > 4), "at {t}: {doubles:?}");
        }
        assert_eq!(pulses.doubles(&me, INTERVAL, 9 * S), [(clone.clone(), me.clone())]);
        assert!(pulses.doubles(&me, INTERVAL, 13 * S).is_empty(), "it has gone silent");
        pulses.keep(|known| *known != clone);
        assert!(!pulses.beats(&clone, INTERVAL, 9 * S));
    }

    #[test]
    fn a_node_lives_from_its_third_counter_until_it_is_silent_for_long() {
        let (a, mut pulses) = (id("a", 1, 1), Pulses::default());
        let quick = Some(Duration::from_millis(100));
        for (t, live) in [(0, false), (1, false), (2, true)] {
            pulses.observe(&a, 10 + t, t * S);
            assert_eq!(pulses.is_live(&a, quick, INTERVAL, t * S), live, "at {t}");
        }
        assert!(pulses.is_live(&a, quick, INTERVAL, 8 * S), "a quick one may be silent for six intervals");
        assert!(!pulses.is_live(&a, quick, INTERVAL, 8 * S + 1));
        pulses.observe(&a, 20, 9 * S);
        assert!(!pulses.is_live(&a, quick, INTERVAL, 9 * S), "one sign may be an old one");
        pulses.observe(&a, 21, 10 * S);
        let slow = Some(Duration::from_secs(100));
        assert!(
            pulses.is_live(&a, slow, INTERVAL, 25 * S) && !pulses.is_live(&a, slow, INTERVAL, 25 * S + 1)
        );
        assert!(!pulses.is_live(&id("b", 1, 1), None, INTERVAL, 0));
    }

    #[test]
    fn another_name_or_the_same_address_is_no_double() {
        let me = id("a", 2, 2);
        let mut pulses = Pulses::default();
        for t in 0..10 {
            pulses.observe(&id("b", 1, 3), t, t * S);
            pulses.observe(&id("a", 1, 2), t, t * S);
        }
        assert!(pulses.doubles(&me, INTERVAL, 9 * S).is_empty());
    }
}
