//! What becomes of the shipped log of a node that is gone. Pure.
//!
//! A node ships its log in numbered segments. A log has a chain of numbered decisions in the bucket, each made by
//! create-if-absent, so that each number has exactly one author:
//!   * `resumed`: the node runs (again) and goes on with this log; written by it at every start;
//!   * `adopted`: a peer turns segments up to `through` into a block; nothing follows in this chain.
//!
//! An adopter must have seen no sign of life (segments, decisions, gossip) for `SILENCE_NS` of its own monotonic
//! clock, and decides under the number after the last it saw, so a node that came back in between has won. A node
//! that finds its log adopted obeys: the range up to `through` is not uploaded again, stays readable here until the
//! block is seen, and what comes after goes to a new log.
//!
//! Adopting is work that can be lost half way; whoever does it again makes the same range. Of several blocks for
//! one adopted range exactly one is committed, by creating `commit_key`.

use std::collections::BTreeMap;

use koios_model::BlockId;
use serde::{Deserialize, Serialize};

/// Silence after which a log is adopted, nanoseconds: ten minutes.
pub const SILENCE_NS: u64 = 600_000_000_000;
/// How much longer each further node in rank waits, nanoseconds: only to save work.
pub const RANK_NS: u64 = 30_000_000_000;

/// One log of one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// Name of the node that writes it.
    pub node: String,
    /// Grows with every log that the node begins.
    pub log: u64,
}

impl LogId {
    /// Folder of the segments.
    pub fn folder(&self) -> String {
        format!("_koios/wal/{}/{:020}", self.node, self.log)
    }

    /// Path of a segment.
    pub fn segment_key(&self, number: u64) -> String {
        format!("{}/{number:08}", self.folder())
    }

    /// Folder of the decisions.
    pub fn decisions(&self) -> String {
        format!("_koios/decision/wal/{}/{:020}", self.node, self.log)
    }

    /// Path of a decision.
    pub fn decision_key(&self, term: u64) -> String {
        format!("{}/{term:08}", self.decisions())
    }

    /// Path whose creator has committed its block for the adopted range.
    pub fn commit_key(&self) -> String {
        format!("{}/block", self.decisions())
    }
}

/// Who goes on with a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The node itself.
    Resumed,
    /// A peer, with segments up to this number, inclusive.
    Adopted {
        /// Last segment of the adopted range.
        through: u64,
    },
}

/// A decision as it lies in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// What.
    pub verdict: Verdict,
    /// Author.
    pub by: String,
    /// Generation of the author.
    pub generation: u64,
}

/// The block of an adopted range, as it lies under `commit_key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The block, as text; `None` when the range held no sample.
    pub block: Option<String>,
    /// Its whole meta.json: whoever sees a commit whose block has none yet writes this one.
    pub meta: String,
    /// Author.
    pub by: String,
}

impl Commit {
    /// The block's id; `None` for an empty range and for a text that is no id.
    pub fn block_id(&self) -> Option<BlockId> {
        self.block.as_ref().and_then(|b| b.parse().ok())
    }
}

/// What is known of a log from the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Highest segment number, `None` without segments.
    pub last_segment: Option<u64>,
    /// The last decision and its number.
    pub last: Option<(u64, Decision)>,
    /// The block of the adopted range, when it is committed.
    pub commit: Option<Commit>,
}

impl Seen {
    /// Number under which the next decision is created.
    pub fn next_term(&self) -> u64 {
        self.last.as_ref().map_or(0, |(n, _)| n + 1)
    }
}

/// How a create-if-absent of a decision ended, after a read of the key when the answer was anything but success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// This call made it.
    Won,
    /// The key holds this.
    Holds(Decision),
    /// The key is absent: a transient refusal, or a lost request.
    Absent,
}

/// Who won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This author.
    Won,
    /// Another; look again.
    Lost,
    /// Nobody yet; create again.
    Again,
}

/// Judges the end of a create of `mine`. A lost reply reads back as this author's own decision.
pub fn judge(mine: &Decision, created: &Created) -> Outcome {
    match created {
        Created::Won => Outcome::Won,
        Created::Holds(d) if d == mine => Outcome::Won,
        Created::Holds(_) => Outcome::Lost,
        Created::Absent => Outcome::Again,
    }
}

/// What a node does about its own log when it starts, and whenever it looks at the chain later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Return {
    /// Create `resumed` under this number before taking part.
    Resume {
        /// Number.
        term: u64,
    },
    /// The chain ends with this node's own `resumed`: go on.
    GoOn,
    /// A peer has the range: obey.
    Obey {
        /// Last segment of the adopted range.
        through: u64,
        /// The block that holds it; until there is one, this node may adopt (again) itself.
        block: Option<Commit>,
    },
}

/// Looks at the own log's chain as the node of `generation`.
pub fn on_return(log: &LogId, generation: u64, seen: &Seen) -> Return {
    match &seen.last {
        Some((_, Decision { verdict: Verdict::Adopted { through }, .. })) => {
            Return::Obey { through: *through, block: seen.commit.clone() }
        }
        Some((_, d)) if d.by == log.node && d.generation == generation => Return::GoOn,
        _ => Return::Resume { term: seen.next_term() },
    }
}

/// What a watcher does about the log of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Create `adopted` under this number; the work begins when that is won.
    Adopt {
        /// Number.
        term: u64,
        /// Last segment of the range.
        through: u64,
    },
    /// It is decided but the work is not done, and its author shows no sign of life: do it.
    Work {
        /// Last segment of the range.
        through: u64,
    },
}

#[derive(Debug)]
struct Watched {
    seen: Seen,
    since_ns: u64,
}

/// Watches the logs of others.
#[derive(Debug)]
pub struct Watch {
    silence_ns: u64,
    logs: BTreeMap<LogId, Watched>,
}

impl Watch {
    /// With a silence after which a log is adopted, nanoseconds; `SILENCE_NS` in production.
    pub fn new(silence_ns: u64) -> Self {
        Self { silence_ns, logs: BTreeMap::new() }
    }

    /// Takes what the bucket says of a log at monotonic `now_ns`. `alive` tells whether gossip hears the process that
    /// writes it (for a decided log: its adopter); `rank` is this node's place among the candidates, 0 first.
    pub fn look(&mut self, now_ns: u64, log: &LogId, seen: Seen, alive: bool, rank: u64) -> Option<Move> {
        let fresh = Watched { seen: seen.clone(), since_ns: now_ns };
        let w = self.logs.entry(log.clone()).or_insert(fresh);
        if w.seen != seen || alive {
            *w = Watched { seen, since_ns: now_ns };
            return None;
        }
        if now_ns.saturating_sub(w.since_ns) < self.silence_ns + rank * RANK_NS {
            return None;
        }
        match (&w.seen.last, &w.seen.commit, w.seen.last_segment) {
            (Some((_, Decision { verdict: Verdict::Adopted { through }, .. })), None, _) => {
                Some(Move::Work { through: *through })
            }
            (Some((_, Decision { verdict: Verdict::Resumed, .. })) | None, _, Some(through)) => {
                Some(Move::Adopt { term: w.seen.next_term(), through })
            }
            _ => None,
        }
    }

    /// Forgets logs that are not in the bucket any more.
    pub fn retain(&mut self, keep: impl Fn(&LogId) -> bool) {
        self.logs.retain(|log, _| keep(log));
    }
}

#[cfg(test)]
mod tests;
