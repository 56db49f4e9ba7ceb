//! Every way that compactors over one bucket can interleave, with the decisions that production takes.
//!
//! Two leaders who both believe in their lease, a keeper that clears away uploads and marks what others stand for, and two
//! workers that delete. Looking and acting are two steps of each, so each may be stopped for any time in between; there is
//! no time at all, so nothing is ever too young. A leader may end at any step. One thing may go wrong in the store: an upload
//! comes out short, or a block that others relied on loses files. All states are gone through, breadth first.
//!
//! With all rules there is no loss, and where nothing more can happen, one block stands for all samples and nothing else lies
//! there. Without any one rule there is a loss, of which the shortest way is found.

mod model;

use model::{Fault, Found, Rule, World, search};

/// Most states of one search.
const STATES_MAX: usize = 2_000_000;

fn check(world: &World) -> Found {
    let found = search(world, STATES_MAX);
    println!("{world:?}: {found}");
    found
}

#[test]
fn with_all_rules_nothing_is_lost_and_nothing_is_left_behind() {
    for plans in [model::SAME, model::MORE, model::CROSSED] {
        for fault in [Fault::None, Fault::ShortUpload, Fault::Rot] {
            let found = check(&World { plans, fault, without: None });
            assert!(found.loss.is_none(), "{found}");
            assert!(found.left_behind.is_none(), "{found}");
            assert!(found.states > 500, "hardly anything was tried: {found}");
        }
    }
}

#[test]
fn without_any_one_rule_there_is_a_loss() {
    for (rule, fault) in [
        (Rule::DecisionKey, Fault::None),
        (Rule::SoundBeforeMark, Fault::ShortUpload),
        (Rule::TotalOrder, Fault::None),
        (Rule::ResolveBeforeDeletion, Fault::Rot),
        (Rule::WholeBeforeFinish, Fault::ShortUpload),
        (Rule::MetaFirst, Fault::None),
    ] {
        let found = check(&World { plans: model::SAME, fault, without: Some(rule) });
        assert!(found.loss.is_some(), "{rule:?} is not needed: {found}");
    }
}
