//! One sentence on how the cluster is, and what to do when it is not well. Pure.
//!
//! Every fault becomes an issue with a level, a cause and an advice; the worst one leads. Broken: something cannot be
//! answered or written. Degraded: everything can, but one more fault may be one too many.

use std::collections::{BTreeMap, BTreeSet};

use koios_cluster::{ClusterView, Member, replicas};
use koios_model::timestamp::rfc3339;

use super::Facts;
use crate::completeness::{Gap, gaps};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing to do.
    Well,
    /// Readable and writable, with less behind it.
    Degraded,
    /// Some data is unreadable, or writes are refused.
    Broken,
}

impl Level {
    /// `green`, `amber` or `red`.
    pub fn colour(self) -> &'static str {
        match self {
            Level::Well => "green",
            Level::Degraded => "amber",
            Level::Broken => "red",
        }
    }

    /// `healthy`, `degraded` or `broken`.
    pub fn word(self) -> &'static str {
        match self {
            Level::Well => "healthy",
            Level::Degraded => "degraded",
            Level::Broken => "broken",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// How bad.
    pub level: Level,
    /// What, and because of whom.
    pub cause: String,
    /// What to do.
    pub advice: String,
}

/// The verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The worst of `issues`.
    pub level: Level,
    /// For humans: how many nodes are ready, the worst issue, what to do.
    pub sentence: String,
    /// Worst first.
    pub issues: Vec<Issue>,
}

/// Whether others see the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// Ready nodes, the observer included.
    pub ready: usize,
    /// Those whose own view of the ready nodes is the observer's.
    pub agreeing: usize,
    /// Ready nodes that see other ready nodes.
    pub differing: Vec<String>,
    /// Ready nodes on the observer's bucket that see other blocks in it.
    pub other_blocks: Vec<String>,
    /// For humans.
    pub line: String,
}

/// A gap in writing or reading that ends within this time is one of the present, milliseconds.
const RECENT_MS: i64 = 3_600_000;
/// How long a node may take to start before somebody should look, milliseconds.
const START_MS: i64 = 300_000;

/// Who agrees with the observer.
pub fn agreement(view: &ClusterView) -> Agreement {
    let hash = view.ring_hash();
    let own = view.own().map(|m| (m.record.bucket.clone(), m.record.catalogue));
    let ready: Vec<&Member> = view.members.values().map(|m| &**m).filter(|m| m.is_ready()).collect();
    let others = || ready.iter().filter(|m| m.name != view.me);
    let differing: Vec<String> =
        others().filter(|m| m.record.ring_hash != hash).map(|m| m.name.clone()).collect();
    let other_blocks: Vec<String> = others()
        .filter(|m| {
            own.as_ref().is_some_and(|(b, seen)| *b == m.record.bucket && *seen != m.record.catalogue)
        })
        .map(|m| m.name.clone())
        .collect();
    let agreeing = ready.len() - differing.len();
    let mut line = match differing.is_empty() {
        true => format!("all views agree ({agreeing}/{})", ready.len()),
        false => format!(
            "views differ ({agreeing}/{} agree): {} see other ready nodes than {}",
            ready.len(),
            differing.join(", "),
            view.me
        ),
    };
    if !other_blocks.is_empty() {
        line.push_str(&format!("; {} see other blocks in the bucket", other_blocks.join(", ")));
    }
    Agreement { ready: ready.len(), agreeing, differing, other_blocks, line }
}

/// Judges.
pub fn health(facts: &Facts<'_>) -> Health {
    let view = facts.view;
    let present = view.members.values().filter(|m| m.shown_state() != "left").count();
    let ready = view.members.values().filter(|m| m.is_ready()).count();
    let mut issues = Vec::new();
    if ready == 0 {
        issues.push(Issue {
            level: Level::Broken,
            cause: "no node is ready".to_owned(),
            advice: "wait for the logs to be replayed, or look at the nodes' logs".to_owned(),
        });
    }
    issues.extend(missing(facts));
    issues.extend(writes(facts).filter(|_| ready > 0));
    let whole = issues.is_empty();
    issues.extend(members(facts, whole));
    issues.extend(views(view));
    issues.sort_by_key(|i| std::cmp::Reverse(i.level));
    let level = issues.first().map_or(Level::Well, |i| i.level);
    let sentence = match issues.first() {
        None if present == 1 => {
            "the only node is ready; what it holds has one copy, start another one with --join".to_owned()
        }
        None => format!("all {ready} nodes are ready"),
        Some(i) if ready == 0 => format!("{}: {}", i.cause, i.advice),
        Some(i) => format!("{ready} of {present} nodes are ready; {}: {}", i.cause, i.advice),
    };
    Health { level, sentence, issues }
}

/// What an answer would lack, by who would have to give it.
fn missing(facts: &Facts<'_>) -> Vec<Issue> {
    let mut by_holders: BTreeMap<(Vec<String>, String), Gap> = BTreeMap::new();
    let mut found = gaps(&facts.absent(), i64::MIN, facts.now_ms);
    found.extend(super::coverage::unreadable_blocks(facts.catalogue));
    for gap in found {
        let all = by_holders.entry((gap.holders.clone(), gap.reason.clone())).or_insert_with(|| gap.clone());
        (all.from, all.until) = (all.from.min(gap.from), all.until.max(gap.until));
    }
    let issue = |gap: Gap| {
        let nodes: Vec<String> =
            gap.holders.iter().filter(|h| facts.view.members.contains_key(*h)).cloned().collect();
        let from = if gap.from < 0 { "the beginning".to_owned() } else { rfc3339(gap.from) };
        let is_recent = facts.now_ms - gap.until < RECENT_MS / 60;
        let until = if is_recent { "now".to_owned() } else { rfc3339(gap.until) };
        Issue {
            level: Level::Broken,
            cause: format!("data from {from} to {until} may be missing because {}", gap.because()),
            advice: match nodes.is_empty() {
                true => "put the block back from a backup, or delete it".to_owned(),
                false if gap.reason.contains("lost a part") => {
                    "restore its disk, or accept the gap".to_owned()
                }
                false => format!("bring {} back with its disk", nodes.join(" or ")),
            },
        }
    };
    by_holders.into_values().map(issue).collect()
}

/// Whether pushed data finds its quorum.
fn writes(facts: &Facts<'_>) -> impl Iterator<Item = Issue> + use<> {
    let refused = quorum(facts, &|_| true).err();
    refused.into_iter().map(|why| Issue {
        level: Level::Broken,
        cause: format!(
            "remote write is refused: {} of {} nodes in {} zones take writes, {} in {} zones are needed",
            why.usable, why.ring, why.zones, why.quorum, why.zones_needed
        ),
        advice: "start the missing nodes".to_owned(),
    })
}

/// Whether writes would find their quorum if only nodes that pass `also` took them. Ignores nodes without the role.
pub(super) fn quorum(facts: &Facts<'_>, also: &dyn Fn(&Member) -> bool) -> Result<(), replicas::Unavailable> {
    let ring = replicas::ring(facts.view, facts.now_ms);
    if ring.is_empty() {
        return Ok(());
    }
    // The key only decides about the order; the quorum is the same for all.
    let usable = |m: &Member| m.is_ready() && !facts.is_unreached(m) && also(m);
    replicas::place(&ring, 0, &usable).map(|_| ())
}

/// What is wrong with single nodes; `whole` tells that nothing is missing because of them.
fn members(facts: &Facts<'_>, whole: bool) -> Vec<Issue> {
    let degraded = |cause: String, advice: String| Issue { level: Level::Degraded, cause, advice };
    let mut issues = Vec::new();
    for m in facts.view.members.values() {
        let for_s = (facts.now_ms - super::since(m)).max(0) / 1000;
        match m.shown_state() {
            "dead" => issues.push(degraded(
                format!(
                    "{} is dead for {}{}",
                    m.name,
                    shown_s(for_s),
                    if whole { " and its replicas answer" } else { "" }
                ),
                format!("start it again, at best on {}", m.record.http.ip()),
            )),
            "starting" | "joining" if for_s * 1000 > START_MS => issues.push(degraded(
                format!("{} is {} for {}", m.name, m.shown_state(), shown_s(for_s)),
                "look at its log".to_owned(),
            )),
            "starting" | "joining" => issues.push(degraded(
                format!("{} is {}", m.name, m.shown_state()),
                "wait until it is ready".to_owned(),
            )),
            "draining" | "leaving" => issues.push(degraded(
                format!("{} is {}", m.name, m.shown_state()),
                "wait until it has left".to_owned(),
            )),
            _ if facts.is_unreached(m) => issues.push(degraded(
                format!("{} is heard by others but cannot be reached from {}", m.name, facts.view.me),
                format!("check the network and the firewall on the way to {}", m.record.rpc),
            )),
            _ => {}
        }
    }
    // The dead come before those that are only on their way.
    issues.sort_by_key(|i| !i.cause.contains("is dead"));
    issues
}

fn views(view: &ClusterView) -> Option<Issue> {
    let versions: BTreeSet<&str> =
        view.members.values().filter(|m| m.is_ready()).map(|m| m.record.version.as_str()).collect();
    let differing = agreement(view).differing;
    if !differing.is_empty() {
        return Some(Issue {
            level: Level::Degraded,
            cause: format!("{} see other ready nodes than {}", differing.join(", "), view.me),
            advice: "wait some seconds; when it stays, open /cluster there and compare".to_owned(),
        });
    }
    (versions.len() > 1).then(|| Issue {
        level: Level::Degraded,
        cause: format!("versions are mixed: {}", versions.into_iter().collect::<Vec<_>>().join(", ")),
        advice: "finish the upgrade".to_owned(),
    })
}

/// Whole seconds as a short duration.
pub(super) fn shown_s(seconds: i64) -> String {
    koios_model::duration::format_duration(seconds * 1000)
}
