//! Out-of-order samples of one series: those that came when a younger one was there already.
//!
//! A few are kept as they are, sorted; more of them are packed into chunks, and many chunks are put in order from
//! time to time, so that memory stays that of chunks and every look-up stays short. What a running reader may not
//! see is never packed together with what it may. Refuses: the log, and the question whether a sample may still
//! come. Invariants: no time stands twice; the first `sorted` chunks ascend without overlap; a series without
//! such samples has no `Late`.

use koios_chunk::{Chunk, ChunkError};

use super::closed::ClosedChunk;
use super::pack::{Timed, pack, samples_of};
use super::series::ChunkRule;
use crate::types::Value;

/// Samples kept unpacked (Prometheus' `DefaultOutOfOrderCapMax`).
const BUFFER_MAX: usize = 32;
/// Chunks in no order before all are put in order.
const UNSORTED_MAX: usize = 8;

#[derive(Debug)]
struct LateSample {
    t: i64,
    /// The batch that brought it.
    batch: u64,
    v: Value,
}

#[derive(Debug)]
struct Packed {
    chunk: ClosedChunk,
    /// The batch that a reader must see to see the chunk.
    batch: u64,
}

/// A series' out-of-order samples.
#[derive(Debug, Default)]
pub(crate) struct Late {
    buffer: Vec<LateSample>,
    packed: Vec<Packed>,
    sorted: usize,
}

/// Who is adding: the batch, and up to which batch every running reader sees everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    pub(crate) batch: u64,
    pub(crate) seen_by_all: u64,
}

impl Writer {
    pub(crate) fn new(batch: u64, oldest_reader: u64) -> Self {
        Self { batch, seen_by_all: oldest_reader.min(batch.saturating_sub(1)) }
    }
}

/// Packs into chunks as they are held in memory.
fn packed(samples: &[Timed], batch: u64, rule: ChunkRule) -> impl Iterator<Item = Packed> {
    pack(samples, rule).into_iter().filter_map(move |c| Some(Packed { chunk: ClosedChunk::of(&c)?, batch }))
}

impl Late {
    /// Whether there is a sample at this time. What does not decode has none: reading it says so.
    pub(crate) fn has(&self, t: i64) -> bool {
        let holds = |p: &Packed| p.chunk.has(t);
        if self.buffer.binary_search_by_key(&t, |s| s.t).is_ok() {
            return true;
        }
        let (sorted, rest) = self.packed.split_at(self.sorted);
        let at = sorted.partition_point(|p| p.chunk.max_time() < t);
        sorted.get(at).is_some_and(holds) || rest.iter().any(holds)
    }

    /// Adds a sample at a time that has none yet.
    pub(crate) fn insert(&mut self, t: i64, v: Value, who: Writer, rule: ChunkRule) {
        let at = self.buffer.partition_point(|s| s.t < t);
        if self.buffer.len() == self.buffer.capacity() {
            self.buffer.reserve_exact(8);
        }
        self.buffer.insert(at, LateSample { t, batch: who.batch, v });
        if self.buffer.len() >= BUFFER_MAX {
            self.pack_buffer(who, rule);
        }
    }

    /// Packs what all readers see, and what this batch brought when that is enough for a chunk of its own.
    fn pack_buffer(&mut self, who: Writer, rule: ChunkRule) {
        let own = self.buffer.iter().filter(|s| s.batch == who.batch).count();
        let (mut seen, mut new, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for s in self.buffer.drain(..) {
            if s.batch <= who.seen_by_all {
                seen.push((s.t, s.v));
            } else if s.batch == who.batch && own >= BUFFER_MAX / 2 {
                new.push((s.t, s.v));
            } else {
                kept.push(s);
            }
        }
        kept.shrink_to_fit();
        self.buffer = kept;
        self.packed.extend(packed(&seen, 0, rule));
        self.packed.extend(packed(&new, who.batch, rule));
        let unsorted = self.packed.len() - self.sorted;
        if unsorted > UNSORTED_MAX.max(self.sorted) {
            self.tidy(who.seen_by_all, rule);
        }
    }

    /// Puts the chunks that all readers see in order. One that does not decode stays among the unsorted.
    fn tidy(&mut self, seen_by_all: u64, rule: ChunkRule) {
        let (mut all, mut rest): (Vec<Timed>, Vec<Packed>) = Default::default();
        for p in self.packed.drain(..) {
            match p.chunk.samples() {
                Ok(samples) if p.batch <= seen_by_all => all.extend(samples),
                _ => rest.push(p),
            }
        }
        all.sort_by_key(|(t, _)| *t);
        self.packed.extend(packed(&all, 0, rule));
        self.sorted = self.packed.len();
        self.packed.append(&mut rest);
    }

    /// The samples within a range that a reader of batches up to `upto` may see, by time.
    ///
    /// # Errors
    /// `ChunkError` when a chunk does not decode.
    pub(crate) fn read(&self, mint: i64, maxt: i64, upto: u64) -> Result<Vec<Timed>, ChunkError> {
        let mut out = Vec::new();
        for p in self.packed.iter().filter(|p| p.batch <= upto && p.chunk.overlaps(mint, maxt)) {
            out.extend(p.chunk.samples()?.into_iter().filter(|(t, _)| (mint..=maxt).contains(t)));
        }
        let from = self.buffer.partition_point(|s| s.t < mint);
        let open = self.buffer[from..].iter().take_while(|s| s.t <= maxt).filter(|s| s.batch <= upto);
        out.extend(open.map(|s| (s.t, s.v.clone())));
        out.sort_by_key(|(t, _)| *t);
        Ok(out)
    }

    pub(crate) fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        self.packed.iter().any(|p| p.chunk.overlaps(mint, maxt))
            || self.buffer.iter().any(|s| (mint..=maxt).contains(&s.t))
    }

    pub(crate) fn first_time(&self) -> Option<i64> {
        let packed = self.packed.iter().map(|p| p.chunk.min_time).min();
        packed.into_iter().chain(self.buffer.first().map(|s| s.t)).min()
    }

    pub(crate) fn chunk_count(&self) -> usize {
        self.packed.len() + usize::from(!self.buffer.is_empty())
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let value = |v: &Value| match v {
            Value::Float(_) => 0,
            Value::Histogram(h) => size_of_val(&**h) + h.heap_bytes(),
            Value::FloatHistogram(h) => h.memory_bytes(),
        };
        size_of::<Self>()
            + self.packed.capacity() * size_of::<Packed>()
            + self.packed.iter().map(|p| p.chunk.heap_bytes()).sum::<usize>()
            + self.buffer.capacity() * size_of::<LateSample>()
            + self.buffer.iter().map(|s| value(&s.v)).sum::<usize>()
    }

    /// All of it as chunks in no order, for a checkpoint.
    pub(crate) fn all_chunks(&self, rule: ChunkRule) -> Vec<Chunk> {
        let open: Vec<Timed> = self.buffer.iter().map(|s| (s.t, s.v.clone())).collect();
        self.packed.iter().map(|p| p.chunk.to_chunk()).chain(pack(&open, rule)).collect()
    }

    /// Takes over chunks of a checkpoint.
    ///
    /// # Errors
    /// `ChunkError` for a chunk that does not decode or spans too much time.
    pub(crate) fn restore(&mut self, chunks: &[Chunk], rule: ChunkRule) -> Result<(), ChunkError> {
        for c in chunks {
            samples_of(c.encoding, &c.data)?;
            let damaged = ChunkError::Damaged { sample: 0, what: "chunk spans too much time" };
            self.packed.push(Packed { chunk: ClosedChunk::of(c).ok_or(damaged)?, batch: 0 });
        }
        if self.packed.len() > UNSORTED_MAX {
            self.tidy(0, rule);
        }
        Ok(())
    }

    /// Removes the samples within a range. Answers whether any are left.
    ///
    /// # Errors
    /// `ChunkError` when a chunk that must be shortened does not decode; nothing has changed then.
    pub(crate) fn remove(&mut self, mint: i64, maxt: i64, rule: ChunkRule) -> Result<bool, ChunkError> {
        let stays = |t: i64| t < mint || t > maxt;
        let mut kept: Vec<Option<Vec<Timed>>> = Vec::with_capacity(self.packed.len());
        for p in &self.packed {
            let within = mint <= p.chunk.min_time && p.chunk.max_time() <= maxt;
            kept.push(match p.chunk.overlaps(mint, maxt) {
                false => None,
                true if within => Some(Vec::new()),
                true => Some(p.chunk.samples()?.into_iter().filter(|(t, _)| stays(*t)).collect()),
            });
        }
        if kept.iter().any(Option::is_some) {
            let (mut out, mut sorted) = (Vec::new(), 0);
            for (i, (p, kept)) in std::mem::take(&mut self.packed).into_iter().zip(kept).enumerate() {
                match kept {
                    None => out.push(p),
                    Some(samples) => out.extend(packed(&samples, p.batch, rule)),
                }
                if i < self.sorted {
                    sorted = out.len();
                }
            }
            out.shrink_to_fit();
            (self.packed, self.sorted) = (out, sorted);
        }
        self.buffer.retain(|s| stays(s.t));
        Ok(!self.buffer.is_empty() || !self.packed.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: ChunkRule = ChunkRule { range_ms: 1 << 30, samples: 120 };

    fn times(late: &Late, upto: u64) -> Vec<i64> {
        late.read(i64::MIN, i64::MAX, upto).unwrap().into_iter().map(|(t, _)| t).collect()
    }

    #[test]
    fn many_in_any_order_stay_small_and_found() {
        let mut late = Late::default();
        let mut all: Vec<i64> = (0..5000i64).map(|i| i * 7919 % 5003).collect();
        for (i, &t) in all.iter().enumerate() {
            assert!(!late.has(t));
            late.insert(t, Value::Float(1.0), Writer::new(i as u64 + 1, u64::MAX), RULE);
            assert!(late.has(t));
        }
        all.sort_unstable();
        assert_eq!(times(&late, u64::MAX), all);
        assert!(late.packed.len() < 120 && late.heap_bytes() < 40_000, "{} bytes", late.heap_bytes());
        assert!(!late.has(-1) && !late.has(5003) && late.first_time() == all.first().copied());
        assert_eq!(late.read(100, 103, u64::MAX).unwrap().len(), 4);
    }

    #[test]
    fn readers_see_what_was_there_when_they_began() {
        let mut late = Late::default();
        for batch in 1..=5u64 {
            let who = Writer::new(batch, 2);
            (0..40).for_each(|i| late.insert(i * 10 + batch as i64, Value::Float(0.0), who, RULE));
        }
        for upto in 2..=5u64 {
            assert_eq!(times(&late, upto).len(), 40 * upto as usize, "reader of {upto}");
            assert!(times(&late, upto).iter().all(|t| t % 10 <= upto as i64));
        }
    }

    #[test]
    fn a_long_batch_of_one_series_is_packed_while_it_comes() {
        let mut late = Late::default();
        let who = Writer::new(7, 3);
        (0..10_000).for_each(|t| late.insert(t, Value::Float(0.0), who, RULE));
        assert!(late.buffer.len() < BUFFER_MAX);
        assert_eq!((times(&late, 6).len(), times(&late, 7).len()), (0, 10_000));
    }

    #[test]
    fn forgets_from_chunks_and_buffer() {
        let mut late = Late::default();
        for t in 0..100 {
            late.insert(t, Value::Float(0.0), Writer::new(t as u64 + 1, u64::MAX), RULE);
        }
        assert!(late.remove(20, 30, RULE).unwrap());
        assert_eq!(times(&late, u64::MAX).len(), 89);
        assert!(late.remove(i64::MIN, 97, RULE).unwrap());
        assert_eq!(times(&late, u64::MAX), [98, 99]);
        let mut again = Late::default();
        again.restore(&late.all_chunks(RULE), RULE).unwrap();
        assert_eq!(times(&again, 0), [98, 99]);
        assert!(!late.remove(0, 200, RULE).unwrap());
        assert_eq!(late.chunk_count(), 0);
    }
}
