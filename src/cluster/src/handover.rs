//! Who scrapes a slot of a target, through every change of owner. Pure.
//!
//! A new owner starts on the view change and, after its first stored scrape, tells the old one since when the slot is
//! covered. The old one goes on until it is told, or until two intervals and ten seconds after the new owner was
//! first seen ready: scraping twice costs nothing, a gap cannot be mended. An owner that dies takes no loop
//! with it; whoever owns the slot in the next view starts.
//!
//! Invariant: a loop ends with stale markers only when its target left discovery, never because of a move.

use std::collections::BTreeMap;
use std::sync::Arc;

use koios_model::Slot;

use crate::balance::Moves;
use crate::ownership::owners;
use crate::view::{ClusterView, Member};

/// How long the last owner goes on after it lost a slot, milliseconds.
pub fn linger_ms(interval_ms: i64) -> i64 {
    2 * interval_ms.max(0) + 10_000
}

/// The node of each slot of the target with `key`: slot `i` belongs to the `i`-th node in rank order over distinct
/// zones. There are never more slots than nodes.
pub fn slot_owners(view: &ClusterView, key: u64, replicas: u8) -> Vec<Arc<Member>> {
    let candidates = view.ready("scrape");
    let wanted = usize::from(replicas.clamp(1, Slot::MAX)).min(candidates.len());
    owners(&candidates, key, wanted)
}

/// A target as far as ownership is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Hash of the target.
    pub key: u64,
    /// Time between scrapes, milliseconds.
    pub interval_ms: i64,
}

/// What to do with a loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start scraping.
    Start {
        /// Target.
        key: u64,
        /// Slot.
        slot: Slot,
    },
    /// Stop scraping.
    Stop {
        /// Target.
        key: u64,
        /// Slot.
        slot: Slot,
        /// Write stale markers: the target is gone, not only moved.
        mark_stale: bool,
    },
    /// Tell `to` that the slot is scraped here from `since_ms` on; the answer of `to` is not waited for.
    Tell {
        /// Node name.
        to: String,
        /// Target.
        key: u64,
        /// Slot.
        slot: Slot,
        /// Scheduled time of the first scrape that was stored here, wall-clock milliseconds.
        since_ms: i64,
    },
}

#[derive(Debug)]
struct Loop {
    interval_ms: i64,
    /// Who had the slot before, until it is told.
    tell: Option<String>,
    /// The slot is another's now, and this loop ends at this time at the latest, monotonic nanoseconds.
    ends_ns: Option<u64>,
    /// Scheduled time of the last scrape stored here.
    last_ms: Option<i64>,
    /// The new owner has covered the slot since then.
    covered_ms: Option<i64>,
}

/// The loops of one node.
#[derive(Debug, Default)]
pub struct Handover {
    loops: BTreeMap<(u64, Slot), Loop>,
    owners: BTreeMap<(u64, Slot), String>,
}

impl Handover {
    /// As `look_with` when no slot is with another than its owner by rank.
    pub fn look(&mut self, now_ns: u64, view: &ClusterView, replicas: u8, targets: &[Wanted]) -> Vec<Step> {
        self.look_with(now_ns, view, replicas, targets, &Moves::default())
    }

    /// Takes a new view (the one ownership goes by), new targets, new moves, or just the time. To be called at every
    /// change and about once a second while `is_waiting`; also before this node is ready, so that it knows who was before
    /// it.
    pub fn look_with(
        &mut self,
        now_ns: u64,
        view: &ClusterView,
        replicas: u8,
        targets: &[Wanted],
        moves: &Moves,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut known: BTreeMap<u64, i64> = BTreeMap::new();
        let mut owners: BTreeMap<(u64, Slot), String> = BTreeMap::new();
        for t in targets {
            known.insert(t.key, t.interval_ms);
            for (i, m) in slot_owners(view, t.key, replicas).iter().enumerate() {
                let slot = Slot(i as u8);
                owners.insert((t.key, slot), moves.holder(t.key, slot, &m.name).to_owned());
            }
        }
        self.loops.retain(|&(key, slot), l| {
            let Some(interval_ms) = known.get(&key) else {
                steps.push(Step::Stop { key, slot, mark_stale: true });
                return false;
            };
            l.interval_ms = *interval_ms;
            if owners.get(&(key, slot)).is_some_and(|o| *o == view.me) {
                (l.ends_ns, l.covered_ms) = (None, None);
                return true;
            }
            l.tell = None;
            let linger_ns = linger_ms(l.interval_ms) as u64 * 1_000_000;
            let ends_ns = *l.ends_ns.get_or_insert(now_ns + linger_ns);
            let goes_on = now_ns < ends_ns && !l.is_relieved();
            if !goes_on {
                steps.push(Step::Stop { key, slot, mark_stale: false });
            }
            goes_on
        });
        for (&(key, slot), owner) in owners.iter().filter(|(_, o)| **o == view.me) {
            let before = self.owners.get(&(key, slot)).filter(|b| *b != owner).cloned();
            let interval_ms = known[&key];
            self.loops.entry((key, slot)).or_insert_with(|| {
                steps.push(Step::Start { key, slot });
                Loop { interval_ms, tell: before, ends_ns: None, last_ms: None, covered_ms: None }
            });
        }
        self.owners = owners;
        steps
    }

    /// A scrape of a loop was stored, with its scheduled time.
    pub fn stored(&mut self, key: u64, slot: Slot, due_ms: i64) -> Vec<Step> {
        let Some(l) = self.loops.get_mut(&(key, slot)) else { return Vec::new() };
        l.last_ms = Some(due_ms);
        match l.tell.take() {
            Some(to) => vec![Step::Tell { to, key, slot, since_ms: due_ms }],
            None => self.relieve(key, slot),
        }
    }

    /// A peer says that it has covered the slot since `since_ms`. Believed only of a slot that is not this
    /// node's by its own view; a view that is late makes it scrape twice, not never.
    pub fn covered(&mut self, key: u64, slot: Slot, since_ms: i64) -> Vec<Step> {
        if let Some(l) = self.loops.get_mut(&(key, slot)) {
            l.covered_ms = Some(l.covered_ms.map_or(since_ms, |t| t.min(since_ms)));
        }
        self.relieve(key, slot)
    }

    /// The loops that run, those that linger included.
    pub fn running(&self) -> impl Iterator<Item = (u64, Slot)> + '_ {
        self.loops.keys().copied()
    }

    /// Whether some loop only lingers.
    pub fn is_waiting(&self) -> bool {
        self.loops.values().any(|l| l.ends_ns.is_some())
    }

    /// Whether a loop only goes on until another node has taken over.
    pub fn lingers(&self, key: u64, slot: Slot) -> bool {
        self.loops.get(&(key, slot)).is_some_and(|l| l.ends_ns.is_some())
    }

    fn relieve(&mut self, key: u64, slot: Slot) -> Vec<Step> {
        if self.loops.get(&(key, slot)).is_some_and(Loop::is_relieved) {
            self.loops.remove(&(key, slot));
            return vec![Step::Stop { key, slot, mark_stale: false }];
        }
        Vec::new()
    }
}

impl Loop {
    /// The slot is another's, and its first scrape follows the last one here without one missing between.
    fn is_relieved(&self) -> bool {
        let Some(since) = self.covered_ms.filter(|_| self.ends_ns.is_some()) else { return false };
        self.last_ms.is_none_or(|last| last.saturating_add(self.interval_ms) >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::NodeState;
    use crate::ownership::tests::member;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;
    const ALL: [&str; 4] = ["a", "b", "c", "d"];

    fn view(me: &str, ready: &[&str]) -> ClusterView {
        let members = ALL.map(|n| {
            let mut m = member(n, n, 1);
            if !ready.contains(&n) {
                m.record.state = NodeState::Joining;
            }
            (n.to_owned(), Arc::new(m))
        });
        ClusterView { me: me.into(), members: members.into(), ..ClusterView::default() }
    }

    fn target(key: u64) -> [Wanted; 1] {
        [Wanted { key, interval_ms: 15_000 }]
    }

    /// A key whose slot 0 moves from a to b when b joins.
    fn moving() -> u64 {
        (0..).find(|k| slot_owners(&view("a", &["a", "b"]), *k, 1)[0].name == "b").unwrap()
    }

    #[test]
    fn the_old_owner_goes_on_until_it_is_told() {
        let (key, slot) = (moving(), Slot(0));
        let (mut a, mut b) = (Handover::default(), Handover::default());
        assert_eq!(a.look(0, &view("a", &["a"]), 1, &target(key)), [Step::Start { key, slot }]);
        assert_eq!(b.look(0, &view("b", &["a"]), 1, &target(key)), []);
        assert_eq!(a.stored(key, slot, 1_000), []);
        assert_eq!(b.look(S, &view("b", &["a", "b"]), 1, &target(key)), [Step::Start { key, slot }]);
        assert_eq!(a.look(S, &view("a", &["a", "b"]), 1, &target(key)), []);
        assert!(a.is_waiting());
        let tell = b.stored(key, slot, 31_000);
        assert_eq!(tell, [Step::Tell { to: "a".into(), key, slot, since_ms: 31_000 }]);
        assert_eq!(a.covered(key, slot, 31_000), [], "the scrape at 16,000 is still to be done");
        assert_eq!(a.stored(key, slot, 16_000), [Step::Stop { key, slot, mark_stale: false }]);
        assert_eq!(b.stored(key, slot, 46_000), [], "told once");
    }

    #[test]
    fn the_old_owner_stops_by_itself_and_takes_a_slot_back() {
        let (key, slot) = (moving(), Slot(0));
        let mut a = Handover::default();
        a.look(0, &view("a", &["a"]), 1, &target(key));
        assert_eq!(a.look(S, &view("a", &["a", "b"]), 1, &target(key)), []);
        assert_eq!(a.look(30 * S, &view("a", &["a"]), 1, &target(key)), [], "it came back");
        assert_eq!(a.covered(key, slot, 1), [], "what is its own is not given up on hearsay");
        assert_eq!(a.look(31 * S, &view("a", &["a"]), 1, &target(key)), [], "and the hearsay is forgotten");
        assert_eq!(a.look(40 * S, &view("a", &["a", "b"]), 1, &target(key)), []);
        assert_eq!(a.look(79 * S, &view("a", &["a", "b"]), 1, &target(key)), []);
        let stop = [Step::Stop { key, slot, mark_stale: false }];
        assert_eq!(a.look(80 * S, &view("a", &["a", "b"]), 1, &target(key)), stop);
    }

    #[test]
    fn only_a_vanished_target_is_marked_stale() {
        let mut a = Handover::default();
        a.look(0, &view("a", &["a"]), 2, &target(5));
        let stop = [Step::Stop { key: 5, slot: Slot(0), mark_stale: true }];
        assert_eq!(a.look(S, &view("a", &["a"]), 2, &[]), stop);
        assert_eq!(a.running().count(), 0);
    }

    proptest! {
        /// Nodes come and go; every owner by everybody's view runs, a loop stops unmarked, and only after the
        /// slot was covered or its time was over.
        #[test]
        fn owners_always_run(sets in proptest::collection::vec(1u8..16, 1..20), key in any::<u64>()) {
            let mut nodes = ALL.map(|_| Handover::default());
            for (i, set) in sets.iter().enumerate() {
                let now = i as u64 * 7 * S;
                let ready: Vec<&str> =
                    ALL.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1).map(|(_, n)| *n).collect();
                for (n, h) in nodes.iter_mut().enumerate() {
                    let v = view(ALL[n], &ready);
                    for step in h.look(now, &v, 2, &target(key)) {
                        let marked = matches!(step, Step::Stop { mark_stale: true, .. });
                        prop_assert!(!marked);
                    }
                    for (i, m) in slot_owners(&v, key, 2).iter().enumerate() {
                        if m.name == ALL[n] {
                            prop_assert!(h.running().any(|r| r == (key, Slot(i as u8))));
                        }
                    }
                }
            }
        }
    }
}
