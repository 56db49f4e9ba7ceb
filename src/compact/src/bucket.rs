//! What is to be done to a bucket: metas and marks in, one step after the other out; nothing read or written.
//!
//! The order is Thanos': what another block stands for is marked, blocks are merged until there is nothing to merge, then raw
//! blocks become coarse, then the retention marks what is too old; what was marked long enough ago is deleted. Groups are
//! blocks of one resolution and the same external labels without those of replicas; each goes its own way, so what one
//! group trips over stops no other. Ranges: 2 h, 8 h, 2 d, 14 d. Invariant: a block with a mark against a step is in no
//! such step, and every step makes the bucket differ, so that there is a last one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use koios_block::BlockMeta;
use koios_block::meta::DEDUPED;
use koios_model::BlockId;

use crate::downsample::{FIVE_MINUTES, HOUR, finer};
use crate::merge::How;
use crate::plan::{Reason, class, plan_group};

const HOURS: i64 = 3_600_000;
/// Lengths of levels, the first below the usual cut.
const RANGES: [i64; 5] = [HOURS, 2 * HOURS, 8 * HOURS, 48 * HOURS, 336 * HOURS];
/// How long a block must be to become coarse: it then has some chunks' worth of windows.
const SPANS: [(i64, i64); 2] = [(FIVE_MINUTES, 40 * HOURS), (HOUR, 240 * HOURS)];
/// Largest index of a merged block, Thanos' bound: 64 GiB less a twentieth.
const INDEX_BYTES_MAX: u64 = (64 << 30) / 20 * 19;

/// A block as the plan sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it says of itself.
    pub meta: Arc<BlockMeta>,
    /// When it was marked for deletion, milliseconds.
    pub deletion_ms: Option<i64>,
    /// Must not be merged.
    pub no_compact: bool,
    /// Must not be made coarse.
    pub no_downsample: bool,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// External labels that tell replicas apart which are to become one.
    pub replica_labels: Vec<String>,
    /// How replicas of other producers become one; our own always exactly.
    pub how: How,
    /// Whether coarse blocks are made.
    pub downsample: bool,
    /// How long blocks are kept after their end, milliseconds: raw, five minutes, an hour. 0 keeps them.
    pub retention_ms: [i64; 3],
    /// How long a block stays after it was marked for deletion, milliseconds.
    pub delete_delay_ms: i64,
    /// Largest index of a merged block, bytes; a merge that comes to more is cut by series.
    pub index_bytes_max: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            replica_labels: Vec::new(),
            how: How::Exact,
            downsample: true,
            retention_ms: [0; 3],
            delete_delay_ms: 48 * HOURS,
            index_bytes_max: INDEX_BYTES_MAX,
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Blocks become one.
    Merge {
        /// Which, oldest first.
        blocks: Vec<BlockId>,
        /// External labels of the result.
        labels: BTreeMap<String, String>,
        /// What becomes of samples at nearly the same time.
        how: How,
        /// Why.
        reason: Reason,
    },
    /// A block is written again at another resolution.
    Downsample {
        /// Which.
        block: BlockId,
        /// Milliseconds between samples.
        to: i64,
    },
    /// A block must not be merged any more: coarse blocks that overlap.
    Leave {
        /// Which.
        block: BlockId,
    },
    /// A block is marked for deletion.
    Mark {
        /// Which.
        block: BlockId,
        /// Why.
        why: Why,
    },
    /// The files of a block go.
    Delete {
        /// Which.
        block: BlockId,
    },
}

/// Why a block is marked for deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// This block has everything that is in it.
    Superseded(BlockId),
    /// It is older than the retention of its resolution.
    Expired,
}

impl Step {
    /// What the bucket would look like after the step, whose output would have the id `id`. Sizes are not known.
    pub fn pretend(&self, blocks: &mut BTreeMap<BlockId, Seen>, id: BlockId, now_ms: i64) {
        match self {
            Self::Merge { blocks: from, labels, .. } => {
                let metas: Vec<&BlockMeta> =
                    from.iter().filter_map(|b| Some(&*blocks.get(b)?.meta)).collect();
                let meta = crate::merge::merged_meta(&metas, id, Some(labels));
                for block in from {
                    blocks.get_mut(block).into_iter().for_each(|s| s.deletion_ms = Some(now_ms));
                }
                blocks.insert(id, Seen::fresh(meta.into()));
            }
            Self::Downsample { block, to } => {
                let Some(seen) = blocks.get(block) else { return };
                let mut meta = (*seen.meta).clone();
                meta.ulid = id;
                meta.thanos.get_or_insert_default().downsample.resolution = *to;
                blocks.insert(id, Seen::fresh(meta.into()));
            }
            Self::Leave { block } => {
                blocks.get_mut(block).into_iter().for_each(|s| s.no_compact = true);
            }
            Self::Mark { block, .. } => {
                blocks.get_mut(block).into_iter().for_each(|s| s.deletion_ms = Some(now_ms));
            }
            Self::Delete { block } => drop(blocks.remove(block)),
        }
    }
}

impl Seen {
    /// A block without marks.
    pub fn fresh(meta: Arc<BlockMeta>) -> Self {
        Self { meta, deletion_ms: None, no_compact: false, no_downsample: false }
    }
}

/// Blocks that may meet.
type Key = (i64, BTreeMap<String, String>, bool, Vec<bool>);

impl Policy {
    /// Refuses what would delete samples before coarse ones are made of them.
    ///
    /// # Errors
    /// Which flag and what it must be.
    pub fn check(&self) -> Result<(), String> {
        for ((to, span), (keep, flag)) in SPANS.iter().zip(self.retention_ms.iter().zip(["raw", "5m"])) {
            if self.downsample && *keep > 0 && keep < span {
                let hours = span / HOURS;
                return Err(format!(
                    "--retention.resolution-{flag} is shorter than the {hours}h that a block must span before samples {} apart are \
                     made of it; fix: at least {hours}h, or --downsampling.disable",
                    if *to == HOUR { "1h" } else { "5m" }
                ));
            }
        }
        Ok(())
    }

    /// External labels after deduplication.
    pub(crate) fn labels(&self, meta: &BlockMeta) -> BTreeMap<String, String> {
        let mut labels = meta.external_labels();
        let had = labels.len();
        labels.retain(|name, _| !self.replica_labels.contains(name));
        if labels.is_empty()
            && had > 0
            && let Some(first) = self.replica_labels.first()
        {
            // A block needs a label. Slot 0 is one of ours; a word that is none makes a block another producer's.
            let value = if meta.is_foreign() { DEDUPED } else { "0" };
            labels.insert(first.clone(), value.to_owned());
        }
        labels
    }

    fn key(&self, meta: &BlockMeta) -> Key {
        (meta.resolution(), self.labels(meta), meta.is_foreign(), class(meta))
    }

    /// The next step for the bucket, or `None` when it is as it should be. `failed` are blocks that a step tripped over.
    pub fn next(
        &self,
        blocks: &BTreeMap<BlockId, Seen>,
        failed: &BTreeSet<BlockId>,
        now_ms: i64,
    ) -> Option<Step> {
        let mut groups: BTreeMap<Key, Vec<&Seen>> = BTreeMap::new();
        for seen in blocks.values().filter(|s| s.deletion_ms.is_none()) {
            groups.entry(self.key(&seen.meta)).or_default().push(seen);
        }
        groups.values_mut().for_each(|g| g.sort_by_key(|s| (s.meta.min_time, s.meta.ulid)));
        groups
            .values()
            .find_map(|g| superseded(g, failed))
            .or_else(|| groups.iter().find_map(|(key, g)| self.merge(key, g, failed)))
            .or_else(|| self.coarser(&groups, failed))
            .or_else(|| groups.values().flatten().find_map(|s| self.expired(s, now_ms)))
            .or_else(|| {
                let due = |t: i64| now_ms.saturating_sub(t) >= self.delete_delay_ms;
                let gone = blocks
                    .values()
                    .find(|s| s.deletion_ms.is_some_and(due) && !failed.contains(&s.meta.ulid));
                gone.map(|s| Step::Delete { block: s.meta.ulid })
            })
    }

    fn merge(
        &self,
        (resolution, labels, foreign, _): &Key,
        group: &[&Seen],
        failed: &BTreeSet<BlockId>,
    ) -> Option<Step> {
        let left: BTreeSet<BlockId> = group
            .iter()
            .filter(|s| s.no_compact || failed.contains(&s.meta.ulid))
            .map(|s| s.meta.ulid)
            .collect();
        let metas: Vec<&BlockMeta> = group.iter().map(|s| &*s.meta).collect();
        let plan = plan_group(&metas, &RANGES, &|m| left.contains(&m.ulid) || m.compaction.failed)?;
        if *resolution > 0 && plan.reason == Reason::Overlap {
            // What two aggregates of one window have in common is not known: nothing to count twice by.
            return Some(Step::Leave { block: plan.blocks[0] });
        }
        let how = if *foreign { self.how } else { How::Exact };
        Some(Step::Merge { blocks: plan.blocks, labels: labels.clone(), how, reason: plan.reason })
    }

    fn coarser(&self, groups: &BTreeMap<Key, Vec<&Seen>>, failed: &BTreeSet<BlockId>) -> Option<Step> {
        for (to, span) in SPANS.into_iter().filter(|_| self.downsample) {
            for ((_, labels, foreign, _), group) in groups.iter().filter(|(key, _)| key.0 == finer(to)) {
                let coarse = groups.iter().filter(|(k, _)| k.0 == to && k.1 == *labels && k.2 == *foreign);
                let of = |m: &BlockMeta| {
                    let part = m.part();
                    m.compaction.sources.iter().map(move |s| (part, *s)).collect::<Vec<_>>()
                };
                let covered: BTreeSet<_> = coarse.flat_map(|(_, g)| g).flat_map(|s| of(&s.meta)).collect();
                let wanted = |s: &&&Seen| {
                    s.meta.max_time - s.meta.min_time >= span
                        && !s.no_downsample
                        && !failed.contains(&s.meta.ulid)
                        && of(&s.meta).iter().any(|source| !covered.contains(source))
                };
                if let Some(seen) = group.iter().find(wanted) {
                    return Some(Step::Downsample { block: seen.meta.ulid, to });
                }
            }
        }
        None
    }

    fn expired(&self, seen: &Seen, now_ms: i64) -> Option<Step> {
        let keep = match seen.meta.resolution() {
            0 => self.retention_ms[0],
            FIVE_MINUTES => self.retention_ms[1],
            _ => self.retention_ms[2],
        };
        let over = keep > 0 && now_ms.saturating_sub(seen.meta.max_time) > keep;
        over.then_some(Step::Mark { block: seen.meta.ulid, why: Why::Expired })
    }
}

/// A block that another one of its group stands for. One that a step tripped over stands for nothing.
fn superseded(group: &[&Seen], failed: &BTreeSet<BlockId>) -> Option<Step> {
    let mut holders: BTreeMap<BlockId, Vec<&BlockMeta>> = BTreeMap::new();
    for seen in group.iter().filter(|s| !failed.contains(&s.meta.ulid)) {
        seen.meta.compaction.sources.iter().for_each(|s| holders.entry(*s).or_default().push(&seen.meta));
    }
    group.iter().find_map(|seen| {
        // Whoever holds all sources of a block holds its first.
        let holders = holders.get(seen.meta.compaction.sources.first()?)?;
        let by = holders.iter().find(|h| h.supersedes(&seen.meta))?;
        Some(Step::Mark { block: seen.meta.ulid, why: Why::Superseded(by.ulid) })
    })
}

#[cfg(test)]
mod tests;
