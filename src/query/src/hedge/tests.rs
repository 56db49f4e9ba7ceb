//! The judge, asked by hand and at random.

use super::*;
use proptest::prelude::*;

#[test]
fn a_holder_is_late_after_what_most_take_within_bounds() {
    let mut j = Judge::default();
    assert_eq!(j.late_after_ms(Class::Blocks), LATE_UNKNOWN_MS);
    (0..100).for_each(|_| j.answered("a", Class::Blocks, 400));
    assert_eq!(j.late_after_ms(Class::Blocks), LATE_FLOOR_MS);
    assert_eq!(j.late_after_ms(Class::Head), LATE_UNKNOWN_MS, "classes are apart");
    (0..100).for_each(|_| j.answered("a", Class::Blocks, 100_000));
    assert!((100..130).contains(&j.late_after_ms(Class::Blocks)));
    (0..2000).for_each(|_| j.answered("a", Class::Blocks, 60_000_000));
    assert_eq!(j.late_after_ms(Class::Blocks), LATE_CAP_MS);
    assert_eq!(j.head_patience_ms(), LATE_UNKNOWN_MS * HEAD_FACTOR);
}

#[test]
fn a_node_that_is_late_again_and_again_is_asked_last_for_a_while() {
    let mut j = Judge::default();
    j.late("a", 0);
    j.late("a", 0);
    assert!(!j.avoid("a", 0));
    j.late("a", 5);
    assert!(j.avoid("a", 5) && !j.avoid("b", 5) && !j.avoid("a", 5 + MARK_MS));
    j.answered("a", Class::Blocks, 1000);
    assert!(!j.avoid("a", 5), "one good answer is enough");
    j.full("b", 7);
    assert!(j.avoid("b", 7) && !j.avoid("b", 7 + MARK_MS));
}

#[test]
fn one_slow_node_is_hedged_around_and_many_are_not() {
    let mut j = Judge::default();
    let slow = |j: &mut Judge, peer: &str| (0..SLOW_AFTER).for_each(|_| j.late(peer, 0));
    slow(&mut j, "a");
    assert_eq!(j.may_hedge(3, 1), Ok(()), "of three one may be slow");
    slow(&mut j, "b");
    assert_eq!(j.may_hedge(3, 1), Err(Denied::Slow));
    assert_eq!(j.may_hedge(10, 1), Ok(()), "two of ten are a fifth");
    j.full("c", 0);
    assert_eq!(j.may_hedge(10, 1), Err(Denied::Slow), "no room counts as slow");
    assert_eq!(j.may_hedge(10, 1 + MARK_MS), Ok(()), "later nobody is");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut j = Judge::default();
    (0..3 * PEERS_MAX).for_each(|i| j.late(&i.to_string(), 0));
    assert!(j.peers.len() <= PEERS_MAX);
}

proptest! {
    /// Whatever happens in whatever order: hedges stay within 5 % and the burst, retries within 10 % and theirs.
    #[test]
    fn extras_stay_within_their_budgets(events in proptest::collection::vec((0u8..6, 0u8..5), 0..4000)) {
        let mut j = Judge::default();
        let (mut sent, mut hedged, mut retried) = (0u64, 0u64, 0u64);
        for (now, (event, peer)) in events.into_iter().enumerate() {
            let (now, peer) = (now as u64 * 50, format!("n{peer}"));
            match event {
                0 | 1 => { j.sent(); sent += 1; }
                2 => j.answered(&peer, Class::Blocks, now % 70_000),
                3 => j.late(&peer, now),
                4 => hedged += u64::from(j.may_hedge(5, now).is_ok()),
                _ => { j.full(&peer, now); retried += u64::from(j.may_retry()); }
            }
            prop_assert!(hedged <= HEDGE_BURST + sent * HEDGE_PERCENT / 100);
            prop_assert!(retried <= RETRY_BURST + sent * RETRY_PERCENT / 100);
            prop_assert!((LATE_FLOOR_MS..=LATE_CAP_MS).contains(&j.late_after_ms(Class::Blocks)));
        }
    }
}
