//! Which blocks to put together next: metas in, a plan out, nothing read or written.
//!
//! The rules are Prometheus' (reference: `LeveledCompactor.plan`): overlapping blocks first; then the oldest aligned
//! range of the next level that is complete, never the newest block, so that it can be backed up as it was cut; then
//! blocks with many deletions, newest first. Blocks of other external labels, of another hint class (cut early for
//! stale or selected series), or downsampled ones never meet. A block that could not be compacted is passed over and
//! keeps the others of its range waiting, as there.

use std::collections::{BTreeMap, BTreeSet};

use koios_block::BlockMeta;
use koios_model::BlockId;

/// Each level spans so many of the one below.
const FACTOR: i64 = 3;
/// Share of series with a deletion above which a block is written again.
const TOMBSTONES_SHARE: f64 = 0.05;
/// Hints that keep a block among its like.
const CLASSES: [&str; 2] = ["from-stale-series", "from-selected-series"];

/// Why blocks are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// They overlap in time.
    Overlap,
    /// They fill a range of the next level.
    Level,
    /// Much of the block is deleted.
    Tombstones,
}

/// Blocks to merge into one, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which.
    pub blocks: Vec<BlockId>,
    /// Why.
    pub reason: Reason,
}

/// The lengths of levels: `min_ms` (the length of a cut), three times that, and so on up to `max_ms`.
pub fn level_ranges(min_ms: i64, max_ms: i64) -> Vec<i64> {
    let mut ranges = vec![min_ms.max(1)];
    while let Some(next) = ranges.last().and_then(|r| r.checked_mul(FACTOR)).filter(|n| *n <= max_ms) {
        ranges.push(next);
    }
    ranges
}

/// The next thing to do, or `None`. `metas` are the raw blocks that count, in any order: none that another one
/// supersedes. `ranges` come from `level_ranges`. `failed` are blocks that a merge tripped over.
pub fn plan(metas: &[BlockMeta], ranges: &[i64], failed: &BTreeSet<BlockId>) -> Option<Plan> {
    let mut groups: BTreeMap<_, Vec<&BlockMeta>> = BTreeMap::new();
    for meta in metas.iter().filter(|m| m.resolution() == 0) {
        groups.entry((meta.external_labels(), class(meta))).or_default().push(meta);
    }
    groups.into_values().find_map(|mut group| {
        group.sort_by_key(|m| (m.min_time, m.ulid));
        let bad = |m: &BlockMeta| m.compaction.failed || failed.contains(&m.ulid);
        overlapping(&group, &bad).or_else(|| {
            let settled = &group[..group.len() - 1];
            levelled(settled, ranges, &bad, Bad::Waits).or_else(|| deleted(settled, ranges, &bad))
        })
    })
}

/// Which of the hints a block has that keep it among its like.
pub(crate) fn class(meta: &BlockMeta) -> Vec<bool> {
    CLASSES.iter().map(|c| meta.compaction.hints.iter().any(|h| h == c)).collect()
}

/// The next thing to do in one group of a bucket, by age; `bad` blocks stay as they are and the others go on without them.
pub(crate) fn plan_group(group: &[&BlockMeta], ranges: &[i64], bad: IsBad<'_>) -> Option<Plan> {
    overlapping(group, bad).or_else(|| {
        let newest = group.last()?;
        let of_newest =
            group.iter().rev().take_while(|m| m.ulid == newest.ulid || siblings(m, newest)).count();
        let settled = &group[..group.len() - of_newest];
        levelled(settled, ranges, bad, Bad::Splits).or_else(|| deleted(settled, ranges, bad))
    })
}

fn ids(blocks: &[&BlockMeta]) -> Vec<BlockId> {
    blocks.iter().map(|m| m.ulid).collect()
}

type IsBad<'a> = &'a dyn Fn(&BlockMeta) -> bool;

/// What becomes of a range of which one block is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bad {
    /// It waits until somebody looks.
    Waits,
    /// What is on one side of the block goes on.
    Splits,
}

/// Whether two blocks are parts of one that was too large: they share their time and no series.
fn siblings(a: &BlockMeta, b: &BlockMeta) -> bool {
    a.part().is_some() && b.part().is_some() && a.compaction.sources == b.compaction.sources
}

fn overlapping(group: &[&BlockMeta], bad: IsBad<'_>) -> Option<Plan> {
    let sound: Vec<&BlockMeta> = group.iter().filter(|m| !bad(m)).copied().collect();
    let mut from = 0;
    while from < sound.len() {
        let mut end = sound[from].max_time;
        let mut to = from + 1;
        while let Some(next) = sound.get(to).filter(|m| m.min_time < end) {
            end = end.max(next.max_time);
            to += 1;
        }
        let run = &sound[from..to];
        if run.len() > 1 && !run.iter().all(|m| siblings(m, run[0])) {
            return Some(Plan { blocks: ids(run), reason: Reason::Overlap });
        }
        from = to;
    }
    None
}

fn levelled(settled: &[&BlockMeta], ranges: &[i64], bad: IsBad<'_>, then: Bad) -> Option<Plan> {
    let newest = settled.last()?.min_time;
    for &range in ranges.iter().skip(1) {
        for part in split(settled, range) {
            let (Some(first), Some(last)) = (part.first(), part.last()) else { continue };
            // A range that may still get a block of the level below waits for it.
            let complete = last.max_time - first.min_time == range || last.max_time <= newest;
            let whole = then == Bad::Splits || !part.iter().any(|m| bad(m));
            if !complete || !whole {
                continue;
            }
            // Blocks on both sides of one that stays never become one: it would lie in the middle of theirs.
            let of_many = |run: &&[&BlockMeta]| run.len() > 1 && !run.iter().all(|m| siblings(m, run[0]));
            if let Some(run) = part.split(|m| bad(m)).find(of_many) {
                return Some(Plan { blocks: ids(run), reason: Reason::Level });
            }
        }
    }
    None
}

/// Runs of blocks within the same aligned stretch of length `range`. A block that does not fit one is in none.
fn split<'a, 'm>(blocks: &'a [&'m BlockMeta], range: i64) -> Vec<&'a [&'m BlockMeta]> {
    let mut parts = Vec::new();
    let mut from = 0;
    while from < blocks.len() {
        let end = blocks[from].min_time.div_euclid(range).saturating_add(1).saturating_mul(range);
        let fitting = blocks[from..].iter().take_while(|m| m.max_time <= end).count();
        if fitting > 0 {
            parts.push(&blocks[from..from + fitting]);
        }
        from += fitting.max(1);
    }
    parts
}

fn deleted(settled: &[&BlockMeta], ranges: &[i64], bad: IsBad<'_>) -> Option<Plan> {
    let long = ranges.get(ranges.len() / 2).copied().unwrap_or(0);
    for meta in settled.iter().rev().filter(|m| !bad(m)) {
        let (stones, series) = (meta.stats.num_tombstones, meta.stats.num_series);
        let plan = Plan { blocks: vec![meta.ulid], reason: Reason::Tombstones };
        if meta.max_time - meta.min_time < long {
            // Taken to be deleted as a whole: its size does not matter then.
            return (stones > 0 && stones >= series).then_some(plan);
        }
        if stones as f64 / (series + 1) as f64 > TOMBSTONES_SHARE {
            return Some(plan);
        }
    }
    None
}

#[cfg(test)]
mod tests;
