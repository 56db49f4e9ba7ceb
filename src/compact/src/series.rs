//! One series out of several blocks: chunks reused as bytes where they stand alone, encoded again where they overlap.
//!
//! At one instant one sample is kept: a value before the stale marker, for `up` the greater value, then the greater
//! bits, then the earlier block. It is the rule by which queries merge parts of a replica, so an answer is the same
//! before and after a compaction. Memory: the chunk references of the series, one decoded chunk a lane, the output.

use std::collections::VecDeque;

use koios_chunk::{Chunk, ChunkError, Packer, Typed};
use koios_model::is_stale;

/// Samples of a chunk that is encoded again, as in the head.
const SAMPLES_PER_CHUNK: u16 = 120;

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
            interleave(&lanes, group, up, &mut out)?;
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

/// The samples of a lane that are still to come.
struct Cursor<'a> {
    part: usize,
    chunks: VecDeque<&'a Chunk>,
    samples: std::vec::IntoIter<(i64, Typed)>,
    next: Option<(i64, Typed)>,
}

impl Cursor<'_> {
    fn advance(&mut self) -> Result<(), (usize, ChunkError)> {
        self.next = self.samples.next();
        while self.next.is_none() {
            let Some(chunk) = self.chunks.pop_front() else { return Ok(()) };
            self.samples = chunk.typed().map_err(|e| (self.part, e))?.into_iter();
            self.next = self.samples.next();
        }
        Ok(())
    }
}

fn interleave(
    lanes: &[Lane],
    group: &[(usize, usize)],
    up: bool,
    out: &mut Vec<Chunk>,
) -> Result<(), (usize, ChunkError)> {
    let mut cursors: Vec<Cursor<'_>> = Vec::new();
    for (l, lane) in lanes.iter().enumerate() {
        // Of one lane the group has a run in time order.
        let chunks: VecDeque<&Chunk> =
            group.iter().filter(|p| p.0 == l).map(|&(_, c)| &lane.chunks[c]).collect();
        if !chunks.is_empty() {
            let mut cursor = Cursor { part: lane.part, chunks, samples: Vec::new().into_iter(), next: None };
            cursor.advance()?;
            cursors.push(cursor);
        }
    }
    let mut packer = Packer::new(SAMPLES_PER_CHUNK);
    while let Some(t) = cursors.iter().filter_map(|c| c.next.as_ref()).map(|n| n.0).min() {
        let mut best: Option<Typed> = None;
        for cursor in &mut cursors {
            match cursor.next.take() {
                Some((at, v)) if at == t => {
                    if best.as_ref().is_none_or(|b| wins(&v, b, up)) {
                        best = Some(v);
                    }
                    cursor.advance()?;
                }
                other => cursor.next = other,
            }
        }
        if let Some(best) = best {
            packer.push(t, &best);
        }
    }
    out.extend(packer.finish());
    Ok(())
}

fn wins(a: &Typed, b: &Typed, up: bool) -> bool {
    let (a, b) = (a.value(), b.value());
    if is_stale(a) != is_stale(b) {
        return is_stale(b);
    }
    if up && a != b { a > b } else { a.to_bits() > b.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_chunk::{Encoding, IntHistogram, encode_xor};
    use koios_model::{Columns, stale_nan};

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
