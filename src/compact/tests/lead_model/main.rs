//! Every way that compactors over one bucket can interleave, with the decisions that production takes.
//!
//! Two leaders who both believe in their lease, a keeper that clears away uploads and marks what others stand for, and two
//! workers that delete. Looking and acting are two steps of each, so each may be stopped for any time in between; there is
//! no time at all, so nothing is ever too young. A leader that ends is one that is stopped for ever. One thing may go wrong in the store: an upload
//! comes out short, or a block that others relied on loses files. All states are gone through, breadth first.
//!
//! With all rules there is no loss, and wherever keeper and workers have nothing to do, no half upload, no half deletion and no mark
//! is left. Without any one rule there is a loss, of which the shortest way is found.

mod model;
mod search;

use model::{Fault, Rule, World};
use search::{Found, search};

/// Most states of one search.
const STATES_MAX: usize = 40_000_000;

fn check(world: &World) -> Found {
    let found = search(world, STATES_MAX);
    println!("{world:?}: {found}");
    found
}

fn holds(plans: model::Plans, fault: Fault) {
    let found = check(&World { plans, fault, without: None });
    assert!(found.loss.is_none(), "{found}");
    assert!(found.left_behind.is_none(), "{found}");
    assert!(found.states > 100_000, "hardly anything was tried: {found}");
}

#[test]
fn with_all_rules_two_that_do_the_same_lose_nothing_and_leave_nothing_behind() {
    holds(model::SAME, Fault::None);
    holds(model::SAME, Fault::ShortUpload);
}

#[test]
fn with_all_rules_two_that_overlap_lose_nothing_and_leave_nothing_behind() {
    holds(model::CROSSED, Fault::None);
    holds(model::CROSSED, Fault::Rot);
}

/// 45 million states: too many for every run. `KOIOS_TEST_ALL_CASES=1` asks for them.
#[test]
fn with_all_rules_the_large_worlds_hold_too() {
    let all = std::env::var_os("KOIOS_TEST_ALL_CASES").is_some();
    for (plans, fault) in [
        (model::CROSSED, Fault::ShortUpload),
        (model::SAME, Fault::Rot),
        (model::MORE, Fault::None),
        (model::MORE, Fault::ShortUpload),
        (model::MORE, Fault::Rot),
    ]
    .into_iter()
    .take(if all { usize::MAX } else { 1 })
    {
        holds(plans, fault);
    }
}

#[test]
fn without_any_one_rule_there_is_a_loss() {
    for (rule, fault) in [
        (Rule::DecisionKey, Fault::None),
        (Rule::SoundBeforeMark, Fault::ShortUpload),
        (Rule::TotalOrder, Fault::None),
        (Rule::ResolveBeforeDeletion, Fault::Rot),
    ] {
        let found = check(&World { plans: model::SAME, fault, without: Some(rule) });
        assert!(found.loss.is_some(), "{rule:?} is not needed: {found}");
    }
}
