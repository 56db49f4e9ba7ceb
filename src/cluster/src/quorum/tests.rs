//! Quorum: every outcome of small batches, and promises over random ones.

use super::*;
use crate::ownership::tests::member;
use crate::replicas::{Unavailable, factor, place, quorum};
use proptest::prelude::*;

fn ring(zones: &[&str]) -> Vec<Arc<Member>> {
    zones.iter().enumerate().map(|(i, z)| Arc::new(member(&format!("n{i}"), z, 1))).collect()
}

fn placed(ring: &[Arc<Member>], series: usize) -> Vec<Result<Replicas, Unavailable>> {
    (0..series as u64).map(|key| place(ring, key, &|_| true)).collect()
}

fn outcome(code: usize) -> Stored<&'static str> {
    [Stored::Yes, Stored::Refused("conflict"), Stored::Failed][code].clone()
}

/// All answers of all replicas of one series, in every order, for rings of one to three nodes.
#[test]
fn every_outcome_of_one_series() {
    for n in 1..=3usize {
        let w = quorum(factor(n));
        for code in 0..3usize.pow(n as u32) {
            for turn in 0..n {
                let answers: Vec<usize> = (0..n).map(|i| code / 3usize.pow(i as u32) % 3).collect();
                let (mut q, first) = Quorum::new(placed(&ring(&["a", "b", "c"][..n]), 1));
                assert_eq!(first.len(), n);
                for i in (0..n).map(|i| (i + turn) % n) {
                    q.replied(&format!("n{i}"), &[(0, outcome(answers[i]))]);
                }
                let count = |what: usize| answers.iter().filter(|a| **a == what).count();
                let v = q.verdict().expect("all answered");
                let case = format!("{n} nodes, {answers:?}, turn {turn}");
                assert_eq!(v.is_stored(), count(0) >= w, "{case}");
                let hopeless = count(0) < w && count(0) + count(2) < w;
                assert_eq!(!v.refused.is_empty(), hopeless, "{case}");
                assert_eq!(v.is_retryable(), count(0) < w && !hopeless, "{case}");
            }
        }
    }
}

#[test]
fn requests_are_not_series() {
    // Each of two nodes stores another half: two requests succeeded in part, no series has two copies.
    let (mut q, _) = Quorum::new(placed(&ring(&["a", "b", "c"]), 2));
    q.replied("n0", &[(0, Stored::Yes), (1, Stored::Failed)]);
    q.replied("n1", &[(0, Stored::Failed), (1, Stored::<&str>::Yes)]);
    assert!(q.verdict().is_none());
    q.lost("n2");
    assert_eq!(q.verdict().unwrap(), Verdict { stored: 0, refused: vec![], unavailable: vec![0, 1] });
}

#[test]
fn spares_stand_in_and_late_answers_count() {
    let ring = ring(&["a", "b", "c", "c"]);
    let (mut q, first) = Quorum::<&str>::new(placed(&ring, 1));
    let asked: Vec<&str> = first.iter().map(|s| s.node.name.as_str()).collect();
    let in_c = first.iter().find(|s| s.node.record.zone == "c").unwrap().node.name.clone();
    let more = q.lost(&in_c);
    assert_eq!(
        (more.len(), more[0].node.record.zone.as_str(), more[0].series.as_slice()),
        (1, "c", &[0][..])
    );
    assert!(!asked.contains(&more[0].node.name.as_str()));
    assert!(q.lost(&in_c).is_empty(), "given up once");
    q.replied(&in_c, &[(0, Stored::Yes), (9, Stored::Yes)]);
    q.replied(&in_c, &[(0, Stored::Yes)]);
    assert!(q.verdict().is_none(), "one node answering twice is one copy");
    q.replied("stranger", &[(0, Stored::Yes)]);
    assert!(q.verdict().is_none());
    q.replied("n0", &[(0, Stored::Yes)]);
    assert!(q.verdict().unwrap().is_stored());
}

#[test]
fn two_copies_in_one_zone_are_one() {
    let ring = ring(&["a", "a", "b", "c"]);
    let rule = Replicas { nodes: ring[..3].to_vec(), spares: Vec::new(), quorum: 2, zones: 2 };
    let batch = || Quorum::new(vec![Ok::<_, Unavailable>(rule.clone())]).0;
    let mut q: Quorum<&str> = batch();
    q.replied("n0", &[(0, Stored::Yes)]);
    q.replied("n1", &[(0, Stored::Yes)]);
    assert!(q.verdict().is_none());
    q.lost("n2");
    assert!(q.verdict().unwrap().is_retryable());
    let mut q = batch();
    q.replied("n2", &[(0, Stored::Refused("too old"))]);
    assert_eq!(q.verdict().unwrap().refused, [(0, "too old")], "no retry brings a second zone");
}

#[test]
fn what_has_no_place_is_unavailable_and_the_rest_goes_on() {
    let ring = ring(&["a", "b", "c"]);
    let none = place(&ring, 7, &|m| m.name == "n0");
    let (mut q, sends) = Quorum::<&str>::new(vec![none, place(&ring, 8, &|_| true)]);
    assert!(sends.iter().all(|s| s.series == [1]));
    assert_eq!(q.awaited().len(), 3);
    q.replied("n0", &[(1, Stored::Yes)]);
    q.replied("n1", &[(1, Stored::Yes)]);
    assert_eq!(q.verdict().unwrap(), Verdict { stored: 1, refused: vec![], unavailable: vec![0] });
    let (q, sends) = Quorum::<&str>::new(Vec::<Result<Replicas, Unavailable>>::new());
    assert!(sends.is_empty() && q.verdict().unwrap().is_stored());
}

proptest! {
    /// Whatever nodes answer, in whatever order and how often: stored means that enough distinct nodes in enough
    /// distinct zones said so, refused means that the rest could not be enough, and a verdict always comes.
    #[test]
    fn a_verdict_is_backed_by_nodes(
        zones in proptest::collection::vec(0u8..3, 1..7),
        series in 1usize..4,
        events in proptest::collection::vec((0usize..7, 0usize..4, 0usize..4), 0..60),
    ) {
        let text: Vec<String> = zones.iter().map(|z| format!("z{z}")).collect();
        let ring = ring(&text.iter().map(String::as_str).collect::<Vec<_>>());
        let placed = placed(&ring, series);
        let (mut q, mut sends) = Quorum::new(placed.clone());
        let mut asked: Vec<(String, u32)> = Vec::new();
        let mut said: Vec<(String, u32, bool)> = Vec::new();
        let mut note = |sends: &mut Vec<Send>| {
            for s in sends.drain(..) {
                for at in s.series {
                    assert!(!asked.contains(&(s.node.name.clone(), at)), "asked twice");
                    asked.push((s.node.name.clone(), at));
                }
            }
            asked.clone()
        };
        for (n, at, what) in events {
            let known = note(&mut sends);
            let (name, at) = (format!("n{}", n % ring.len()), (at % series) as u32);
            if q.verdict().is_some() || !known.contains(&(name.clone(), at)) {
                continue;
            }
            if what == 3 {
                sends = q.lost(&name);
            } else {
                // A node that answered once says the same again.
                let before = said.iter().find(|(n, a, _)| *n == name && *a == at).map(|(_, _, yes)| *yes);
                let what = before.map_or(what, |yes| usize::from(!yes));
                if before.is_none() && what < 2 {
                    said.push((name.clone(), at, what == 0));
                }
                sends = q.replied(&name, &[(at, outcome(what))]);
            }
        }
        // Everybody who is silent is given up in the end.
        while q.verdict().is_none() {
            note(&mut sends);
            let next = q.awaited();
            prop_assert!(!next.is_empty());
            sends = q.lost(&next[0].name);
        }
        let v = q.verdict().unwrap();
        prop_assert_eq!(v.stored + v.refused.len() + v.unavailable.len(), series);
        for at in 0..series as u32 {
            let rule = placed[at as usize].as_ref().unwrap();
            let copies: Vec<Arc<Member>> =
                ring.iter().filter(|m| said.contains(&(m.name.clone(), at, true))).cloned().collect();
            let open = !v.refused.iter().any(|(i, _)| *i == at) && !v.unavailable.contains(&at);
            if open {
                prop_assert!(rule.satisfied(copies.iter()), "series {} without its copies", at);
            }
            if v.refused.iter().any(|(i, _)| *i == at) {
                prop_assert!(said.contains(&(name_of_refuser(&said, at), at, false)));
                prop_assert!(!rule.satisfied(copies.iter()));
            }
        }
    }
}

fn name_of_refuser(said: &[(String, u32, bool)], at: u32) -> String {
    said.iter().find(|(_, a, stored)| *a == at && !stored).map(|(n, _, _)| n.clone()).unwrap_or_default()
}
