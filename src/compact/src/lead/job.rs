//! Names of groups and plans, and who may go on with a plan.
//!
//! A group is what may meet in some step: blocks of the same external labels without those of replicas, of one kind of
//! producer, in every resolution. A plan's name is made of what would be done and to what, so that two who plan the same find
//! each other at `_koios/plan/<id>`. A claim there saves work and decides nothing.

use std::collections::BTreeMap;

use koios_block::BlockMeta;
use koios_model::{BlockId, Labels};
use serde::{Deserialize, Serialize};

use crate::bucket::{Policy, Seen, Step};

/// Folder of the claims.
pub const FOLDER: &str = "_koios/plan";
/// Changes when the same sources would become other bytes.
const FORMAT: &str = "1";

/// Path of a plan's claim.
pub fn key(plan: &str) -> String {
    format!("{FOLDER}/{plan}")
}

/// What lies there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The group.
    pub group: String,
    /// The lease under which it was claimed.
    pub term: u64,
    /// By whom.
    pub by: String,
    /// Blocks that the plan takes.
    pub sources: Vec<String>,
}

impl Claim {
    /// Whether the holder of the group's lease number `term` goes on although this claim is there: a smaller number's lease
    /// is over, or nobody would hold this one.
    pub fn yields_to(&self, group: &str, term: u64) -> bool {
        self.group != group || self.term <= term
    }
}

/// The external labels and the kind of producer that a group's blocks have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Family {
    /// External labels without those of replicas.
    pub labels: BTreeMap<String, String>,
    /// Whether another program made the blocks.
    pub foreign: bool,
}

impl Family {
    /// Its name in keys: letters and digits.
    pub fn id(&self) -> String {
        let of = if self.foreign { "others" } else { "own" };
        let pairs = self.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        format!("{:016x}{of}", Labels::from_pairs(pairs).hash64())
    }

    /// As people read it.
    pub fn text(&self) -> String {
        let pairs: Vec<String> = self.labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
        format!("{{{}}}{}", pairs.join(", "), if self.foreign { " of another producer" } else { "" })
    }
}

impl Policy {
    /// The group of a block.
    pub fn family(&self, meta: &BlockMeta) -> Family {
        Family { labels: self.labels(meta), foreign: meta.is_foreign() }
    }

    /// All groups.
    pub fn families(
        &self,
        blocks: impl IntoIterator<Item = Seen>,
    ) -> BTreeMap<Family, BTreeMap<BlockId, Seen>> {
        let mut all: BTreeMap<Family, BTreeMap<BlockId, Seen>> = BTreeMap::new();
        for seen in blocks {
            all.entry(self.family(&seen.meta)).or_default().insert(seen.meta.ulid, seen);
        }
        all
    }
}

/// The name of what a step makes, and the blocks it takes; `None` for one that makes no block.
pub fn plan_of(group: &str, step: &Step) -> Option<(String, Vec<BlockId>)> {
    let (action, blocks) = match step {
        Step::Merge { blocks, labels, how, .. } => (format!("merge {how:?} {labels:?}"), blocks.clone()),
        Step::Downsample { block, to } => (format!("downsample {to}"), vec![*block]),
        Step::Leave { .. } | Step::Mark { .. } | Step::Delete { .. } => return None,
    };
    let mut sorted: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    sorted.sort();
    let text = format!("{FORMAT}\n{group}\n{action}\n{}", sorted.join(" "));
    let half = |name| Labels::from_pairs([(name, text.as_str())]).hash64();
    Some((format!("{:016x}{:016x}", half("plan"), half("again")), blocks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::How;
    use crate::plan::Reason;

    #[test]
    fn a_plan_is_named_by_what_it_does() {
        let id = |n| BlockId::from_parts(n, 0);
        let merge = |blocks: Vec<BlockId>, how| Step::Merge {
            blocks,
            labels: BTreeMap::new(),
            how,
            reason: Reason::Level,
        };
        let name = |step: &Step| plan_of("g", step).map(|p| p.0);
        let one = name(&merge(vec![id(1), id(2)], How::Exact));
        assert_eq!(one, name(&merge(vec![id(2), id(1)], How::Exact)), "the order does not matter");
        assert_eq!(one.as_ref().map(String::len), Some(32));
        for other in [
            merge(vec![id(1), id(3)], How::Exact),
            merge(vec![id(1), id(2)], How::Penalty),
            Step::Downsample { block: id(1), to: 300_000 },
        ] {
            assert_ne!(one, name(&other));
        }
        assert_eq!(name(&Step::Delete { block: id(1) }), None);
        assert_ne!(one, plan_of("h", &merge(vec![id(1), id(2)], How::Exact)).map(|p| p.0));
    }

    #[test]
    fn claims_of_leases_that_are_over_yield() {
        let claim = Claim { group: "g".into(), term: 4, by: "n".into(), sources: Vec::new() };
        assert!(claim.yields_to("g", 5) && claim.yields_to("g", 4) && !claim.yields_to("g", 3));
    }

    #[test]
    fn families_have_names_for_keys_and_for_people() {
        let of = |foreign| Family {
            labels: [("zone".to_owned(), "a/b \"c\"".to_owned())].into_iter().collect(),
            foreign,
        };
        assert!(of(true).id().chars().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(of(true).id(), of(false).id());
        assert_eq!(of(false).text(), r#"{zone="a/b \"c\""}"#);
    }
}
