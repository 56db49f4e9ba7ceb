//! One series in memory: its chunks, the open one among them, and what of it readers may see.
//!
//! Owns the per-series half of isolation; `open` has the rule when a chunk is closed, `late` has the samples that
//! came out of order. Refuses identity and labels, which the index has. Invariants: samples ascend strictly over
//! all chunks; a series with samples has an open chunk, whose last sample is younger than any late one; no chunk
//! spans a border of the block range.

use koios_chunk::{Chunk, ChunkError};
use parking_lot::Mutex;

use super::closed::{ClosedChunk, Stretch, Windows};
use super::late::{Late, Writer};
use super::open::OpenChunk;
use super::pack;
use crate::types::Value;

/// What the rule for closing chunks needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkRule {
    pub(crate) range_ms: i64,
    pub(crate) samples: u16,
}

/// Series of one allocation.
pub(crate) const PAGE: usize = 256;

/// A run of series cells that is allocated together and never moves.
pub(crate) struct Page(Box<[Mutex<SeriesState>; PAGE]>);

impl Page {
    pub(crate) fn new() -> Self {
        Self(Box::new(std::array::from_fn(|_| Mutex::new(SeriesState::default()))))
    }

    pub(crate) fn cell(&self, i: usize) -> &Mutex<SeriesState> {
        &self.0[i % PAGE]
    }
}

/// Newest times before batches that some running reader may not see, oldest batch first.
type Older = Vec<(u64, i64)>;

/// A series' samples.
#[derive(Debug, Default)]
pub(crate) struct SeriesState {
    /// Reference of the series that lives here, 0 when the cell is free.
    pub(crate) id: u64,
    /// The batch that appended last.
    last_batch: u64,
    /// Newest time before that batch: what a reader that may not see the batch may see.
    before_batch: i64,
    /// The same for earlier batches, while there is a reader that may not see them: rarely.
    #[allow(clippy::box_collection, reason = "two words less in every series")]
    older: Option<Box<Older>>,
    closed: Vec<ClosedChunk>,
    open: Option<OpenChunk>,
    late: Option<Box<Late>>,
}

impl SeriesState {
    /// Starts the cell's next life.
    pub(crate) fn reset(&mut self, id: u64) {
        *self = Self { id, before_batch: i64::MIN, ..Self::default() };
    }

    pub(crate) fn last_time(&self) -> Option<i64> {
        self.open.as_ref().map(OpenChunk::last_time)
    }

    pub(crate) fn last(&self) -> Option<(i64, Value)> {
        self.open.as_ref().map(|o| (o.last_time(), o.last_value()))
    }

    pub(crate) fn first_time(&self) -> Option<i64> {
        let in_order = self.closed.first().map(|c| c.min_time).or(self.open.as_ref().map(|o| o.min_time));
        in_order.into_iter().chain(self.late.as_ref().and_then(|l| l.first_time())).min()
    }

    pub(crate) fn chunk_count(&self) -> usize {
        let late = self.late.as_ref().map_or(0, |l| l.chunk_count());
        self.closed.len() + usize::from(self.open.is_some()) + late
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        let closed: usize = self.closed.iter().map(ClosedChunk::heap_bytes).sum();
        let open = self.open.as_ref().map_or(0, OpenChunk::heap_bytes);
        let late = self.late.as_ref().map_or(0, |l| l.heap_bytes());
        closed + open + late + self.closed.capacity() * size_of::<ClosedChunk>()
    }

    /// Notes that `batch` is about to append. `oldest_reader` is the newest batch that the most backward
    /// running reader sees; what it may not see must stay known.
    #[inline]
    pub(crate) fn begin_batch(&mut self, batch: u64, oldest_reader: u64) {
        if self.last_batch == batch {
            return;
        }
        if self.last_batch > oldest_reader {
            let older = self.older.get_or_insert_default();
            older.retain(|(b, _)| *b > oldest_reader);
            older.push((self.last_batch, self.before_batch));
        } else if self.older.is_some() {
            self.older = None;
        }
        self.before_batch = self.last_time().unwrap_or(i64::MIN);
        self.last_batch = batch;
    }

    /// Newest time that a reader seeing batches up to `upto` may see.
    fn visible_until(&self, upto: u64) -> i64 {
        if self.last_batch <= upto {
            return i64::MAX;
        }
        let older = self.older.iter().flat_map(|o| o.iter());
        older.clone().find(|(b, _)| *b > upto).map_or(self.before_batch, |(_, before)| *before)
    }

    /// Appends a sample that is newer than all others. Answers how many chunks were opened, 0 or 1.
    #[inline]
    pub(crate) fn append(&mut self, t: i64, v: f64, rule: ChunkRule) -> usize {
        if let Some(open) = &mut self.open
            && open.append_float(t, v, rule)
        {
            return 0;
        }
        self.close_open();
        self.open = Some(OpenChunk::of_float(t, v, rule));
        1
    }

    /// The same for any kind of sample.
    pub(crate) fn append_value(&mut self, t: i64, v: &Value, rule: ChunkRule) -> usize {
        if let Value::Float(v) = v {
            return self.append(t, *v, rule);
        }
        let Some(next) = OpenChunk::append_histogram(self.open.as_mut(), t, v, rule) else { return 0 };
        self.close_open();
        self.open = Some(next);
        1
    }

    fn close_open(&mut self) {
        let Some(open) = self.open.take() else { return };
        let (min_time, max_time, encoding, data) = open.close();
        let closed = ClosedChunk::new(min_time, max_time, encoding, data.into());
        // Once in half an hour: rather moved than kept in store.
        self.closed.reserve_exact(1);
        self.closed.push(closed.expect("BUG: a head chunk spans more than a block range"));
    }

    /// Adds the bytes of the closed chunks that are in memory.
    pub(crate) fn put_unspilled(&self, out: &mut Vec<u8>) {
        self.closed.iter().filter(|c| c.in_memory()).for_each(|c| out.extend_from_slice(c.data()));
    }

    /// Takes over what `put_unspilled` added, now in a file from `there` on.
    pub(crate) fn take_spilled(&mut self, there: &mut Stretch) {
        self.closed.iter_mut().filter(|c| c.in_memory()).for_each(|c| c.move_to(there));
    }

    /// Takes a sample that is older than the newest one, unless there is one at its time already; answers whether
    /// it did. `begin_batch` came before.
    pub(crate) fn insert_late(&mut self, t: i64, v: &Value, who: Writer, rule: ChunkRule) -> bool {
        if self.last_time().is_none_or(|last| last < t) {
            self.append_value(t, v, rule);
            return true;
        }
        if self.has_in_order(t) || self.late.as_ref().is_some_and(|l| l.has(t)) {
            return false;
        }
        self.late.get_or_insert_default().insert(t, v.clone(), who, rule);
        true
    }

    /// Whether a chunk overlaps `mint..=maxt`.
    pub(crate) fn has_between(&self, mint: i64, maxt: i64) -> bool {
        self.closed.iter().any(|c| c.overlaps(mint, maxt))
            || self.open.as_ref().is_some_and(|o| o.min_time <= maxt && mint <= o.last_time())
            || self.late.as_ref().is_some_and(|l| l.overlaps(mint, maxt))
    }

    /// Removes the samples within `mint..=maxt`.
    ///
    /// # Errors
    /// `ChunkError` when a chunk that must be shortened does not decode.
    pub(crate) fn remove(&mut self, mint: i64, maxt: i64, rule: ChunkRule) -> Result<(), ChunkError> {
        let Some(last) = self.last_time() else { return Ok(()) };
        if self.first_time().is_some_and(|first| mint <= first) && last <= maxt {
            (self.closed, self.open, self.late) = (Vec::new(), None, None);
            return Ok(());
        }
        let mut chunks = Vec::new();
        let mut next_at = self.all_chunks(&mut chunks);
        if chunks.iter().any(|c| c.overlaps(mint, maxt)) {
            let mut kept = Vec::with_capacity(chunks.len());
            for c in chunks {
                if c.overlaps(mint, maxt) {
                    kept.extend(c.retain(|t| t < mint || t > maxt)?);
                } else {
                    kept.push(c);
                }
            }
            // Where the open chunk is gone the one before takes its place, and takes no more samples.
            next_at = match kept.last() {
                Some(c) if c.max_time < last => c.max_time,
                _ => next_at,
            };
            self.restore(kept, next_at, rule, None)?;
        }
        if let Some(late) = &mut self.late
            && !late.remove(mint, maxt, rule)?
        {
            self.late = None;
        }
        self.settle_late(rule)
    }

    /// Late samples that are the youngest ones now become ordinary ones.
    fn settle_late(&mut self, rule: ChunkRule) -> Result<(), ChunkError> {
        let Some(late) = &mut self.late else { return Ok(()) };
        let after = self.open.as_ref().map_or(i64::MIN, |o| o.last_time().saturating_add(1));
        let youngest = late.read(after, i64::MAX, u64::MAX)?;
        if !youngest.is_empty() && !late.remove(after, i64::MAX, rule)? {
            self.late = None;
        }
        youngest.iter().for_each(|(t, v)| {
            self.append_value(*t, v, rule);
        });
        Ok(())
    }

    fn has_in_order(&self, t: i64) -> bool {
        let at = self.closed.partition_point(|c| c.max_time() < t);
        if self.closed.get(at).is_some_and(|c| c.has(t)) {
            return true;
        }
        let open =
            self.open.as_ref().filter(|o| o.min_time <= t).and_then(|o| ClosedChunk::of(&o.to_chunk()));
        open.is_some_and(|c| c.has(t))
    }

    /// Chunks that overlap `mint..=maxt`, without what batches after `upto` brought, in time order and without
    /// overlap: late samples are merged in.
    ///
    /// # Errors
    /// `ChunkError` when a chunk that must be shortened or merged does not decode.
    pub(crate) fn read(
        &self,
        mint: i64,
        maxt: i64,
        upto: u64,
        rule: ChunkRule,
        out: &mut Vec<Chunk>,
    ) -> Result<(), ChunkError> {
        let Some(late) = &self.late else { return self.read_in_order(mint, maxt, upto, out) };
        let mut chunks = Vec::new();
        self.read_in_order(mint, maxt, upto, &mut chunks)?;
        // Whole chunks go out, so whole chunks are merged.
        let mint = chunks.first().map_or(mint, |c| c.min_time.min(mint));
        let maxt = chunks.last().map_or(maxt, |c| c.max_time.max(maxt));
        out.extend(pack::merge(chunks, late.read(mint, maxt, upto)?, rule)?);
        Ok(())
    }

    fn read_in_order(&self, mint: i64, maxt: i64, upto: u64, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
        let until = self.visible_until(upto);
        for c in &self.closed {
            if c.min_time > maxt.min(until) {
                break;
            }
            if c.max_time() >= mint {
                push_until(c.to_chunk(), until, out)?;
            }
        }
        if let Some(open) = &self.open
            && open.min_time <= maxt.min(until)
            && open.last_time() >= mint
        {
            push_until(open.to_chunk(), until, out)?;
        }
        Ok(())
    }

    /// All chunks for a checkpoint, and where the open one, which is the last, ends.
    pub(crate) fn all_chunks(&self, out: &mut Vec<Chunk>) -> i64 {
        out.extend(self.closed.iter().map(ClosedChunk::to_chunk));
        match &self.open {
            Some(open) => {
                out.push(open.to_chunk());
                open.next_at
            }
            None => 0,
        }
    }

    /// Late samples for a checkpoint, as chunks in no order.
    pub(crate) fn late_chunks(&self, rule: ChunkRule) -> Vec<Chunk> {
        self.late.as_ref().map_or_else(Vec::new, |l| l.all_chunks(rule))
    }

    /// Puts late samples of a checkpoint back, after `restore`.
    ///
    /// # Errors
    /// `ChunkError` when chunks are damaged.
    pub(crate) fn restore_late(&mut self, chunks: &[Chunk], rule: ChunkRule) -> Result<(), ChunkError> {
        self.late.get_or_insert_default().restore(chunks, rule)
    }

    /// Puts chunks, those of a checkpoint in `file`, into an empty cell; the last becomes the open one.
    ///
    /// # Errors
    /// `ChunkError` when chunks are damaged or out of order.
    pub(crate) fn restore(
        &mut self,
        chunks: Vec<Chunk>,
        next_at: i64,
        rule: ChunkRule,
        file: Option<&Windows>,
    ) -> Result<(), ChunkError> {
        let damaged = |what| ChunkError::Damaged { sample: 0, what };
        if chunks.windows(2).any(|w| w[0].max_time >= w[1].min_time) {
            return Err(damaged("chunks of a checkpoint are not in time order"));
        }
        let mut closed = Vec::with_capacity(chunks.len().saturating_sub(1));
        let count = chunks.len();
        let mut open = None;
        for (i, c) in chunks.into_iter().enumerate() {
            if i + 1 == count {
                open = Some(OpenChunk::resume(&c, next_at, rule)?);
            } else {
                let chunk = file.map_or_else(|| ClosedChunk::of(&c), |file| ClosedChunk::within(&c, file));
                closed.push(chunk.ok_or_else(|| damaged("chunk spans too much time"))?);
            }
        }
        self.closed = closed;
        self.open = open;
        Ok(())
    }

    /// Forgets samples before `before`. Answers whether any are left.
    ///
    /// # Errors
    /// `ChunkError` when a chunk that must be shortened does not decode; nothing is forgotten then.
    pub(crate) fn truncate(&mut self, before: i64, rule: ChunkRule) -> Result<bool, ChunkError> {
        let gone = self.closed.partition_point(|c| c.max_time() < before);
        let mut shortened = None;
        if let Some(c) = self.closed.get(gone).filter(|c| c.min_time < before) {
            let mut kept = Vec::with_capacity(1);
            push_clipped(c.to_chunk(), before, i64::MAX, &mut kept)?;
            shortened = kept.pop();
        }
        if let Some(open) = self.open.as_ref().filter(|o| o.min_time < before) {
            let mut kept = Vec::with_capacity(1);
            push_clipped(open.to_chunk(), before, i64::MAX, &mut kept)?;
            let next_at = open.next_at;
            self.open = kept.pop().map(|c| OpenChunk::resume(&c, next_at, rule)).transpose()?;
        }
        self.closed.drain(..gone);
        if let (Some(c), Some(first)) = (shortened, self.closed.first_mut())
            && let Some(chunk) = ClosedChunk::of(&c)
        {
            *first = chunk;
        }
        self.closed.shrink_to_fit();
        if let Some(late) = &mut self.late
            && !late.remove(i64::MIN, before.saturating_sub(1), rule)?
        {
            self.late = None;
        }
        Ok(self.open.is_some())
    }
}

fn push_until(chunk: Chunk, until: i64, out: &mut Vec<Chunk>) -> Result<(), ChunkError> {
    if chunk.max_time <= until {
        out.push(chunk);
        return Ok(());
    }
    push_clipped(chunk, i64::MIN, until, out)
}

/// Adds the part of a chunk within `mint..=maxt`, encoded again when it is not the whole.
///
/// # Errors
/// `ChunkError` when it must be encoded again and does not decode.
pub(crate) fn push_clipped(
    chunk: Chunk,
    mint: i64,
    maxt: i64,
    out: &mut Vec<Chunk>,
) -> Result<(), ChunkError> {
    if mint <= chunk.min_time && chunk.max_time <= maxt {
        out.push(chunk);
        return Ok(());
    }
    out.extend(chunk.retain(|t| (mint..=maxt).contains(&t))?);
    Ok(())
}

/// End of the aligned range that `t` lies in.
pub(crate) fn range_end(t: i64, range_ms: i64) -> i64 {
    t.div_euclid(range_ms).saturating_add(1).saturating_mul(range_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_model::Columns;

    const RULE: ChunkRule = ChunkRule { range_ms: 7_200_000, samples: 120 };

    fn chunks(s: &SeriesState, upto: u64) -> Vec<Chunk> {
        let mut out = Vec::new();
        s.read(i64::MIN, i64::MAX, upto, RULE, &mut out).unwrap();
        out
    }

    #[test]
    fn chunks_are_even_and_end_with_the_range() {
        let mut s = SeriesState::default();
        let opened: usize = (0..960).map(|i| s.append(i * 15_000, i as f64, RULE)).sum();
        let all = chunks(&s, u64::MAX);
        assert_eq!((opened, all.len(), s.chunk_count()), (8, 8, 8));
        let counts: Vec<_> = all.iter().map(|c| c.sample_count().unwrap()).collect();
        assert_eq!(counts, [120; 8]);
        assert!(all.iter().all(|c| c.min_time.div_euclid(7_200_000) == c.max_time.div_euclid(7_200_000)));
    }

    #[test]
    fn dense_or_large_chunks_are_cut() {
        let mut dense = SeriesState::default();
        (0..500).for_each(|i| {
            dense.append(i, 0.0, RULE);
        });
        assert!(chunks(&dense, u64::MAX).iter().all(|c| c.sample_count().unwrap() <= 240));
        let mut large = SeriesState::default();
        (0..500u64).for_each(|i| {
            large.append(i as i64 * 30_000, f64::from_bits(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)), RULE);
        });
        assert!(chunks(&large, u64::MAX).iter().all(|c| c.data.len() < 1005 + 30));
    }

    #[test]
    fn batches_hide_until_committed() {
        let mut s = SeriesState::default();
        s.reset(1);
        for batch in 1..=5u64 {
            s.begin_batch(batch, 2);
            s.append(batch as i64 * 10, 1.0, RULE);
            s.append(batch as i64 * 10 + 1, 1.0, RULE);
        }
        for upto in [2, 3, 4, 5, u64::MAX] {
            let times: Vec<i64> = chunks(&s, upto).last().map(|c| c.max_time).into_iter().collect();
            assert_eq!(times, [(upto.min(5) as i64) * 10 + 1], "reader of {upto}");
        }
        assert_eq!(s.older.as_ref().unwrap().len(), 2);
        s.begin_batch(6, u64::MAX);
        assert!(s.older.is_none());
    }

    #[test]
    fn truncates_inside_chunks() {
        let mut s = SeriesState::default();
        (0..300).for_each(|i| {
            s.append(i * 15_000, i as f64, RULE);
        });
        assert!(s.truncate(130 * 15_000, RULE).unwrap());
        assert_eq!(s.first_time(), Some(130 * 15_000));
        let mut columns = Columns::default();
        for c in chunks(&s, u64::MAX) {
            c.read(i64::MIN, i64::MAX, &mut columns).unwrap();
        }
        assert_eq!(columns.values, (130..300).map(f64::from).collect::<Vec<_>>());
        assert!(s.truncate(299 * 15_000, RULE).unwrap());
        assert_eq!(
            (s.first_time(), s.last()),
            (Some(299 * 15_000), Some((299 * 15_000, Value::Float(299.0))))
        );
        assert!(!s.truncate(300 * 15_000, RULE).unwrap());
        assert_eq!(s.chunk_count(), 0);
    }
}
