//! Everything that a question reads of a block, made to be here before it is read.
//!
//! Reading is CPU work on whole slices and must not wait for a network. So a question is walked through first: its postings
//! lists, then the entries of the series they name, then the chunks those name, each fetched by ranges where it is not here and
//! checked as reading checks it. Owns that walk and the memory of questions that were walked through. Refuses to answer.
//! Invariants: what does not pass its checksum is fetched once more and then is damage; a question that was walked through
//! is not walked again while the block stays open. Bounds: 4,096 series of one block at a time; 64 questions remembered.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use koios_block::{BlockError, Piece};
use koios_model::{Labels, Matcher};
use parking_lot::Mutex;

use crate::counts::Data;
use crate::error::StoreError;
use crate::served::{Dress, ServedBlock, SharedBlock, dressed, settle};
use crate::sparse::Sparse;

/// Series whose entries and chunks are planned at a time.
const SERIES_AT_ONCE: usize = 4096;
/// Questions that a block remembers.
const REMEMBERED: usize = 64;
/// Looks at the same pieces: a guess, the rest of it, and what came wrongly once more.
const LOOKS_MAX: usize = 8;
/// Fetches of one piece that does not pass its checksum.
const WRONG_MAX: usize = 2;
/// Bytes that tell how long a piece is.
const PREFIX_BYTES: u64 = 5;
/// Lists that a message of one step may hold before it is checked, bytes.
const KEY_BYTES_MAX: usize = 64 << 10;

/// How much of a block a question reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names and values of labels: nothing but the header, unless there are matchers.
    Words,
    /// Which series there are.
    Series,
    /// Their samples.
    Chunks,
}

/// Whether a series counts, by its labels in the answer.
pub type Keep = Arc<dyn Fn(&Labels) -> bool + Send + Sync>;

/// A question, as far as it decides what is read.
#[derive(Clone)]
pub struct Question {
    /// Before external labels are settled.
    pub matchers: Arc<[Matcher]>,
    /// Which external labels the series carry.
    pub dress: Dress,
    /// How much is read.
    pub depth: Depth,
    /// Which series count, and a name that no other choice has.
    pub keep: Option<(Keep, String)>,
    /// Nothing is fetched but postings when they name more series.
    pub picked_max: u64,
    /// No more is fetched once so many series count.
    pub series_max: u64,
    /// No more is fetched once their chunks have more bytes.
    pub bytes_max: u64,
}

/// What a question found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Series that the postings name.
    pub picked: u64,
    /// Of those, how many count.
    pub series: u64,
    /// Bytes of their chunks at the least.
    pub bytes: u64,
}

/// Questions that were walked through.
#[derive(Debug, Default)]
pub(crate) struct Walked(Mutex<VecDeque<(String, Prepared)>>);

impl Walked {
    fn find(&self, key: &str) -> Option<Prepared> {
        self.0.lock().iter().find(|(k, _)| k == key).map(|(_, p)| *p)
    }

    fn note(&self, key: String, prepared: Prepared) {
        if key.len() > KEY_BYTES_MAX {
            return;
        }
        let mut walked = self.0.lock();
        if walked.len() == REMEMBERED {
            walked.pop_front();
        }
        walked.push_back((key, prepared));
    }
}

/// Makes what a question reads of `block` be here; whether anything had to be fetched.
///
/// # Errors
/// `Block` for damage, or what the bucket says.
pub(crate) async fn prepare(
    block: &SharedBlock,
    sparse: &Sparse,
    question: &Question,
    range: (i64, i64),
) -> Result<(Prepared, bool), StoreError> {
    let Some(inner) = settle(block.external(question.dress), &question.matchers) else {
        return Ok(<_>::default());
    };
    if question.depth == Depth::Words && inner.is_empty() {
        return Ok(<_>::default());
    }
    let shard = question.keep.as_ref().map_or("", |(_, name)| name);
    let bounds = (question.picked_max, question.series_max, question.bytes_max);
    let key = format!("{inner:?} {range:?} {:?} {:?} {shard} {bounds:?}", question.depth, question.dress);
    if let Some(known) = block.walked().find(&key) {
        return Ok((known, false));
    }
    let mut walk = Walk { block, sparse, fetched: false };
    let prepared = walk.through(question, inner.into(), range).await?;
    block.walked().note(key, prepared);
    Ok((prepared, walk.fetched))
}

/// One question at one block.
struct Walk<'a> {
    block: &'a SharedBlock,
    sparse: &'a Sparse,
    fetched: bool,
}

impl Walk<'_> {
    async fn through(
        &mut self,
        question: &Question,
        matchers: Arc<[Matcher]>,
        range: (i64, i64),
    ) -> Result<Prepared, StoreError> {
        let wanted = matchers.clone();
        let lists = self.work(move |b| b.block().lists_wanted(&wanted)).await??;
        self.have(lists, Data::Postings).await?;
        let numbers = self.work(move |b| b.block().index().select(&matchers)).await??;
        let mut found = Prepared { picked: numbers.len() as u64, ..Prepared::default() };
        if found.picked > question.picked_max {
            return Ok(found);
        }
        for some in numbers.chunks(SERIES_AT_ONCE) {
            let numbers: Arc<[u32]> = some.into();
            let asked = numbers.clone();
            let entries = self.work(move |b| Ok(b.block().series_wanted(&asked))).await??;
            self.have(entries, Data::Series).await?;
            if question.depth != Depth::Chunks {
                continue;
            }
            let (keep, dress) = (question.keep.clone(), question.dress);
            let plan = move |b: &ServedBlock| {
                let mut pieces = Vec::new();
                let external = b.external(dress);
                let keep = keep.as_ref().map(|(keep, _)| |l: &Labels| keep(&dressed(external, l.clone())));
                let keep = keep.as_ref().map(|k| k as &dyn Fn(&Labels) -> bool);
                let counted = b.block().chunks_wanted(&numbers, range, keep, &mut pieces)?;
                Ok((pieces, counted))
            };
            let (chunks, (series, bytes)) = self.work(plan).await??;
            found.series += series;
            found.bytes += bytes;
            if found.series > question.series_max || found.bytes > question.bytes_max {
                return Ok(found);
            }
            self.have(chunks, Data::Chunks).await?;
        }
        Ok(found)
    }

    /// CPU work where files may be waited for.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ServedBlock) -> Result<T, BlockError> + Send + 'static,
    ) -> Result<Result<T, BlockError>, StoreError> {
        let block = self.block.clone();
        let id = block.id();
        let done = tokio::task::spawn_blocking(move || work(&block)).await;
        done.map_err(|e| StoreError::Damaged { id, detail: e.to_string() })
    }

    /// Fetches what is not here of some pieces, until all pass.
    async fn have(&mut self, pieces: Vec<Piece>, data: Data) -> Result<(), StoreError> {
        let count = pieces.len() as u64;
        let mut look = self.look(pieces).await?;
        let mut bytes = look.bytes;
        if !look.open.is_empty() {
            let _mine = self.sparse.filling.lock().await;
            let mut wrong = 0;
            for _ in 0..LOOKS_MAX {
                look = self.look(std::mem::take(&mut look.open)).await?;
                bytes += look.bytes;
                wrong += usize::from(look.wrong.is_some());
                if let Some(e) = look.wrong.take().filter(|_| wrong == WRONG_MAX) {
                    return Err(e.into());
                }
                if look.open.is_empty() {
                    break;
                }
                self.fetched = true;
                for (segment, ranges) in std::mem::take(&mut look.missing) {
                    self.sparse.fill(segment, ranges, data).await?;
                }
            }
            if let Some(piece) = look.open.first() {
                let detail = format!("{piece:?} does not come to an end");
                return Err(StoreError::Damaged { id: self.block.id(), detail });
            }
        }
        self.sparse.counts().touched(data, count, bytes);
        Ok(())
    }

    async fn look(&self, pieces: Vec<Piece>) -> Result<Look, StoreError> {
        Ok(self.work(move |b| Ok(Look::at(b, pieces))).await??)
    }
}

/// Ranges of one file: the index (`None`) or a segment.
type OfFile = (Option<usize>, Vec<Range<u64>>);

/// What a look at pieces found.
#[derive(Default)]
struct Look {
    /// Pieces that are not here.
    open: Vec<Piece>,
    /// What is to be fetched for them.
    missing: Vec<OfFile>,
    /// Why one that was here did not pass.
    wrong: Option<BlockError>,
    /// Bytes of those that passed.
    bytes: u64,
}

impl Look {
    fn at(block: &ServedBlock, pieces: Vec<Piece>) -> Self {
        let mut look = Self::default();
        let Some(sparse) = block.sparse() else { return look };
        for piece in pieces {
            let Some(present) = sparse.present(piece.segment()) else {
                look.wrong = block.block().check(&piece).err();
                look.open.push(piece);
                continue;
            };
            let likely = piece.range().clone();
            let prefix = likely.start..likely.end.min(likely.start + PREFIX_BYTES);
            if !present.covers(prefix) {
                look.miss(piece, likely);
                continue;
            }
            let checked = block.block().exact(&piece).and_then(|exact| match present.covers(exact.clone()) {
                true => block.block().check(&piece).map(|()| (exact, true)),
                false => Ok((exact, false)),
            });
            match checked {
                Ok((exact, true)) => look.bytes += exact.end - exact.start,
                Ok((exact, false)) => look.miss(piece, exact),
                Err(e) => {
                    let bad = block.block().exact(&piece).unwrap_or_else(|_| likely.clone());
                    present.remove(bad);
                    look.wrong = Some(e);
                    look.miss(piece, likely);
                }
            }
        }
        look
    }

    fn miss(&mut self, piece: Piece, range: Range<u64>) {
        match self.missing.last_mut().filter(|(segment, _)| *segment == piece.segment()) {
            Some((_, ranges)) => ranges.push(range),
            None => self.missing.push((piece.segment(), vec![range])),
        }
        self.open.push(piece);
    }
}
