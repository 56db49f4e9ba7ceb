//! What this node can answer itself: its head, and blocks from the shelf.
//!
//! Serves a peer's scope and the coordinator's own share alike, so that both take one path. Opening blocks is
//! async (they may have to be fetched), reading them is CPU work for the pool.

use std::sync::Arc;

use arc_swap::ArcSwap;
use koios_block::{Block, BlockError};
use koios_model::{BlockId, Coded, Matcher};
use koios_store::served::SharedBlock;
use koios_store::{CatalogueView, Shelf, StoreError};

use crate::error::QueryError;
use crate::picked::Picked;
use crate::ports::{Compute, HeadPort, compute};
use crate::scope::{Answer, Form, Missing, MissingReason, Part, Scope, Words};

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
}

impl LocalParts {
    /// Series of a scope.
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
        let mut answer = Answer::default();
        let mut bytes = 0;
        if scope.own {
            let (head, scope, wanted) = (self.head.clone(), scope.clone(), matchers.clone());
            (answer, bytes) = compute(&*self.pool, move || {
                let read = head.select(&wanted, scope.mint, scope.maxt);
                let (mut answer, mut bytes) = (Answer::default(), 0);
                absorb(&mut answer, &mut bytes, Part::Own, read, &scope)?;
                Ok::<_, QueryError>((answer, bytes))
            })
            .await??;
        }
        // Only now: what the head has forgotten by now is in a block that the catalogue shows by now.
        answer.moved = self.moved(scope);
        let (blocks, missing) = self.open(scope).await;
        answer.missing.extend(missing);
        if !blocks.is_empty() {
            let scope = scope.clone();
            answer = compute(&*self.pool, move || {
                if form == Form::Picked && answer.series.is_empty() {
                    read_picked(&mut answer, &blocks, &matchers, &scope)?;
                    return Ok(answer);
                }
                for block in blocks {
                    let read = block.select(&matchers, scope.mint, scope.maxt).map_err(|e| e.to_string());
                    absorb(&mut answer, &mut bytes, Part::Block(block.id()), read, &scope)?;
                }
                Ok::<_, QueryError>(answer)
            })
            .await??;
        }
        if form == Form::Labels {
            answer.series.iter_mut().for_each(|s| s.chunks.clear());
        }
        Ok(answer)
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
            words = compute(&*self.pool, move || {
                let read = match name.as_str() {
                    "" => head.label_names(&wanted, mint, maxt),
                    name => head.label_values(name, &wanted, mint, maxt),
                };
                let mut words = Words::default();
                absorb_words(&mut words, Part::Own, read);
                words
            })
            .await?;
        }
        // After the head, as in `select`.
        words.moved = self.moved(scope);
        let (blocks, missing) = self.open(scope).await;
        compute(&*self.pool, move || {
            words.missing.extend(missing);
            for block in blocks {
                let read = match name.as_str() {
                    "" => block.label_names(&matchers, mint, maxt),
                    name => block.label_values(name, &matchers),
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

    async fn open(&self, scope: &Scope) -> (Vec<SharedBlock>, Vec<Missing>) {
        let mut ids: Vec<BlockId> = scope.blocks.clone();
        if scope.whole_bucket {
            ids.extend(self.catalogue.load().cover(scope.mint, scope.maxt));
        }
        ids.sort();
        ids.dedup();
        let (mut open, mut missing) = (Vec::with_capacity(ids.len()), Vec::new());
        for id in ids {
            match self.shelf.get(id).await {
                Ok(block) => open.push(block),
                Err(e) => {
                    let reason = match (&e, e.code()) {
                        (StoreError::Bucket(_), koios_model::Code::NotFound) => MissingReason::Gone,
                        (StoreError::Bucket(_), _) => MissingReason::Loading,
                        _ => MissingReason::Corrupt,
                    };
                    missing.push(Missing { part: Part::Block(id), reason, detail: e.to_string() });
                }
            }
        }
        (open, missing)
    }
}

/// Reads blocks into an answer without series. When only one block has any, they stay where they lie.
fn read_picked(
    answer: &mut Answer,
    blocks: &[SharedBlock],
    matchers: &[Matcher],
    scope: &Scope,
) -> Result<(), QueryError> {
    let (mint, maxt) = (scope.mint, scope.maxt);
    let mut picked = Vec::new();
    for block in blocks {
        let inner = block.settle(matchers);
        match inner.map_or(Ok(Vec::new()), |m| block.block().pick(&m, mint, maxt)) {
            Ok(numbers) if numbers.is_empty() => answer.served.push(Part::Block(block.id())),
            found => picked.push((block, found)),
        }
    }
    if let [(block, Ok(numbers))] = &mut picked[..]
        && !block.adds_labels()
        && let Ok(bytes) = settled(block.block(), numbers, scope)
    {
        within_limits(numbers.len() as u64, bytes, scope)?;
        answer.served.push(Part::Block(block.id()));
        answer.picked = Some(Picked::new((*block).clone(), std::mem::take(numbers), (mint, maxt)));
        return Ok(());
    }
    let mut bytes = 0;
    for (block, _) in picked {
        let read = block.select(matchers, mint, maxt).map_err(|e| e.to_string());
        absorb(answer, &mut bytes, Part::Block(block.id()), read, scope)?;
    }
    Ok(())
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

fn absorb(
    answer: &mut Answer,
    bytes: &mut u64,
    part: Part,
    read: Result<Vec<koios_chunk::SeriesChunks>, String>,
    scope: &Scope,
) -> Result<(), QueryError> {
    match read {
        Ok(series) => {
            *bytes += series.iter().flat_map(|s| &s.chunks).map(|c| c.data.len() as u64).sum::<u64>();
            if answer.series.is_empty() {
                answer.series = series;
            } else {
                answer.series.extend(series);
            }
            answer.served.push(part);
        }
        Err(detail) => answer.missing.push(Missing { part, reason: MissingReason::Corrupt, detail }),
    }
    within_limits(answer.series.len() as u64, *bytes, scope)
}

fn within_limits(series: u64, bytes: u64, scope: &Scope) -> Result<(), QueryError> {
    if series > scope.series_max {
        let max = scope.series_max;
        return Err(QueryError::Limit(format!(
            "the query selects more than {max} series; narrow the selector"
        )));
    }
    if bytes > scope.bytes_max {
        let max = scope.bytes_max;
        return Err(QueryError::Limit(format!(
            "the query would fetch more than {max} bytes; narrow it in time or series"
        )));
    }
    Ok(())
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
