//! One series out of several blocks: chunks reused as bytes where they stand alone, encoded again where they overlap.
//!
//! At one instant one sample is kept: a value before the stale marker, for `up` the greater value, then the greater
//! bits, then the earlier block. It is the rule by which queries merge parts of a replica, so an answer is the same
//! before and after a compaction. Memory: the chunk references of the series, one decoded chunk a lane, the output.

use std::collections::VecDeque;

use koios_chunk::{Chunk, ChunkError, Encoding, Packer, Typed, encode_xor};
use koios_model::{Columns, is_stale};

/// Samples of a chunk that is encoded again, as in the head.
pub(crate) const SAMPLES_PER_CHUNK: u16 = 120;

/// A run of chunks that do not overlap each other.
#[derive(Debug)]
struct Lane {
    /// Which part it came from.
    part: usize,
    chunks: Vec<Chunk>,
}

/// Merges the chunks that each part (block) has of one series, parts in block order. `up` says whether the series is
/// one of `up`, whose greater value wins.
///
/// # Errors
/// The number of the part whose chunk cannot be decoded, and why. Chunks that overlap nothing are never decoded.
pub fn merge_series(parts: Vec<Vec<Chunk>>, up: bool) -> Result<Vec<Chunk>, (usize, ChunkError)> {
    let lanes = lanes(parts);
    let mut order: Vec<(usize, usize)> = Vec::new();
    for (l, lane) in lanes.iter().enumerate() {
        order.extend((0..lane.chunks.len()).map(|c| (l, c)));
    }
    let at = |&(l, c): &(usize, usize)| &lanes[l].chunks[c];
    order.sort_by_key(|p| (at(p).min_time, at(p).max_time, *p));
    let mut out = Vec::with_capacity(order.len());
    let mut before: Option<(usize, usize)> = None;
    let mut rest = &order[..];
    while let Some(&first) = rest.first() {
        let mut end = at(&first).max_time;
        let mut len = 1;
        while let Some(next) = rest.get(len).filter(|p| at(p).min_time <= end) {
            end = end.max(at(next).max_time);
            len += 1;
        }
        let (group, later) = rest.split_at(len);
        rest = later;
        if group.iter().all(|p| at(p) == at(&first)) {
            let follows = first.1 == 0 || before == Some((first.0, first.1 - 1));
            let chunk = at(&first).clone();
            out.push(if follows { chunk } else { chunk.without_reset_claim() });
            before = Some(first);
        } else {
            let floats = group.iter().all(|p| at(p).encoding == Encoding::Xor);
            let merged = if floats { interleave::<Floats> } else { interleave::<Any> };
            merged(&lanes, group, up, &mut out)?;
            before = None;
        }
    }
    Ok(out)
}

/// Puts each part's chunks into as few lanes as keep them apart: one, in a sound block.
fn lanes(parts: Vec<Vec<Chunk>>) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = Vec::with_capacity(parts.len());
    for (part, mut chunks) in parts.into_iter().enumerate() {
        chunks.sort_by_key(|c| (c.min_time, c.max_time));
        let own = lanes.len();
        for chunk in chunks {
            let fits = |l: &&mut Lane| l.chunks.last().is_none_or(|last| last.max_time < chunk.min_time);
            match lanes[own..].iter_mut().find(fits) {
                Some(lane) => lane.chunks.push(chunk),
                None => lanes.push(Lane { part, chunks: vec![chunk] }),
            }
        }
    }
    lanes
}

/// A decoded chunk of a lane, read once from the front.
trait Run: Default {
    type Value;
    fn decode(&mut self, chunk: &Chunk) -> Result<(), ChunkError>;
    /// The time of the next sample.
    fn time(&self) -> Option<i64>;
    /// Its value; time must have been there.
    fn take(&mut self) -> Option<Self::Value>;
    /// The float, or the histogram's sum.
    fn value(v: &Self::Value) -> f64;
    /// Where what is kept goes.
    type Kept;
    fn empty() -> Self::Kept;
    fn push(kept: &mut Self::Kept, t: i64, v: &Self::Value);
    fn close(kept: Self::Kept) -> Vec<Chunk>;
}

/// Samples of any kind.
#[derive(Default)]
struct Any {
    samples: VecDeque<(i64, Typed)>,
}

impl Run for Any {
    type Value = Typed;

    fn decode(&mut self, chunk: &Chunk) -> Result<(), ChunkError> {
        self.samples = chunk.typed()?.into();
        Ok(())
    }

    fn time(&self) -> Option<i64> {
        self.samples.front().map(|s| s.0)
    }

    fn take(&mut self) -> Option<Typed> {
        self.samples.pop_front().map(|s| s.1)
    }

    fn value(v: &Typed) -> f64 {
        v.value()
    }

    type Kept = Packer;

    fn empty() -> Packer {
        Packer::new(SAMPLES_PER_CHUNK)
    }

    fn push(kept: &mut Packer, t: i64, v: &Typed) {
        kept.push(t, v);
    }

    fn close(kept: Packer) -> Vec<Chunk> {
        kept.finish()
    }
}

/// Floats, the usual case, as columns.
#[derive(Default)]
struct Floats {
    columns: Columns,
    at: usize,
}

impl Run for Floats {
    type Value = f64;

    fn decode(&mut self, chunk: &Chunk) -> Result<(), ChunkError> {
        self.columns.clear();
        self.at = 0;
        chunk.read(i64::MIN, i64::MAX, &mut self.columns)
    }

    fn time(&self) -> Option<i64> {
        self.columns.times.get(self.at).copied()
    }

    fn take(&mut self) -> Option<f64> {
        self.at += 1;
        self.columns.values.get(self.at - 1).copied()
    }

    fn value(v: &f64) -> f64 {
        *v
    }

    type Kept = Columns;

    fn empty() -> Columns {
        Columns::default()
    }

    fn push(kept: &mut Columns, t: i64, v: &f64) {
        kept.times.push(t);
        kept.values.push(*v);
    }

    fn close(kept: Columns) -> Vec<Chunk> {
        encode_xor(&kept, usize::from(SAMPLES_PER_CHUNK))
    }
}

/// The samples of a lane that are still to come.
struct Cursor<'a, R> {
    part: usize,
    chunks: VecDeque<&'a Chunk>,
    run: R,
}

impl<R: Run> Cursor<'_, R> {
    /// The time of the next sample, of the next chunk where this one is over.
    fn time(&mut self) -> Result<Option<i64>, (usize, ChunkError)> {
        loop {
            if let Some(t) = self.run.time() {
                return Ok(Some(t));
            }
            let Some(chunk) = self.chunks.pop_front() else { return Ok(None) };
            self.run.decode(chunk).map_err(|e| (self.part, e))?;
        }
    }
}

fn interleave<R: Run>(
    lanes: &[Lane],
    group: &[(usize, usize)],
    up: bool,
    out: &mut Vec<Chunk>,
) -> Result<(), (usize, ChunkError)> {
    let mut cursors: Vec<(Cursor<'_, R>, Option<i64>)> = Vec::new();
    for (l, lane) in lanes.iter().enumerate() {
        // Of one lane the group has a run in time order.
        let chunks: VecDeque<&Chunk> =
            group.iter().filter(|p| p.0 == l).map(|&(_, c)| &lane.chunks[c]).collect();
        if !chunks.is_empty() {
            let mut cursor = Cursor { part: lane.part, chunks, run: R::default() };
            let first = cursor.time()?;
            cursors.push((cursor, first));
        }
    }
    let mut kept = R::empty();
    while let Some(t) = cursors.iter().filter_map(|(_, next)| *next).min() {
        let mut best: Option<R::Value> = None;
        for (cursor, next) in cursors.iter_mut().filter(|(_, next)| *next == Some(t)) {
            if let Some(v) = cursor.run.take()
                && best.as_ref().is_none_or(|b| wins(R::value(&v), R::value(b), up))
            {
                best = Some(v);
            }
            *next = cursor.time()?;
        }
        if let Some(best) = best {
            R::push(&mut kept, t, &best);
        }
    }
    out.extend(R::close(kept));
    Ok(())
}

fn wins(a: f64, b: f64, up: bool) -> bool {
    if is_stale(a) != is_stale(b) {
        return is_stale(b);
    }
    if up && a != b { a > b } else { a.to_bits() > b.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_chunk::{IntHistogram, encode_xor};
    use koios_model::stale_nan;

    fn floats(samples: &[(i64, f64)]) -> Vec<Chunk> {
        let mut c = Columns::default();
        samples.iter().for_each(|&(t, v)| c.push(t, v));
        encode_xor(&c, 120)
    }

    fn read(chunks: &[Chunk]) -> Vec<(i64, f64)> {
        chunks.iter().flat_map(|c| c.typed().unwrap()).map(|(t, v)| (t, v.value())).collect()
    }

    #[test]
    fn chunks_that_stand_alone_keep_their_bytes_and_copies_are_dropped() {
        let (a, b) = (floats(&[(0, 1.0), (10, 2.0)]), floats(&[(20, 3.0), (30, 4.0)]));
        let got = merge_series(vec![b.clone(), a.clone(), b.clone()], false).unwrap();
        assert_eq!(got, [a[0].clone(), b[0].clone()]);
        let opaque =
            Chunk { min_time: 40, max_time: 50, encoding: Encoding::Xor2, data: vec![1, 2, 3].into() };
        let got = merge_series(vec![vec![opaque.clone()], a.clone(), vec![opaque.clone()]], false).unwrap();
        assert_eq!(got, [a[0].clone(), opaque.clone()], "bytes that cannot be decoded travel as they are");
        let over = floats(&[(45, 1.0)]);
        assert_eq!(merge_series(vec![over, vec![opaque]], false).unwrap_err().0, 1);
    }

    #[test]
    fn one_sample_an_instant_by_the_rule_of_queries() {
        let a = floats(&[(0, 1.0), (10, stale_nan()), (20, 0.0), (30, 5.0)]);
        let b = floats(&[(5, 9.0), (10, 7.0), (20, 1.0), (30, -5.0)]);
        let want = [(0, 1.0), (5, 9.0), (10, 7.0), (20, 1.0), (30, -5.0)];
        assert_eq!(read(&merge_series(vec![a.clone(), b.clone()], false).unwrap()), want, "greater bits");
        assert_eq!(read(&merge_series(vec![b.clone(), a.clone()], false).unwrap()), want);
        let up = merge_series(vec![a, b], true).unwrap();
        assert_eq!(read(&up)[4], (30, 5.0), "the healthiest counts");
    }

    #[test]
    fn a_claim_about_the_chunk_before_goes_when_another_comes_between() {
        let hist = |t: i64, count: u64| {
            (t, Typed::Histogram(IntHistogram { count, sum: count as f64, ..IntHistogram::default() }))
        };
        let pack = |samples: &[(i64, Typed)], per: u16| {
            let mut p = Packer::new(per);
            samples.iter().for_each(|(t, v)| p.push(*t, v));
            p.finish()
        };
        let a = pack(&[hist(0, 1), hist(10, 2), hist(100, 3), hist(110, 4)], 2);
        assert_eq!(a[1].data[2] >> 6, 0b01, "no reset since the chunk before");
        assert_eq!(merge_series(vec![a.clone()], false).unwrap(), a);
        let b = pack(&[hist(50, 9)], 2);
        let got = merge_series(vec![a.clone(), b.clone()], false).unwrap();
        assert_eq!((got.len(), got[2].data[2] >> 6), (3, 0));
        assert_eq!(got[0], a[0]);
    }
}
