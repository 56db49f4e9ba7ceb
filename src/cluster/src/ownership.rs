//! Who owns a key: weighted rendezvous hashing, distinct zones first.
//!
//! Each node draws a score for each key; the best scores own it. A node that comes or goes moves only the
//! keys it gains or loses (Thaler and Ravishankar, 1998; the weighted form is -w / ln u). Pure: every node
//! with the same view computes the same owners.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::view::Member;

/// Candidates in descending score for `key`.
pub fn ranked(candidates: &[Arc<Member>], key: u64) -> Vec<Arc<Member>> {
    let mut scored: Vec<(f64, &Arc<Member>)> =
        candidates.iter().map(|m| (score(&m.name, m.record.weight, key), m)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    scored.into_iter().map(|(_, m)| m.clone()).collect()
}

/// The first `count` owners of `key`: the best node of each zone in rank order, then, when there are fewer
/// zones than owners wanted, the best of the rest.
pub fn owners(candidates: &[Arc<Member>], key: u64, count: usize) -> Vec<Arc<Member>> {
    let ranked = ranked(candidates, key);
    let mut chosen: Vec<Arc<Member>> = Vec::with_capacity(count);
    for m in &ranked {
        if chosen.len() < count && !chosen.iter().any(|c| c.record.zone == m.record.zone) {
            chosen.push(m.clone());
        }
    }
    for m in &ranked {
        if chosen.len() < count && !chosen.iter().any(|c| c.name == m.name) {
            chosen.push(m.clone());
        }
    }
    chosen
}

fn score(name: &str, weight: u16, key: u64) -> f64 {
    let hash = xxh64(name.as_bytes(), key);
    // 53 bits give a uniform number in (0, 1).
    let u = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(weight) / u.ln()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::keys::{NodeRecord, NodeState};
    use crate::view::Liveness;
    use proptest::prelude::*;

    pub(crate) fn member(name: &str, zone: &str, weight: u16) -> Member {
        Member {
            name: name.into(),
            generation: 1,
            gossip: ([127, 0, 0, 1], 1).into(),
            liveness: Liveness::Alive,
            record: NodeRecord {
                weight,
                state: NodeState::Ready,
                ..NodeRecord::new(zone, ([127, 0, 0, 1], 2).into(), ([127, 0, 0, 1], 3).into())
            },
        }
    }

    fn nodes(n: usize, zones: usize) -> Vec<Arc<Member>> {
        (0..n).map(|i| Arc::new(member(&format!("n{i}"), &format!("z{}", i % zones), 1))).collect()
    }

    #[test]
    fn owners_sit_in_distinct_zones() {
        let nodes = nodes(6, 3);
        for key in 0..500 {
            let o = owners(&nodes, key, 2);
            assert_ne!(o[0].record.zone, o[1].record.zone);
            assert_eq!(owners(&nodes, key, 9).len(), 6);
        }
        assert_eq!(owners(&nodes[..1], 1, 2).len(), 1);
        assert!(owners(&[], 1, 2).is_empty());
    }

    #[test]
    fn weight_draws_its_share() {
        let nodes = [Arc::new(member("a", "z", 1)), Arc::new(member("b", "z", 3))];
        let b = (0..20_000u64).filter(|k| ranked(&nodes, *k)[0].name == "b").count();
        assert!((14_500..15_500).contains(&b), "{b}");
    }

    proptest! {
        #[test]
        fn a_leaving_node_moves_only_its_own_keys(n in 2usize..9, gone in 0usize..9, key in any::<u64>()) {
            let all = nodes(n, n);
            let gone = gone % n;
            let mut rest = all.clone();
            let leaver = rest.remove(gone);
            let before = ranked(&all, key);
            let after = ranked(&rest, key);
            let without: Vec<_> = before.into_iter().filter(|m| m.name != leaver.name).map(|m| m.name.clone()).collect();
            prop_assert_eq!(without, after.into_iter().map(|m| m.name.clone()).collect::<Vec<_>>());
        }
    }
}
