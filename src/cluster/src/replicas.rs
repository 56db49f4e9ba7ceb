//! Who stores a pushed series: replica set, quorum, spill-over. Pure.
//!
//! The key of a series is a hash of tenant and labels. Its replicas are the best nodes by rendezvous, distinct
//! zones first; the factor is three, or the size of a smaller ring. The ring is everybody who should be there
//! (dead ones too, until they are forgotten), so that a lost node lowers what is available and never what is
//! demanded. A replica that cannot take writes now is replaced by the next in rank, in its own zone first.
//!
//! Invariant: what this module calls placed can reach its quorum in as many distinct zones as were demanded.

use std::sync::Arc;

use koios_model::{Code, Coded, Labels};
use xxhash_rust::xxh64::xxh64;

use crate::ownership::ranked;
use crate::view::{ClusterView, Liveness, Member};

/// Most copies of a pushed series.
pub const FACTOR_MAX: usize = 3;
/// How long a dead node still counts for the ring, milliseconds: as long as gossip remembers it.
pub const RING_GRACE_MS: i64 = 600_000;

/// Key of a series of a tenant.
pub fn series_key(tenant: &str, labels: &Labels) -> u64 {
    xxh64(tenant.as_bytes(), labels.hash64())
}

/// Copies wanted on a ring of `nodes`.
pub fn factor(nodes: usize) -> usize {
    nodes.min(FACTOR_MAX)
}

/// Copies that make a success: a majority, but one of two, or a pair would stop with either node.
pub fn quorum(factor: usize) -> usize {
    if factor == 2 { 1 } else { factor / 2 + 1 }
}

/// Distinct zones that a success of `copies` copies spans when the ring has `zones`: a majority, but one of two, for the
/// same reason. Placement still puts a copy into each.
pub fn zone_quorum(copies: usize, zones: usize) -> usize {
    quorum(factor(zones)).min(copies).max(1)
}

/// Zones of a ring from which on a success lies in two of them.
pub const ZONES_SAFE: usize = 3;

/// Whether what is acknowledged on this ring outlives any one of its zones.
pub fn outlives_a_zone(ring: &[Arc<Member>]) -> bool {
    zone_quorum(quorum(factor(ring.len())), zones_of(ring)) > 1
}

/// Everybody with role `receive` who should be there: in any state but left, dead for `RING_GRACE_MS` at most.
pub fn ring(view: &ClusterView, now_ms: i64) -> Vec<Arc<Member>> {
    let counts = |m: &Member| match m.liveness {
        Liveness::Alive => true,
        Liveness::Dead { since } => m.shown_state() != "left" && now_ms - since < RING_GRACE_MS,
    };
    view.members.values().filter(|m| m.record.roles.has("receive") && counts(m)).cloned().collect()
}

/// Whether a node that is new to `ring` (itself included) may turn ready: more than half of the ring know of it. Behind a
/// cut a new node could otherwise make a quorum with a minority, and the majority, who never heard of it, would miss
/// only one known node and call its answers whole. `knows` tells who has said that it sees the new node.
pub fn is_known(ring: &[Arc<Member>], me: &str, knows: &dyn Fn(&Member) -> bool) -> bool {
    let count = ring.iter().filter(|m| m.name == me || knows(m)).count();
    // Who is not in the ring keeps no copies.
    2 * count > ring.len() || ring.iter().all(|m| m.name != me)
}

/// Where one series goes.
#[derive(Clone, Debug)]
pub struct Replicas {
    /// Asked first, best first.
    pub nodes: Vec<Arc<Member>>,
    /// Asked when one of `nodes` fails, best first.
    pub spares: Vec<Arc<Member>>,
    /// Nodes that must have stored a sample before it is acknowledged.
    pub quorum: usize,
    /// Distinct zones that those nodes must lie in.
    pub zones: usize,
}

impl Replicas {
    /// Whether copies on `nodes` are enough to acknowledge.
    pub fn satisfied<'a>(&self, nodes: impl Iterator<Item = &'a Arc<Member>>) -> bool {
        let mut count = 0;
        let mut zones: Vec<&str> = Vec::with_capacity(FACTOR_MAX);
        for m in nodes {
            count += 1;
            if !zones.contains(&m.record.zone.as_str()) {
                zones.push(&m.record.zone);
            }
        }
        count >= self.quorum && zones.len() >= self.zones
    }
}

/// Too few nodes or zones take writes; sending again later may succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{usable} of {ring} nodes in {zones} zones take writes, a write needs {quorum} in {zones_needed} distinct zones; \
     send again later, or see /cluster for what is wrong with the others"
)]
pub struct Unavailable {
    /// Nodes of the ring.
    pub ring: usize,
    /// Nodes that take writes.
    pub usable: usize,
    /// Zones of those.
    pub zones: usize,
    /// Nodes needed.
    pub quorum: usize,
    /// Zones needed.
    pub zones_needed: usize,
}

impl Coded for Unavailable {
    fn code(&self) -> Code {
        Code::Unavailable
    }
}

/// Places a series with `key` on `ring`; `usable` tells who takes writes now (ready, reachable, not full).
///
/// # Errors
/// When fewer usable nodes or zones are left than a quorum needs.
pub fn place(
    ring: &[Arc<Member>],
    key: u64,
    usable: &dyn Fn(&Member) -> bool,
) -> Result<Replicas, Unavailable> {
    let order = ranked(ring, key);
    let wanted = factor(ring.len());
    let quorum = quorum(wanted).max(1);
    let zones_needed = zone_quorum(quorum, zones_of(&order));
    let ideal = ideal(&order, wanted);
    let (mut rest, mut nodes): (Vec<Arc<Member>>, Vec<Option<Arc<Member>>>) = (Vec::new(), Vec::new());
    for m in &order {
        if usable(m) && !ideal.iter().any(|i| i.name == m.name) {
            rest.push(m.clone());
        }
    }
    for m in &ideal {
        nodes.push(usable(m).then(|| m.clone()));
    }
    for at in 0..ideal.len() {
        if nodes[at].is_none() {
            let held: Vec<Arc<Member>> = nodes.iter().flatten().cloned().collect();
            nodes[at] = next_spare(&mut rest, &ideal[at].record.zone, &held);
        }
    }
    let set =
        Replicas { nodes: nodes.into_iter().flatten().collect(), spares: rest, quorum, zones: zones_needed };
    if set.satisfied(set.nodes.iter().chain(&set.spares)) {
        return Ok(set);
    }
    let usable: Vec<Arc<Member>> = set.nodes.iter().chain(&set.spares).cloned().collect();
    Err(Unavailable {
        ring: ring.len(),
        usable: usable.len(),
        zones: zones_of(&usable),
        quorum,
        zones_needed,
    })
}

/// Takes the spare that stands in best for a node of `zone` beside `held`: of the same zone, else of a zone that
/// holds nothing yet, else any; in rank order each.
pub(crate) fn next_spare(
    spares: &mut Vec<Arc<Member>>,
    zone: &str,
    held: &[Arc<Member>],
) -> Option<Arc<Member>> {
    let same = || spares.iter().position(|m| m.record.zone == zone);
    let fresh = || spares.iter().position(|m| held.iter().all(|h| h.record.zone != m.record.zone));
    let at = same().or_else(fresh).or(if spares.is_empty() { None } else { Some(0) })?;
    Some(spares.remove(at))
}

fn ideal(order: &[Arc<Member>], wanted: usize) -> Vec<Arc<Member>> {
    let mut chosen: Vec<Arc<Member>> = Vec::with_capacity(wanted);
    for distinct in [true, false] {
        for m in order {
            let taken =
                chosen.iter().any(|c| c.name == m.name || (distinct && c.record.zone == m.record.zone));
            if chosen.len() < wanted && !taken {
                chosen.push(m.clone());
            }
        }
    }
    chosen
}

fn zones_of(nodes: &[Arc<Member>]) -> usize {
    let mut zones: Vec<&str> = nodes.iter().map(|m| m.record.zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    zones.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::owners;
    use crate::ownership::tests::member;
    use proptest::prelude::*;

    fn nodes(zones: &[&str]) -> Vec<Arc<Member>> {
        zones.iter().enumerate().map(|(i, z)| Arc::new(member(&format!("n{i}"), z, 1))).collect()
    }

    fn names(list: &[Arc<Member>]) -> Vec<&str> {
        list.iter().map(|m| m.name.as_str()).collect()
    }

    #[test]
    fn factor_and_quorum_follow_the_size_of_the_ring() {
        let table: Vec<(usize, usize)> = (1..6).map(|n| (factor(n), quorum(factor(n)))).collect();
        assert_eq!(table, [(1, 1), (2, 1), (3, 2), (3, 2), (3, 2)]);
        assert!(place(&[], 1, &|_| true).is_err());
    }

    #[test]
    fn a_healthy_ring_gives_its_owners() {
        let ring = nodes(&["a", "a", "b", "b", "c"]);
        for key in 0..200 {
            let set = place(&ring, key, &|_| true).unwrap();
            assert_eq!(names(&set.nodes), names(&owners(&ring, key, 3)));
            assert_eq!((set.quorum, set.zones, set.spares.len()), (2, 2, 2));
        }
    }

    #[test]
    fn the_next_of_the_same_zone_stands_in_and_a_lost_zone_is_not_demanded_less() {
        let ring = nodes(&["a", "a", "b", "b", "c", "c"]);
        for key in 0..200 {
            let best = place(&ring, key, &|_| true).unwrap().nodes[0].clone();
            let set = place(&ring, key, &|m| m.name != best.name).unwrap();
            assert_eq!(set.nodes[0].record.zone, best.record.zone);
            assert_ne!(set.nodes[0].name, best.name);
        }
        assert!(place(&ring, 1, &|m| m.record.zone != "a").is_ok());
        let why = place(&ring, 1, &|m| m.record.zone == "c").unwrap_err();
        assert_eq!((why.usable, why.zones, why.quorum, why.zones_needed), (2, 1, 2, 2));
        assert_eq!(why.code(), Code::Unavailable);
        let two_zones = nodes(&["a", "a", "b"]);
        assert!(place(&two_zones, 1, &|m| m.record.zone == "a").is_ok(), "one of two zones goes on");
        let one_zone = nodes(&["a", "a", "a"]);
        let set = place(&one_zone, 1, &|m| m.name != "n0").unwrap();
        assert_eq!((set.nodes.len(), set.zones), (2, 1));
        assert!(place(&one_zone, 1, &|m| m.name == "n0").is_err(), "one copy of three is not enough");
        assert!(place(&nodes(&["a", "b"]), 1, &|m| m.name == "n0").is_ok(), "one of a pair is");
    }

    #[test]
    fn three_zones_outlive_one_of_them() {
        let outlives = |zones: &[&str]| outlives_a_zone(&nodes(zones));
        assert!(outlives(&["a", "b", "c"]) && outlives(&["a", "a", "b", "b", "c"]));
        assert!(!outlives(&["a", "a", "b", "b"]) && !outlives(&["a", "b"]) && !outlives(&["", "", ""]));
        assert!(!outlives(&[]));
        let fewest = (1..6).find(|n| outlives(&["a", "b", "c", "d", "e"][..*n]));
        assert_eq!(fewest, Some(ZONES_SAFE));
    }

    #[test]
    fn the_dead_count_until_they_are_forgotten() {
        let mut members = nodes(&["a", "b", "c", "d"]).iter().map(|m| (**m).clone()).collect::<Vec<_>>();
        members[0].liveness = Liveness::Dead { since: 1_000 };
        members[1].liveness = Liveness::Dead { since: 1_000 };
        members[1].record.state = crate::keys::NodeState::Leaving;
        let members = members.into_iter().map(|m| (m.name.clone(), Arc::new(m))).collect();
        let view = ClusterView { members, ..ClusterView::default() };
        assert_eq!(names(&ring(&view, 2_000)), ["n0", "n2", "n3"]);
        assert_eq!(names(&ring(&view, 1_000 + RING_GRACE_MS)), ["n2", "n3"]);
    }

    #[test]
    fn a_new_node_is_known_by_more_than_half() {
        let all = nodes(&["a", "a", "a", "a"]);
        assert!(is_known(&all[..1], "n0", &|_| false), "the first of a cluster");
        assert!(is_known(&[], "n0", &|_| false) && is_known(&all[1..], "n0", &|_| false), "not in the ring");
        assert!(is_known(&all[..2], "n0", &|m| m.name == "n1"));
        assert!(!is_known(&all[..2], "n0", &|_| false));
        assert!(!is_known(&all, "n0", &|m| m.name == "n1"), "two of four");
        assert!(is_known(&all, "n0", &|m| m.name != "n3"));
    }

    proptest! {
        #[test]
        fn placed_means_reachable_and_distinct(
            zones in proptest::collection::vec(0u8..4, 1..8), down in any::<u8>(), key in any::<u64>(),
        ) {
            let text: Vec<String> = zones.iter().map(|z| format!("z{z}")).collect();
            let ring = nodes(&text.iter().map(String::as_str).collect::<Vec<_>>());
            let up = |m: &Member| down >> m.name[1..].parse::<u8>().unwrap() & 1 == 0;
            let alive: Vec<_> = ring.iter().filter(|m| up(m)).cloned().collect();
            let (w, all_zones) = (quorum(factor(ring.len())), zones_of(&ring));
            let possible = alive.len() >= w && zones_of(&alive) >= zone_quorum(w, all_zones);
            match place(&ring, key, &up) {
                Ok(set) => {
                    prop_assert!(possible);
                    let mut all = names(&set.nodes);
                    all.extend(names(&set.spares));
                    all.sort_unstable();
                    let count = all.len();
                    all.dedup();
                    prop_assert_eq!(all.len(), count);
                    prop_assert_eq!(count, alive.len());
                    prop_assert_eq!(set.nodes.len(), factor(ring.len()).min(alive.len()));
                    prop_assert!(set.satisfied(set.nodes.iter()) || !set.spares.is_empty());
                }
                Err(_) => prop_assert!(!possible),
            }
        }
    }
}
