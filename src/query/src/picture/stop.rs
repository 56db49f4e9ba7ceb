//! May this node stop now? Pure.
//!
//! Yes when, while it is away, every answer that is whole now stays whole, pushed data finds its quorum, and somebody
//! scrapes and answers. A stop in order uploads the head, so data on a bucket that a ready peer reads too counts as
//! safe; data on a private bucket is away together with its node.

use std::sync::Arc;

use koios_cluster::{ClusterView, Liveness, Member};
use koios_model::timestamp::rfc3339;

use super::Facts;
use super::health::quorum;
use crate::completeness::{Absent, gaps};

/// Why the observer had better not stop now; empty when it may.
pub fn reasons(facts: &Facts<'_>) -> Vec<String> {
    let view = facts.view;
    let Some(me) = view.own() else {
        return vec![
            "this node has not found its place in the cluster yet: wait until it is ready".to_owned(),
        ];
    };
    let mut out = Vec::new();
    let others: Vec<&Arc<Member>> = view
        .members
        .values()
        .filter(|m| m.name != view.me && m.is_ready() && !facts.is_unreached(m))
        .collect();
    if others.is_empty() {
        out.push(
            "no other node is ready: nobody would scrape or answer; start another one with --join".to_owned(),
        );
        return out;
    }
    for role in ["scrape", "query"] {
        if me.record.roles.has(role) && !others.iter().any(|m| m.record.roles.has(role)) {
            out.push(format!("no other ready node has the role {role}: start one that has"));
        }
    }
    if let Err(why) = quorum(facts, &|m| m.name != view.me) {
        out.push(format!(
            "remote write would be refused: {} of {} nodes would take writes, {} in {} zones are needed; bring the \
             missing nodes back first",
            why.usable, why.ring, why.quorum, why.zones_needed
        ));
    }
    out.extend(unanswered(facts, me, &others));
    out
}

/// Stretches that would be missing from answers, beyond those that are missing anyway.
fn unanswered(facts: &Facts<'_>, me: &Arc<Member>, others: &[&Arc<Member>]) -> Vec<String> {
    let shared = others.iter().any(|m| m.record.bucket == me.record.bucket && m.record.roles.has("store"));
    if shared && facts.catalogue.read() {
        return Vec::new();
    }
    if shared {
        return vec!["the bucket could not be read yet, so the head might not be uploaded: wait".to_owned()];
    }
    let mut absent = facts.absent();
    let now = gaps(&absent, i64::MIN, facts.now_ms);
    absent.push(away(facts, me));
    let later = gaps(&absent, i64::MIN, facts.now_ms).into_iter().filter(|g| !now.contains(g));
    let word = |from: i64| if from < 0 { "the beginning".to_owned() } else { rfc3339(from) };
    later
        .map(|g| {
            let with: Vec<&str> = g.holders.iter().map(String::as_str).filter(|h| *h != me.name).collect();
            let why = match with.is_empty() {
                true => "only this node holds some of it".to_owned(),
                false => format!("{} {} too", with.join(" and "), "is away"),
            };
            format!(
                "data from {} to {} would be missing while this node is away: {why}",
                word(g.from),
                word(g.until)
            )
        })
        .collect()
}

/// The node as it would look after its end.
fn away(facts: &Facts<'_>, me: &Member) -> Absent {
    let mut gone = me.clone();
    gone.liveness = Liveness::Dead { since: facts.now_ms };
    Absent::from_member(facts.view, &gone, "is stopped", facts.catalogue)
}

/// What a yes says.
pub fn yes(view: &ClusterView) -> String {
    let others = view.members.values().filter(|m| m.name != view.me && m.is_ready()).count();
    format!("yes: {} may stop, {others} ready nodes answer and take writes without it", view.me)
}
