//! Adoption: the moves one by one, and every interleaving of a returning node with two adopters.

use super::*;
use std::collections::BTreeSet;

const S: u64 = 1_000_000_000;

fn log() -> LogId {
    LogId { node: "a".into(), log: 7 }
}

fn decision(verdict: Verdict, by: &str, generation: u64) -> Decision {
    Decision { verdict, by: by.into(), generation }
}

#[test]
fn keys_sort_by_number_and_decisions_read_back() {
    assert_eq!(log().segment_key(3), "_koios/wal/a/00000000000000000007/00000003");
    assert!(log().decision_key(9) < log().decision_key(10) && log().decision_key(10) < log().commit_key());
    for d in [decision(Verdict::Resumed, "a", 1), decision(Verdict::Adopted { through: 4 }, "b", 2)] {
        let text = serde_json::to_string(&d).unwrap();
        assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), d);
    }
    let commit = Commit { block: Some("nonsense".into()), meta: String::new(), by: "b".into() };
    assert_eq!(commit.block_id(), None);
}

#[test]
fn only_silence_is_adopted() {
    let mut w = Watch::new(SILENCE_NS);
    let mut seen = Seen { last_segment: Some(2), ..Seen::default() };
    assert_eq!(w.look(0, &log(), seen.clone(), false, 0), None);
    assert_eq!(w.look(599 * S, &log(), seen.clone(), false, 0), None);
    assert_eq!(w.look(600 * S, &log(), seen.clone(), false, 1), None, "the next in rank waits longer");
    assert_eq!(w.look(600 * S, &log(), seen.clone(), false, 0), Some(Move::Adopt { term: 0, through: 2 }));
    assert_eq!(w.look(601 * S, &log(), seen.clone(), true, 0), None, "gossip hears it");
    assert_eq!(w.look(1200 * S, &log(), seen.clone(), false, 0), None);
    seen.last = Some((0, decision(Verdict::Resumed, "a", 3)));
    assert_eq!(w.look(1210 * S, &log(), seen.clone(), false, 0), None, "it came back: from the start");
    assert_eq!(w.look(1810 * S, &log(), seen.clone(), false, 0), Some(Move::Adopt { term: 1, through: 2 }));
    seen.last = Some((1, decision(Verdict::Adopted { through: 2 }, "b", 1)));
    assert_eq!(w.look(1811 * S, &log(), seen.clone(), true, 0), None, "b works on it");
    assert_eq!(w.look(3000 * S, &log(), seen.clone(), false, 0), Some(Move::Work { through: 2 }));
    seen.commit = Some(Commit { block: None, meta: String::new(), by: "b".into() });
    assert_eq!(w.look(3001 * S, &log(), seen.clone(), false, 0), None);
    assert_eq!(w.look(9000 * S, &log(), seen, false, 0), None, "done");
    w.retain(|_| false);
    assert_eq!(w.look(9001 * S, &log(), Seen::default(), false, 0), None);
    assert_eq!(w.look(99_000 * S, &log(), Seen::default(), false, 0), None, "nothing was shipped");
}

#[test]
fn a_returning_node_resumes_or_obeys() {
    let mut seen = Seen::default();
    assert_eq!(on_return(&log(), 5, &seen), Return::Resume { term: 0 });
    seen.last = Some((0, decision(Verdict::Resumed, "a", 5)));
    assert_eq!(on_return(&log(), 5, &seen), Return::GoOn);
    assert_eq!(on_return(&log(), 6, &seen), Return::Resume { term: 1 }, "each start is a sign of life");
    seen.last = Some((1, decision(Verdict::Adopted { through: 9 }, "b", 1)));
    assert_eq!(on_return(&log(), 6, &seen), Return::Obey { through: 9, block: None });
}

#[test]
fn lost_replies_and_transient_refusals_are_judged_by_reading() {
    let mine = decision(Verdict::Adopted { through: 1 }, "b", 2);
    assert_eq!(judge(&mine, &Created::Won), Outcome::Won);
    assert_eq!(judge(&mine, &Created::Holds(mine.clone())), Outcome::Won);
    assert_eq!(judge(&mine, &Created::Holds(decision(Verdict::Resumed, "a", 2))), Outcome::Lost);
    assert_eq!(judge(&mine, &Created::Absent), Outcome::Again);
}

/// The bucket and three authors, each of whom looks, then creates under the number after what it saw; pauses of any
/// length lie between. State: decisions, and per author what it saw.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Model {
    chain: Vec<u8>,
    saw: [Option<usize>; 3],
    won: [u8; 3],
}

const NODE: usize = 0;

/// Every interleaving: at most one `adopted` in a chain, nothing after it, and nobody believes to have won what
/// another won.
#[test]
fn exactly_one_wins_in_every_interleaving() {
    let start = Model { chain: Vec::new(), saw: [None; 3], won: [0; 3] };
    let mut known: BTreeSet<Model> = BTreeSet::new();
    let mut todo = vec![start];
    while let Some(m) = todo.pop() {
        if !known.insert(m.clone()) || m.chain.len() > 4 {
            continue;
        }
        let adopted: Vec<usize> = (0..m.chain.len()).filter(|i| m.chain[*i] != NODE as u8).collect();
        assert!(adopted.len() <= 1, "{:?}", m.chain);
        assert!(adopted.first().is_none_or(|i| i + 1 == m.chain.len()), "{:?}", m.chain);
        assert_eq!(m.won.iter().map(|w| usize::from(*w)).sum::<usize>(), m.chain.len());
        for who in 0..3 {
            let mut next = m.clone();
            match m.saw[who] {
                None => next.saw[who] = Some(m.chain.len()),
                Some(term) => {
                    next.saw[who] = None;
                    act(&mut next, who, term);
                }
            }
            todo.push(next);
        }
    }
    assert!(known.len() > 100, "{} states", known.len());
}

fn act(m: &mut Model, who: usize, term: usize) {
    let told = |i: usize| match m.chain[i] as usize {
        NODE => decision(Verdict::Resumed, "a", i as u64),
        other => decision(Verdict::Adopted { through: 1 }, &format!("adopter {other}"), 0),
    };
    let last = term.checked_sub(1).map(|i| (i as u64, told(i)));
    let seen = Seen { last_segment: Some(1), last, commit: None };
    let wants = if who == NODE {
        matches!(on_return(&log(), 99, &seen), Return::Resume { .. })
    } else {
        let mut w = Watch::new(0);
        w.look(0, &log(), seen.clone(), false, 0);
        matches!(w.look(0, &log(), seen.clone(), false, 0), Some(Move::Adopt { .. }))
    };
    assert!(!wants || seen.next_term() == term as u64);
    // Create-if-absent.
    if wants && m.chain.len() == term {
        m.chain.push(who as u8);
        m.won[who] += 1;
    }
}
