//! Samples out of chunks and back into them, whatever their kind.
//!
//! For everything that must put samples between others: out-of-order samples and deletions. Chunks come out as the
//! head would have made them (`open` has the rule). Invariant: packing what was read gives the same samples in
//! the same kinds; what a histogram says about its predecessor is forgotten, because the predecessor may be new.

use std::sync::Arc;

use koios_chunk::{Chunk, ChunkError, Encoding, FloatCoder, HistogramIter, IntCoder, XorIter};
use koios_model::histogram::CounterReset;

use super::open::OpenChunk;
use super::series::ChunkRule;
use crate::types::Value;

/// A sample of any kind with its time.
pub(crate) type Timed = (i64, Value);

/// Only a gauge stays what it was beside new neighbours.
fn loosened(hint: CounterReset) -> CounterReset {
    if hint == CounterReset::Gauge { hint } else { CounterReset::Unknown }
}

/// Every sample of a chunk.
///
/// # Errors
/// `ChunkError` when the chunk does not decode; `Unsupported` for encodings that a head does not have.
pub(crate) fn samples_of(encoding: Encoding, data: &[u8]) -> Result<Vec<Timed>, ChunkError> {
    match encoding {
        Encoding::Xor => XorIter::new(data)?.map(|s| s.map(|s| (s.t, Value::Float(s.v)))).collect(),
        Encoding::Histogram => HistogramIter::<IntCoder>::new(data)?
            .map(|s| {
                s.map(|(t, mut h)| {
                    h.hint = loosened(h.hint);
                    (t, Value::Histogram(Arc::new(h)))
                })
            })
            .collect(),
        Encoding::FloatHistogram => HistogramIter::<FloatCoder>::new(data)?
            .map(|s| {
                s.map(|(t, mut h)| {
                    h.hint = loosened(h.hint);
                    (t, Value::FloatHistogram(Arc::new(h)))
                })
            })
            .collect(),
        other => Err(ChunkError::Unsupported(other)),
    }
}

/// Packs samples of ascending times.
pub(crate) fn pack(samples: &[Timed], rule: ChunkRule) -> Vec<Chunk> {
    let (mut out, mut open): (Vec<Chunk>, Option<OpenChunk>) = (Vec::new(), None);
    for (t, v) in samples {
        let next = match v {
            Value::Float(f) => {
                let fits = open.as_mut().is_some_and(|o| o.append_float(*t, *f, rule));
                (!fits).then(|| OpenChunk::of_float(*t, *f, rule))
            }
            _ => OpenChunk::append_histogram(open.as_mut(), *t, v, rule),
        };
        if let Some(next) = next {
            out.extend(open.replace(next).map(|o| o.to_chunk()));
        }
    }
    out.extend(open.map(|o| o.to_chunk()));
    out
}

/// Puts samples between those of ordered chunks. Chunks that none falls into stay as they are; at the same time
/// the chunk's sample stays.
///
/// # Errors
/// `ChunkError` when a chunk that a sample falls into does not decode.
pub(crate) fn merge(chunks: Vec<Chunk>, late: Vec<Timed>, rule: ChunkRule) -> Result<Vec<Chunk>, ChunkError> {
    let mut out = Vec::with_capacity(chunks.len() + 1);
    let mut late = late.into_iter().peekable();
    for chunk in chunks {
        let before: Vec<Timed> = std::iter::from_fn(|| late.next_if(|(t, _)| *t < chunk.min_time)).collect();
        out.extend(pack(&before, rule));
        let inside: Vec<Timed> = std::iter::from_fn(|| late.next_if(|(t, _)| *t <= chunk.max_time)).collect();
        if inside.is_empty() {
            out.push(chunk);
            continue;
        }
        let mut all = samples_of(chunk.encoding, &chunk.data)?;
        all.extend(inside);
        // Stable: at the same time the chunk's own sample comes first and stays.
        all.sort_by_key(|(t, _)| *t);
        all.dedup_by_key(|(t, _)| *t);
        out.extend(pack(&all, rule));
    }
    let rest: Vec<Timed> = late.collect();
    out.extend(pack(&rest, rule));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: ChunkRule = ChunkRule { range_ms: 1000, samples: 8 };

    fn floats(times: impl IntoIterator<Item = i64>) -> Vec<Timed> {
        times.into_iter().map(|t| (t, Value::Float(t as f64 / 4.0))).collect()
    }

    fn back(chunks: &[Chunk]) -> Vec<Timed> {
        chunks.iter().flat_map(|c| samples_of(c.encoding, &c.data).unwrap()).collect()
    }

    #[test]
    fn merges_before_between_inside_and_behind() {
        let chunks: Vec<Chunk> = [floats((10..20).step_by(2)), floats((40..50).step_by(2))]
            .iter()
            .flat_map(|r| pack(r, RULE))
            .collect();
        let mut late = floats([1, 11, 13, 30, 47, 60, 1200]);
        late.insert(1, (10, Value::Float(-1.0)));
        let merged = merge(chunks.clone(), late, RULE).unwrap();
        assert!(merged.windows(2).all(|w| w[0].max_time < w[1].min_time));
        assert!(merged.iter().all(|c| c.min_time / 1000 == c.max_time / 1000));
        let want = [1, 10, 11, 12, 13, 14, 16, 18, 30, 40, 42, 44, 46, 47, 48, 60, 1200];
        assert_eq!(back(&merged), floats(want));
        assert_eq!(merge(chunks.clone(), Vec::new(), RULE).unwrap(), chunks);
    }

    #[test]
    fn damage_is_an_error_only_where_it_matters() {
        let mut chunks = pack(&floats([1, 2, 3]), RULE);
        chunks[0].data = chunks[0].data.slice(..5);
        assert!(merge(chunks.clone(), floats([2]), RULE).is_err());
        assert!(merge(chunks, floats([9]), RULE).is_ok());
        assert!(samples_of(Encoding::Aggregate, &[]).is_err());
    }
}
