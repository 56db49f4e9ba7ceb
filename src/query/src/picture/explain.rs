//! Who would be asked for a query, for what, and why; and who scrapes a target, and why. Pure.
//!
//! The plan is the one that queries use. Nothing is asked, so a holder that would not answer shows up only when it
//! failed before.

use koios_cluster::{ClusterView, Member, handover, ranked};

use super::Facts;
use crate::completeness::{Gap, gaps};
use crate::plan;

/// One node and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Who.
    pub node: String,
    /// Its own part: head, and what is in no bucket that the coordinator reads.
    pub own: bool,
    /// Blocks of the shared bucket, as text.
    pub blocks: Vec<String>,
    /// All blocks of its own bucket.
    pub whole_bucket: bool,
    /// In words.
    pub why: Vec<String>,
}

/// A plan in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Questions of the first round.
    pub asked: Vec<Asked>,
    /// Known nodes that are not asked, and why.
    pub not_asked: Vec<(String, String)>,
    /// What an answer would lack.
    pub gaps: Vec<Gap>,
}

/// Who would be asked for samples in `[mint, maxt]`.
pub fn range(facts: &Facts<'_>, mint: i64, maxt: i64) -> Explained {
    let cover = facts.catalogue.cover(mint, maxt);
    let first = plan::plan(facts.view, facts.catalogue, &cover, facts.ejected, (mint, maxt));
    let asked: Vec<Asked> = first
        .ask
        .iter()
        .map(|f| Asked {
            node: f.node.name.clone(),
            own: f.own,
            blocks: f.blocks.iter().map(ToString::to_string).collect(),
            whole_bucket: f.whole_bucket,
            why: why_asked(facts, f),
        })
        .collect();
    let not_asked = facts
        .view
        .members
        .values()
        .filter(|m| asked.iter().all(|a| a.node != m.name))
        .map(|m| (m.name.clone(), why_not(m)))
        .collect();
    let mut missing = gaps(&first.absent, mint, maxt);
    missing.extend(
        super::coverage::unreadable_blocks(facts.catalogue)
            .into_iter()
            .filter(|g| g.from <= maxt && g.until >= mint),
    );
    Explained { asked, not_asked, gaps: missing }
}

fn why_asked(facts: &Facts<'_>, f: &plan::Fragment) -> Vec<String> {
    let mut why = Vec::new();
    if f.own {
        why.push(match f.node.record.head.min_time {
            _ if f.node.name == facts.view.me => "its own data needs no question over the network".to_owned(),
            Some(_) => "its head reaches into the range".to_owned(),
            None => "it may have taken samples of the range since it last said that it had none".to_owned(),
        });
    }
    if !f.blocks.is_empty() {
        why.push("it comes first for these blocks by rendezvous over their ids".to_owned());
    }
    if f.whole_bucket {
        why.push(format!(
            "it speaks for bucket {}, which {} does not read",
            f.node.record.bucket, facts.view.me
        ));
    }
    if facts.is_unreached(&f.node) {
        why.push("it could not be reached lately and is asked because nobody else has its head".to_owned());
    }
    why
}

fn why_not(m: &Member) -> String {
    match m.answers() {
        true => "it says that it holds nothing of the range".to_owned(),
        false => format!("it is {}", m.shown_state()),
    }
}

/// Who has the slots of the target with `key`: names of the owners by slot, and all candidates in rank order.
pub fn target(view: &ClusterView, key: u64, replicas: u8) -> (Vec<String>, Vec<String>) {
    let owners = handover::slot_owners(view, key, replicas).iter().map(|m| m.name.clone()).collect();
    let rank = ranked(&view.ready("scrape"), key)
        .into_iter()
        .map(|m| format!("{} (zone {})", m.name, m.record.zone));
    (owners, rank.collect())
}
