//! One series out of several replicas' chunks: Thanos' penalty deduplication, offline.
//!
//! What overlaps nothing keeps its bytes. Where chunks overlap, each of them is a piece of a replica, folded in the order of
//! their times (`koios_chunk::penalty`), and the result is packed anew, 120 samples a chunk; nothing is lifted, so what is
//! stored is what was scraped. A chunk that came twice counts once. Memory: the samples of one run of overlapping chunks.

use koios_chunk::penalty::{self, Chained, Replica};
use koios_chunk::{Chunk, ChunkError, Encoding, Packer, Typed, encode_xor};
use koios_model::Columns;

use crate::series::SAMPLES_PER_CHUNK;

/// Chunks of any parts as one series.
///
/// # Errors
/// The number of the part whose chunk cannot be decoded, and why. Chunks that overlap nothing are never decoded.
pub fn dedup_series(parts: Vec<Vec<Chunk>>) -> Result<Vec<Chunk>, (usize, ChunkError)> {
    let mut all: Vec<(usize, Chunk)> = Vec::new();
    for (part, chunks) in parts.into_iter().enumerate() {
        all.extend(chunks.into_iter().map(|c| (part, c)));
    }
    all.sort_by_key(|(part, c)| (c.min_time, c.max_time, *part));
    let mut out = Vec::with_capacity(all.len());
    let mut before: Option<usize> = None;
    let mut rest = &all[..];
    while let Some((first, later)) = rest.split_first() {
        let mut end = first.1.max_time;
        let taken = later.iter().take_while(|(_, c)| {
            let overlaps = c.min_time <= end;
            end = end.max(c.max_time);
            overlaps
        });
        let len = 1 + taken.count();
        let mut run: Vec<&(usize, Chunk)> = rest[..len].iter().collect();
        rest = &rest[len..];
        run.dedup_by(|a, b| a.1 == b.1);
        match run[..] {
            [(part, chunk)] => {
                let follows = before.is_none_or(|b| b == *part);
                out.push(if follows { chunk.clone() } else { chunk.clone().without_reset_claim() });
                before = Some(*part);
            }
            _ => {
                let floats = run.iter().all(|(_, c)| c.encoding == Encoding::Xor);
                match (floats, &run[..]) {
                    (true, [a, b]) => two(a, b, &mut out),
                    (true, _) => folded::<Columns>(&run, &mut out),
                    (false, _) => folded::<Vec<(i64, Typed)>>(&run, &mut out),
                }?;
                before = Some(usize::MAX);
            }
        }
    }
    Ok(out)
}

/// Decoded samples.
trait Samples: Sized {
    /// Where what is kept goes.
    type Kept;
    fn empty() -> Self::Kept;
    fn close(kept: Self::Kept) -> Vec<Chunk>;
    fn decode(chunk: &Chunk) -> Result<Self, ChunkError>;
    fn count(&self) -> usize;
    fn time(&self, i: usize) -> i64;
    fn keep(&self, i: usize, kept: &mut Self::Kept);
}

impl Samples for Columns {
    type Kept = Self;

    fn empty() -> Self {
        Self::default()
    }

    fn close(kept: Self) -> Vec<Chunk> {
        encode_xor(&kept, usize::from(SAMPLES_PER_CHUNK))
    }

    fn decode(chunk: &Chunk) -> Result<Self, ChunkError> {
        let mut all = Self::default();
        chunk.read(i64::MIN, i64::MAX, &mut all)?;
        Ok(all)
    }

    fn count(&self) -> usize {
        self.times.len()
    }

    fn time(&self, i: usize) -> i64 {
        self.times[i]
    }

    fn keep(&self, i: usize, kept: &mut Self) {
        kept.push(self.times[i], self.values[i]);
    }
}

impl Samples for Vec<(i64, Typed)> {
    type Kept = Packer;

    fn empty() -> Packer {
        Packer::new(SAMPLES_PER_CHUNK)
    }

    fn close(kept: Packer) -> Vec<Chunk> {
        kept.finish()
    }

    fn decode(chunk: &Chunk) -> Result<Self, ChunkError> {
        chunk.typed()
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn time(&self, i: usize) -> i64 {
        self[i].0
    }

    fn keep(&self, i: usize, kept: &mut Packer) {
        kept.push(self[i].0, &self[i].1);
    }
}

/// A chunk's samples, somewhere in them.
struct Piece<S> {
    samples: S,
    at: usize,
}

impl<S: Samples> Replica for Piece<S> {
    fn seek(&mut self, t: i64) -> bool {
        while self.at < self.samples.count() && self.samples.time(self.at) < t {
            self.at += 1;
        }
        self.at < self.samples.count()
    }

    fn time(&self) -> i64 {
        self.samples.time(self.at)
    }
}

fn folded<S: Samples>(run: &[&(usize, Chunk)], out: &mut Vec<Chunk>) -> Result<(), (usize, ChunkError)> {
    let mut pieces: Vec<Piece<S>> = Vec::with_capacity(run.len());
    for (part, chunk) in run {
        pieces.push(Piece { samples: S::decode(chunk).map_err(|e| (*part, e))?, at: 0 });
    }
    let mut all = Chained::new(pieces);
    let mut kept = S::empty();
    while let Some(piece) = all.advance() {
        piece.samples.keep(piece.at, &mut kept);
    }
    out.extend(S::close(kept));
    Ok(())
}

/// Two chunks of floats, the usual case: what `folded` says, without a step through it for each sample.
fn two(a: &(usize, Chunk), b: &(usize, Chunk), out: &mut Vec<Chunk>) -> Result<(), (usize, ChunkError)> {
    let of = |(part, chunk): &(usize, Chunk)| Columns::decode(chunk).map_err(|e| (*part, e));
    let (a, b) = (of(a)?, of(b)?);
    let mut kept = Columns::default();
    kept.times.reserve(a.len().max(b.len()) + 8);
    kept.values.reserve(a.len().max(b.len()) + 8);
    penalty::pick_of_two(&a.times, &b.times, |first, i| {
        let from = if first { &a } else { &b };
        kept.times.push(from.times[i]);
        kept.values.push(from.values[i]);
    });
    out.extend(Columns::close(kept));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_chunk::encode_xor;

    fn floats(samples: impl IntoIterator<Item = (i64, f64)>, per_chunk: usize) -> Vec<Chunk> {
        let mut c = Columns::default();
        samples.into_iter().for_each(|(t, v)| c.push(t, v));
        encode_xor(&c, per_chunk)
    }

    fn times(chunks: &[Chunk]) -> Vec<i64> {
        chunks.iter().flat_map(|c| c.typed().unwrap()).map(|(t, _)| t / 1000).collect()
    }

    #[test]
    fn one_replica_goes_on_from_chunk_to_chunk_and_gaps_are_filled() {
        let minute = |n: i64| n * 60_000;
        let a = floats((0..10).chain(20..40).map(|n| (minute(n), n as f64)), 120);
        let b = floats((0..40).map(|n| (minute(n) + 17_000, -(n as f64))), 120);
        let got = dedup_series(vec![a.clone(), b.clone()]).unwrap();
        let mut want: Vec<i64> = vec![0, 17];
        want.extend((1..10).map(|n| n * 60));
        // Two intervals after the last sample the other one takes over, and stays.
        want.extend((11..40).map(|n| n * 60 + 17));
        assert_eq!(times(&got), want);
        assert_eq!(dedup_series(vec![b.clone(), a]).unwrap(), got, "the order of blocks does not matter");
        assert_eq!(dedup_series(vec![b.clone(), b.clone()]).unwrap(), b, "the same twice");
    }

    #[test]
    fn what_overlaps_nothing_is_not_looked_at() {
        let opaque =
            Chunk { min_time: 40, max_time: 50, encoding: Encoding::Xor2, data: vec![1, 2, 3].into() };
        let a = floats([(1, 1.0)], 120);
        let got = dedup_series(vec![vec![opaque.clone()], a.clone()]).unwrap();
        assert_eq!(got, [a[0].clone(), opaque.clone()]);
        assert_eq!(dedup_series(vec![vec![opaque], floats([(45, 1.0)], 120)]).unwrap_err().0, 0);
    }
}
