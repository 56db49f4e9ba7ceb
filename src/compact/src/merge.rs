//! Blocks into one block, series by series.
//!
//! Reads the sources in label order side by side and writes as it goes; nothing but the current series, the order of
//! series numbers (four bytes each) and the output's index is in memory. Deleted ranges are left out, so the output
//! has no tombstones. The output appears in `parent` complete or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use koios_block::meta::{BlockDesc, BlockStats, Compaction, Downsample, MADE_BY, ThanosMeta};
use koios_block::{Block, BlockError, BlockMeta, BlockMetaExtras, BlockWriter};
use koios_chunk::Chunk;
use koios_model::{BlockId, Labels};

use crate::dedup::dedup_series;
use crate::downsample::{downsample_series, finer};
use crate::error::CompactError;
use crate::series::merge_series;
use crate::texts;
use crate::walk::Walk;

/// What the `thanos` section of a compacted block says when its samples are not ours, as Thanos says it.
const COMPACTOR: &str = "compactor";
/// The hint of blocks that hold nothing but out-of-order samples.
const FROM_OUT_OF_ORDER: &str = "from-out-of-order";

/// What a merge is told beside its sources.
pub struct Merge<'a> {
    /// Where the output goes.
    pub parent: &'a Path,
    /// Its id.
    pub id: BlockId,
    /// Asked once per series; true ends the merge, leaving nothing behind.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// What becomes of samples at the same or nearly the same time.
    pub how: How,
    /// External labels of the output; without them those of the sources, which then must agree.
    pub labels: Option<BTreeMap<String, String>>,
    /// Largest index of an output, bytes; what comes to more becomes several blocks, cut between series.
    pub index_bytes_max: u64,
}

/// What becomes of samples of several blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// Every instant of every block, each once: for one producer's samples, and for replicas that stamp alike.
    #[default]
    Exact,
    /// Of replicas that were scraped at different times one goes on, see `koios_chunk::penalty`.
    Penalty,
}

impl<'a> Merge<'a> {
    /// A merge of blocks with the same external labels.
    pub fn new(parent: &'a Path, id: BlockId, stop: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { parent, id, stop, how: How::Exact, labels: None, index_bytes_max: u64::MAX }
    }
}

/// Merges `sources` (one is allowed: it is written again without what is deleted) into block `merge.id`, or into several
/// that share no series and have the ids that follow. Empty when nothing is left, and then nothing was written.
///
/// # Errors
/// `CompactError`: `Source` names the block at fault, `Unlike` when external labels or resolutions differ.
pub fn merge_blocks(sources: &[Block], merge: &Merge<'_>) -> Result<Vec<BlockMeta>, CompactError> {
    let mut ordered: Vec<&Block> = sources.iter().collect();
    ordered.sort_by_key(|b| (b.meta().min_time, b.meta().ulid));
    check_alike(&ordered, merge.labels.is_some())?;
    let mut walk = Walk::new(ordered.clone(), &[])?;
    let mut writers: Vec<BlockWriter> = Vec::new();
    while let Some((labels, parts)) = walk.next_series()? {
        if (merge.stop)() {
            return Err(CompactError::Stopped);
        }
        let chunks = merged_chunks(&ordered, &labels, parts, merge.how)?;
        if chunks.is_empty() {
            continue;
        }
        if writers.last().is_none_or(|w| w.index_bytes() >= merge.index_bytes_max) {
            writers.push(texts::writer(&ordered, merge, writers.len())?);
        }
        let Some(writer) = writers.last_mut() else { unreachable!("BUG: a writer was just made") };
        writer.add_series(&labels, &chunks)?;
    }
    let metas: Vec<&BlockMeta> = ordered.iter().map(|b| b.meta()).collect();
    let ((min, max), count) = (span(&metas), writers.len());
    let mut made = Vec::with_capacity(count);
    for (n, writer) in writers.into_iter().enumerate() {
        let mut extras = lineage(&metas, merge.labels.as_ref());
        extras.part = (count > 1).then_some((n as u64, count as u64));
        made.push(writer.finish(min, max, extras)?);
    }
    Ok(made)
}

/// The id of an output: those of parts follow the first.
pub(crate) fn output_id(first: BlockId, number: usize) -> BlockId {
    let bits = first.to_u128();
    BlockId::from_parts(first.timestamp_ms(), (bits & ((1 << 80) - 1)).wrapping_add(number as u128))
}

/// The time that blocks cover together.
fn span(metas: &[&BlockMeta]) -> (i64, i64) {
    let min = metas.iter().map(|m| m.min_time).min().unwrap_or_default();
    (min, metas.iter().map(|m| m.max_time).max().unwrap_or_default())
}

/// What the meta file of a merged block would say, but for what is counted in writing it.
pub(crate) fn merged_meta(
    metas: &[&BlockMeta],
    id: BlockId,
    labels: Option<&BTreeMap<String, String>>,
) -> BlockMeta {
    let (extras, (min_time, max_time)) = (lineage(metas, labels), span(metas));
    let compaction = Compaction {
        level: extras.level,
        sources: extras.sources,
        parents: extras.parents,
        hints: extras.hints,
        ..Compaction::default()
    };
    let (stats, thanos, other) = (BlockStats::default(), extras.thanos, Default::default());
    BlockMeta { ulid: id, min_time, max_time, stats, compaction, version: 1, thanos, other }
}

/// One series out of what the blocks have of it.
pub(crate) fn merged_chunks(
    blocks: &[&Block],
    labels: &Labels,
    parts: Vec<(usize, Vec<Chunk>)>,
    how: How,
) -> Result<Vec<Chunk>, CompactError> {
    let (holders, parts): (Vec<usize>, Vec<Vec<Chunk>>) = parts.into_iter().unzip();
    let merged = match how {
        How::Exact => merge_series(parts, labels.metric_name() == "up"),
        How::Penalty => dedup_series(parts),
    };
    merged.map_err(|(part, source)| {
        // The reference is lost in the merge; the block is what matters.
        CompactError::of(blocks[holders[part]].meta().ulid)(BlockError::Chunk { reference: 0, source })
    })
}

fn check_alike(blocks: &[&Block], relabelled: bool) -> Result<(), CompactError> {
    let Some((first, rest)) = blocks.split_first() else {
        return Err(CompactError::Unlike("there is none".to_owned()));
    };
    for other in rest {
        let (a, b) = (first.meta(), other.meta());
        if (!relabelled && a.external_labels() != b.external_labels()) || a.resolution() != b.resolution() {
            let what = format!("{} and {} have different external labels or resolutions", a.ulid, b.ulid);
            return Err(CompactError::Unlike(what));
        }
    }
    Ok(())
}

/// Writes block `source` again as block `merge.id` at resolution `to` (`downsample::FIVE_MINUTES`, `HOUR`), which is made of
/// the resolution below it. Lineage is the source's. `None` when it has no samples that count.
///
/// # Errors
/// `CompactError`: `Source` when it is damaged, `Unlike` when it has another resolution than `to` is made of.
pub fn downsample_block(
    source: &Block,
    to: i64,
    merge: &Merge<'_>,
) -> Result<Option<BlockMeta>, CompactError> {
    let meta = source.meta();
    if meta.resolution() != finer(to) {
        return Err(CompactError::Unlike(format!(
            "{} has resolution {} already",
            meta.ulid,
            meta.resolution()
        )));
    }
    let mut walk = Walk::new(vec![source], &[])?;
    let mut writer: Option<BlockWriter> = None;
    while let Some((labels, parts)) = walk.next_series()? {
        if (merge.stop)() {
            return Err(CompactError::Stopped);
        }
        let chunks = merged_chunks(&[source], &labels, parts, merge.how)?;
        let chunks = downsample_series(&chunks, to)
            .map_err(|source| CompactError::of(meta.ulid)(BlockError::Chunk { reference: 0, source }))?;
        if !chunks.is_empty() {
            let writer = match &mut writer {
                Some(writer) => writer,
                None => writer.insert(texts::writer(&[source], merge, 0)?),
            };
            writer.add_series(&labels, &chunks)?;
        }
    }
    let Some(writer) = writer else { return Ok(None) };
    let of = |t: &ThanosMeta| ThanosMeta {
        version: 1,
        labels: t.labels.clone(),
        downsample: Downsample { resolution: to },
        source: if meta.is_foreign() { COMPACTOR } else { MADE_BY }.to_owned(),
        extensions: t.extensions.clone(),
        ..ThanosMeta::default()
    };
    let extras = BlockMetaExtras {
        level: meta.compaction.level,
        sources: meta.compaction.sources.clone(),
        parents: meta.compaction.parents.clone(),
        hints: meta.compaction.hints.clone(),
        thanos: Some(meta.thanos.as_ref().map(of).unwrap_or_else(|| of(&ThanosMeta::default()))),
        part: None,
    };
    Ok(Some(writer.finish(meta.min_time, meta.max_time, extras)?))
}

/// Level, sources, parents, hints and Thanos section of a block made from these.
fn lineage(metas: &[&BlockMeta], labels: Option<&BTreeMap<String, String>>) -> BlockMetaExtras {
    let sources: BTreeSet<BlockId> = metas
        .iter()
        .flat_map(|m| match m.compaction.sources.is_empty() {
            true => vec![m.ulid],
            false => m.compaction.sources.clone(),
        })
        .collect();
    let parents = metas
        .iter()
        .map(|m| BlockDesc { ulid: m.ulid, min_time: m.min_time, max_time: m.max_time })
        .collect();
    let mut hints: BTreeSet<String> = metas.iter().flat_map(|m| m.compaction.hints.clone()).collect();
    // One block in order is enough to make the output one.
    if !metas.iter().all(|m| m.compaction.hints.iter().any(|h| h == FROM_OUT_OF_ORDER)) {
        hints.remove(FROM_OUT_OF_ORDER);
    }
    let thanos = metas.first().and_then(|m| m.thanos.as_ref()).map(|t| ThanosMeta {
        version: 1,
        labels: labels.unwrap_or(&t.labels).clone(),
        downsample: t.downsample,
        source: if metas.iter().any(|m| m.is_foreign()) { COMPACTOR } else { MADE_BY }.to_owned(),
        extensions: if metas.iter().all(|m| m.thanos.as_ref().is_some_and(|o| o.extensions == t.extensions)) {
            t.extensions.clone()
        } else {
            None
        },
        ..ThanosMeta::default()
    });
    BlockMetaExtras {
        level: metas.iter().map(|m| m.compaction.level).max().unwrap_or(0).max(1) + 1,
        sources: sources.into_iter().collect(),
        parents,
        hints: hints.into_iter().collect(),
        thanos,
        part: None,
    }
}
