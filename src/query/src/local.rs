//! What this node can answer itself: its head, and blocks from the shelf.
//!
//! Serves a peer's scope and the coordinator's own share alike, so that both take one path. Opening blocks and having of
//! them what a question reads is async (it may have to be fetched), reading is CPU work for the pool and never waits.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use futures::{StreamExt, stream};
use koios_block::{Block, BlockError};
use koios_model::{BlockId, Coded, Labels, Matcher};
use koios_store::served::{SharedBlock, settle};
use koios_store::{CatalogueView, Cover, Depth, Dress, Prepared, Question, Shelf, StoreError};

use crate::error::QueryError;
use crate::limits::{FragmentLimits, Tally};
use crate::picked::Picked;
use crate::ports::{Compute, HeadPort, compute_until};
use crate::reading::{Halt, Reading, split};
use crate::scope::{Answer, Form, Missing, MissingReason, Part, Scope, Shard, Words};
use crate::stats::{QueryStats, ServedStats};

/// This node's data, as readers see it.
#[derive(Clone)]
pub struct LocalParts {
    /// Samples not cut yet.
    pub head: Arc<dyn HeadPort>,
    /// Opened blocks.
    pub shelf: Arc<Shelf>,
    /// What lies in the bucket.
    pub catalogue: Arc<ArcSwap<CatalogueView>>,
    /// Where reading happens.
    pub pool: Arc<dyn Compute>,
    /// Blocks that the head forgot samples into lately.
    pub moved: Arc<dyn Fn() -> Vec<BlockId> + Send + Sync>,
    /// Bounds of one fragment.
    pub limits: Arc<FragmentLimits>,
    /// What was asked of this node.
    pub served: Arc<ServedStats>,
}

/// Counts a fragment whose asker went away before its end.
struct Left<'a>(Option<&'a AtomicU64>);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if let Some(counter) = self.0 {
            QueryStats::count(counter);
        }
    }
}

impl LocalParts {
    /// Series of a scope. Dropping the future ends the work.
    ///
    /// # Errors
    /// When the pool has no room or the answer would exceed the scope's limits; a part that cannot be read
    /// is no error but missing.
    pub async fn select(
        &self,
        scope: &Scope,
        matchers: Vec<Matcher>,
        form: Form,
    ) -> Result<Answer, QueryError> {
        QueryStats::count(&self.served.fragments);
        let mut left = Left(Some(&self.served.stopped));
        let (mut answer, mut tally) = (Answer::default(), Tally::default());
        if scope.own {
            let (head, scope, wanted) = (self.head.clone(), scope.clone(), matchers.clone());
            let (limits, external) = (self.limits.clone(), self.head_labels(&scope));
            let read = compute_until(&*self.pool, move |stop| {
                let (scope, limits) = (&scope, &*limits);
                let reading = Reading { scope, matchers: &wanted, limits, labels_only: false, stop };
                let done = reading.head(&*head, &external, &mut answer, &mut tally);
                done.map(|()| (answer, tally))
            });
            match read.await? {
                Ok(read) => (answer, tally) = read,
                Err(halt) => return self.halted(halt, &mut left),
            }
        }
        // Only now: what the head has forgotten by now is in a block that the catalogue shows by now.
        answer.moved = self.moved(scope);
        let (blocks, missing) = self.open(scope).await;
        answer.missing.extend(missing);
        let blocks = match self.prepare(scope, &matchers, form, (blocks, tally), &mut answer.missing).await {
            Ok(blocks) => blocks,
            Err(halt) => return self.halted(halt, &mut left),
        };
        if !blocks.is_empty() {
            let (scope, limits) = (scope.clone(), self.limits.clone());
            let read = compute_until(&*self.pool, move |stop| {
                let (scope, limits, labels_only) = (&scope, &*limits, form == Form::Labels);
                let reading = Reading { scope, matchers: &matchers, limits, labels_only, stop };
                if form == Form::Picked && answer.series.is_empty() {
                    return read_picked(&mut answer, &blocks, &reading).map(|()| answer);
                }
                reading.blocks(&blocks, &mut answer, &mut tally).map(|()| answer)
            });
            match read.await? {
                Ok(read) => answer = read,
                Err(halt) => return self.halted(halt, &mut left),
            }
        }
        if form == Form::Labels {
            answer.series.iter_mut().for_each(|s| s.chunks.clear());
        }
        left.0 = None;
        Ok(answer)
    }

    /// What an end before the end means to the asker.
    fn halted(&self, halt: Halt, left: &mut Left<'_>) -> Result<Answer, QueryError> {
        left.0 = None;
        match halt {
            Halt::Over(e) => Err(e),
            Halt::Split(split) => {
                QueryStats::count(&self.served.split);
                Ok(Answer { split, ..Answer::default() })
            }
            Halt::Stopped => Err(QueryError::Internal("stopped although somebody waits".into())),
        }
    }

    /// Label names (`name` empty) or the values of label `name` in a scope.
    ///
    /// # Errors
    /// When the pool has no room.
    pub async fn words(
        &self,
        scope: &Scope,
        name: String,
        matchers: Vec<Matcher>,
    ) -> Result<Words, QueryError> {
        let (mint, maxt) = (scope.mint, scope.maxt);
        let mut words = Words::default();
        if scope.own {
            let (head, name, wanted) = (self.head.clone(), name.clone(), matchers.clone());
            let external = self.head_labels(scope);
            words = compute_until(&*self.pool, move |_| {
                let read = head_words(&*head, &external, &name, &wanted, (mint, maxt));
                let mut words = Words::default();
                absorb_words(&mut words, Part::Own, read);
                words
            })
            .await?;
        }
        // After the head, as in `select`.
        words.moved = self.moved(scope);
        let (blocks, mut missing) = self.open(scope).await;
        let dress = scope.dress;
        let question = Question {
            matchers: matchers.clone().into(),
            dress,
            depth: Depth::Words,
            keep: None,
            picked_max: u64::MAX,
            series_max: u64::MAX,
            bytes_max: u64::MAX,
        };
        let blocks = self.here(blocks, &question, &mut missing, |_, _| Ok(())).await.unwrap_or_default();
        compute_until(&*self.pool, move |_| {
            words.missing.extend(missing);
            for (block, _) in blocks {
                let read = match name.as_str() {
                    "" => block.label_names(&matchers, (mint, maxt), dress),
                    name => block.label_values(name, &matchers, dress),
                };
                absorb_words(&mut words, Part::Block(block.id()), read.map_err(|e| e.to_string()));
            }
            words.values.sort_unstable();
            words.values.dedup();
            words
        })
        .await
    }

    /// Said after the head was read, never before.
    fn moved(&self, scope: &Scope) -> Vec<BlockId> {
        if scope.own { (self.moved)() } else { Vec::new() }
    }

    /// External labels that samples of the head carry in an answer.
    fn head_labels(&self, scope: &Scope) -> Labels {
        match scope.dress {
            Dress::Home => Labels::empty(),
            Dress::Full => self.shelf.own_labels().clone(),
        }
    }

    /// The blocks of a scope, by id, each with the times that are to be read of it.
    async fn open(&self, scope: &Scope) -> (Vec<Ranged>, Vec<Missing>) {
        let (mint, maxt) = (scope.mint, scope.maxt);
        let mut wanted = match scope.whole_bucket {
            true => self.catalogue.load().cover_at(mint, maxt, scope.max_resolution_ms),
            false => Cover::new(),
        };
        wanted.extend(scope.blocks.iter().map(|id| (*id, vec![(mint, maxt)])));
        let (mut open, mut missing) = (Vec::with_capacity(wanted.len()), Vec::new());
        for (id, ranges) in wanted {
            match self.shelf.get(id).await {
                Ok(block) => open.extend(ranges.into_iter().map(|r| (block.clone(), r))),
                Err(e) => missing.push(without(id, &e)),
            }
        }
        (open, missing)
    }

    /// Those of the blocks of which everything is here that the question reads. The bounds are those of reading, so that
    /// nothing is fetched for an answer that nobody gets.
    async fn prepare(
        &self,
        scope: &Scope,
        matchers: &[Matcher],
        form: Form,
        (blocks, held): (Vec<Ranged>, Tally),
        missing: &mut Vec<Missing>,
    ) -> Result<Vec<Ranged>, Halt> {
        let (limits, of) = (&*self.limits, blocks.len() as u64);
        let may_split = scope.may_split && form != Form::Picked;
        let shard = scope.shard;
        let bound = |split: u64, left: u64, own: u64| if may_split { split } else { left.min(own) };
        let question = Question {
            matchers: matchers.into(),
            dress: scope.dress,
            depth: if form == Form::Labels { Depth::Series } else { Depth::Chunks },
            keep: (shard != Shard::WHOLE)
                .then(|| (Arc::new(move |l: &Labels| shard.holds(l)) as _, format!("{shard:?}"))),
            picked_max: if may_split { limits.split_series } else { u64::MAX },
            series_max: scope.series_max.min(limits.series_max),
            bytes_max: bound(limits.split_bytes, scope.bytes_max, limits.bytes_max),
        };
        let (mut sum, mut tally) = (Prepared::default(), held);
        let bounded = |at: u64, found: Prepared| {
            sum.picked += found.picked;
            if may_split && sum.picked > limits.split_series {
                return Err(Halt::Split(split(sum.picked * of / (at + 1), limits.split_series)));
            }
            tally.series += found.series;
            tally.bytes += found.bytes;
            if may_split && tally.bytes > limits.split_bytes {
                // Of this block not all series may have been looked at.
                let all = found.bytes.saturating_mul(found.picked) / found.series.max(1);
                let all = (tally.bytes - found.bytes).saturating_add(all.max(found.bytes));
                return Err(Halt::Split(split(all.saturating_mul(of) / (at + 1), limits.split_bytes)));
            }
            tally.check(scope, limits).map_err(Halt::Over)
        };
        self.here(blocks, &question, missing, bounded).await
    }

    /// Has of each block what a question reads; `bounded` sees what was found, block by block, and may end it.
    async fn here(
        &self,
        blocks: Vec<Ranged>,
        question: &Question,
        missing: &mut Vec<Missing>,
        mut bounded: impl FnMut(u64, Prepared) -> Result<(), Halt>,
    ) -> Result<Vec<Ranged>, Halt> {
        let one = async |(block, range): Ranged| {
            let found = self.shelf.prepare(&block, question, range).await;
            ((block, range), found)
        };
        let mut all = stream::iter(blocks).map(one).buffered(PREPARED_AT_ONCE).enumerate();
        let mut here: Vec<Ranged> = Vec::new();
        while let Some((at, (block, found))) = all.next().await {
            match found {
                Ok(found) => {
                    bounded(at as u64, found)?;
                    here.push(block);
                }
                Err(e) => missing.push(without(block.0.id(), &e)),
            }
        }
        Ok(here)
    }
}

/// Why a block is not in an answer.
fn without(id: BlockId, e: &StoreError) -> Missing {
    let reason = match (e, e.code()) {
        (StoreError::Bucket(_), koios_model::Code::NotFound) => MissingReason::Gone,
        (StoreError::Bucket(_) | StoreError::Block(BlockError::Absent { .. }), _) => MissingReason::Loading,
        _ => MissingReason::Corrupt,
    };
    Missing { part: Part::Block(id), reason, detail: e.to_string() }
}

/// Blocks of one question that are prepared at a time.
const PREPARED_AT_ONCE: usize = 8;

/// A block and the inclusive times that are to be read of it.
pub(crate) type Ranged = (SharedBlock, (i64, i64));

/// Reads blocks into an answer without series. When only one block has any, they stay where they lie.
fn read_picked(answer: &mut Answer, blocks: &[Ranged], reading: &Reading<'_>) -> Result<(), Halt> {
    let scope = reading.scope;
    let mut picked = Vec::new();
    for (block, (mint, maxt)) in blocks {
        let inner = settle(block.external(scope.dress), reading.matchers);
        match inner.map_or(Ok(Vec::new()), |m| block.block().pick(&m, *mint, *maxt)) {
            Ok(numbers) if numbers.is_empty() => answer.served.push(Part::Block(block.id())),
            found => picked.push(((block, (*mint, *maxt)), found)),
        }
    }
    if let [((block, range), Ok(numbers))] = &mut picked[..]
        && block.is_plain()
        && let Ok(bytes) = settled(block.block(), numbers, scope)
    {
        let tally = Tally { series: numbers.len() as u64, bytes, samples: 0 };
        tally.check(scope, reading.limits).map_err(Halt::Over)?;
        answer.served.push(Part::Block(block.id()));
        answer.picked = Some(Picked::new((*block).clone(), std::mem::take(numbers), *range));
        return Ok(());
    }
    let with_series: Vec<Ranged> =
        picked.into_iter().map(|((block, range), _)| (block.clone(), range)).collect();
    reading.blocks(&with_series, answer, &mut Tally::default())
}

/// Leaves only series that count where that decides whether there are too many. Bytes of their chunks, 0 when all of
/// the block is within the limit.
fn settled(block: &Block, numbers: &mut Vec<u32>, scope: &Scope) -> Result<u64, BlockError> {
    if numbers.len() as u64 > scope.series_max {
        block.retain_in_range(numbers, scope.mint, scope.maxt)?;
    }
    if block.bytes() <= scope.bytes_max {
        return Ok(0);
    }
    block.picked_bytes(numbers, scope.mint, scope.maxt)
}

/// Words of the head, dressed in external labels.
fn head_words(
    head: &dyn HeadPort,
    external: &Labels,
    name: &str,
    matchers: &[Matcher],
    (mint, maxt): (i64, i64),
) -> Result<Vec<String>, String> {
    let Some(inner) = settle(external, matchers) else { return Ok(Vec::new()) };
    let mut words = match (name, external.get(name)) {
        ("", _) | (_, Some(_)) => head.label_names(&inner, mint, maxt)?,
        (name, None) => return head.label_values(name, &inner, mint, maxt),
    };
    if words.is_empty() {
        return Ok(words);
    }
    match external.get(name) {
        Some(value) => words = vec![value.to_owned()],
        None => words.extend(external.iter().map(|(n, _)| n.to_owned())),
    }
    Ok(words)
}

fn absorb_words(words: &mut Words, part: Part, read: Result<Vec<String>, String>) {
    match read {
        Ok(values) => {
            words.values.extend(values);
            words.served.push(part);
        }
        Err(detail) => words.missing.push(Missing { part, reason: MissingReason::Corrupt, detail }),
    }
}
