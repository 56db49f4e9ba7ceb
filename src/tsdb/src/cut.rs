//! Cutting a block out of the heads of one node.
//!
//! Works on views, beside the appenders: it notes who the series are under one short hold of each index, sorts
//! numbers instead of texts, and then copies chunk by chunk. Chunks that reach over the range's ends are
//! encoded again; in production none does, because chunks end with the block range.
//!
//! Invariant: the block holds every sample with `mint <= t < maxt`, provided that no shard takes such samples any
//! more: the caller sees to it with `Shard::refuse_before(maxt)` on every shard before the cut, because a sample
//! that arrives behind the copying would be lost at the truncation.

use std::cmp::Ordering;
use std::path::Path;
use std::sync::Arc;

use koios_block::{BlockMeta, BlockMetaExtras, BlockWriter};
use koios_chunk::{Chunk, encode};
use koios_model::{BlockId, Columns, Labels, Slot};

use crate::error::TsdbError;
use crate::head::HeadView;
use crate::head::index::GAP;
use crate::head::series::{ChunkRule, Page, push_clipped, range_end};

/// Samples of a chunk that had to be put together from overlapping ones.
const MERGED_SAMPLES: usize = 120;

/// The range `[mint, maxt)` that should be cut next from a head spanning these times, both inclusive: the oldest
/// aligned range, once the head spans one and a half of them (Prometheus' rule) and no sample for it can come any
/// more within `late_window_ms` (`HeadStats::out_of_order_window_ms`). `None` when it is too early.
pub fn next_cut_range(
    head_min: i64,
    head_max: i64,
    block_range_ms: i64,
    late_window_ms: i64,
) -> Option<(i64, i64)> {
    let span = head_max.checked_sub(head_min)?;
    if head_min > head_max || block_range_ms <= 0 || span <= block_range_ms / 2 * 3 {
        return None;
    }
    let maxt = range_end(head_min, block_range_ms);
    (head_max.saturating_sub(late_window_ms) >= maxt).then_some((maxt - block_range_ms, maxt))
}

/// Merges the series of `slot` of all heads into one block `id` below `out_dir`, holding `[mint, maxt)`. `None`
/// when there is no sample. The heads are not changed: truncate them once the block is served.
///
/// # Errors
/// `TsdbError::Block` when writing fails, `Chunk` when memory does not decode. Nothing is left behind.
pub fn cut_block(
    views: &[Arc<HeadView>],
    slot: Slot,
    mint: i64,
    maxt: i64,
    out_dir: &Path,
    id: BlockId,
    extras: BlockMetaExtras,
) -> Result<Option<BlockMeta>, TsdbError> {
    let Some(last) = maxt.checked_sub(1).filter(|last| *last >= mint) else { return Ok(None) };
    let mut shards: Vec<Roster> = views.iter().map(|v| Roster::new(v, slot)).collect();
    let mut writer: Option<BlockWriter> = None;
    while let Some(labels) = shards.iter().filter_map(|s| s.current.as_ref()).min().cloned() {
        let mut parts: Vec<Vec<Chunk>> = Vec::new();
        for shard in &mut shards {
            if shard.current.as_ref() == Some(&labels) {
                let mut chunks = Vec::new();
                shard.take(mint, last, &mut chunks)?;
                parts.push(chunks);
            }
        }
        parts.retain(|p| !p.is_empty());
        let chunks = match parts.len() {
            0 => continue,
            1 => parts.swap_remove(0),
            _ => merge(parts)?,
        };
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(BlockWriter::create(out_dir, id)?),
        };
        writer.add_series(&labels, &chunks)?;
    }
    writer.map(|w| w.finish(mint, maxt, extras)).transpose().map_err(TsdbError::from)
}

/// A series that two shards have, as after a change of their number: by time, the first shard's value wins.
fn merge(parts: Vec<Vec<Chunk>>) -> Result<Vec<Chunk>, TsdbError> {
    let mut all = Columns::default();
    for chunk in parts.iter().flatten() {
        chunk.read(i64::MIN, i64::MAX, &mut all)?;
    }
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|&i| all.times[i]);
    order.dedup_by_key(|i| all.times[*i]);
    let mut merged = Columns::default();
    order.into_iter().for_each(|i| merged.push_from(&all, i));
    Ok(encode(&merged, MERGED_SAMPLES))
}

/// A label pair's name and value.
type Pair = (Arc<str>, Arc<str>);

/// The series of one shard in label order, noted at one moment.
struct Roster {
    rule: ChunkRule,
    pages: Vec<Arc<Page>>,
    pairs: Vec<Pair>,
    /// Pair numbers of all series, one after the other.
    pool: Vec<u32>,
    series: Vec<Noted>,
    at: usize,
    /// Labels of `series[at]`.
    current: Option<Labels>,
}

struct Noted {
    id: u64,
    cell: u32,
    /// Where in the pool, and how many.
    labels: (u32, u32),
}

impl Roster {
    fn new(view: &HeadView, slot: Slot) -> Self {
        let mut roster = Self {
            rule: view.rule,
            pages: Vec::new(),
            pairs: Vec::new(),
            pool: Vec::new(),
            series: Vec::new(),
            at: 0,
            current: None,
        };
        {
            let index = view.index.read();
            roster.pages.clone_from(&index.pages);
            roster.pairs = index.pairs.iter().map(|p| (p.name.clone(), p.value.clone())).collect();
            for s in index.series.iter().filter(|s| s.slot == slot && s.cell != GAP) {
                let pairs = index.pairs_of(s);
                let labels = (roster.pool.len() as u32, pairs.len() as u32);
                roster.pool.extend_from_slice(pairs);
                roster.series.push(Noted { id: s.id, cell: s.cell, labels });
            }
        }
        roster.sort();
        roster.load();
        roster
    }

    /// Label sets compare pair by pair, so ranks of pairs compare as the labels do.
    fn sort(&mut self) {
        let mut order: Vec<u32> = (0..self.pairs.len() as u32).collect();
        order.sort_unstable_by(|a, b| self.pairs[*a as usize].cmp(&self.pairs[*b as usize]));
        let mut rank = vec![0u32; order.len()];
        for (r, &p) in order.iter().enumerate() {
            rank[p as usize] = r as u32;
        }
        let pool = &self.pool;
        let ranks =
            |s: &Noted| pool[s.labels.0 as usize..][..s.labels.1 as usize].iter().map(|&p| rank[p as usize]);
        self.series.sort_unstable_by(|a, b| match ranks(a).cmp(ranks(b)) {
            Ordering::Equal => a.id.cmp(&b.id),
            other => other,
        });
    }

    fn load(&mut self) {
        self.current = self.series.get(self.at).map(|s| {
            let pairs = &self.pool[s.labels.0 as usize..][..s.labels.1 as usize];
            Labels::from_sorted(pairs.iter().map(|&p| {
                let (name, value) = &self.pairs[p as usize];
                (&**name, &**value)
            }))
        });
    }

    /// Reads the current series' chunks, clipped to the range, and moves on.
    fn take(&mut self, mint: i64, last: i64, out: &mut Vec<Chunk>) -> Result<(), TsdbError> {
        let noted = &self.series[self.at];
        let mut found = Vec::new();
        if let Some(page) = self.pages.get(noted.cell as usize / crate::head::series::PAGE) {
            let state = page.cell(noted.cell as usize).lock();
            // The cell may belong to another series by now; then this one has no samples any more.
            if state.id == noted.id {
                state.read(mint, last, u64::MAX, self.rule, &mut found)?;
            }
        }
        for chunk in found {
            push_clipped(chunk, mint, last, out)?;
        }
        self.at += 1;
        self.load();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_aligned_and_wait_for_one_and_a_half() {
        const H2: i64 = 7_200_000;
        const HALF_HOUR: i64 = 1_800_000;
        for window in [0, HALF_HOUR] {
            assert_eq!(next_cut_range(10, 10 + H2 / 2 * 3, H2, window), None);
            assert_eq!(next_cut_range(10, 11 + H2 / 2 * 3, H2, window), Some((0, H2)));
            assert_eq!(next_cut_range(H2, 5 * H2, H2, window), Some((H2, 2 * H2)));
            assert_eq!(next_cut_range(-5, 2 * H2, H2, window), Some((-H2, 0)));
            assert_eq!(next_cut_range(i64::MAX, i64::MIN, H2, window), None);
            assert_eq!(next_cut_range(0, 1, 0, window), None);
        }
        // A longer window holds the cut back until it has passed.
        assert_eq!(next_cut_range(10, 4 * H2 - 1, H2, 3 * H2), None);
        assert_eq!(next_cut_range(10, 4 * H2, H2, 3 * H2), Some((0, H2)));
    }
}
