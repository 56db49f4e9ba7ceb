//! Series as frames, and back.
//!
//! Raw chunks travel as they are; of a downsampled chunk only the aggregates that were asked for. The numbers of the encodings
//! on this wire are not those of the chunk format. Frames are cut at `FRAME_BYTES`, so a long series comes in several; bytes
//! from the wire are checked, not trusted.

use koios_chunk::{Aggregate, Chunk, ChunkError, Encoding};
use koios_model::Labels;
use koios_proto::thanos as pb;
use xxhash_rust::xxh64::xxh64;

/// Chunk bytes of one frame, roughly.
pub const FRAME_BYTES: usize = 1 << 20;

/// What a downsampled chunk is asked for.
const ASKABLE: [(pb::Aggr, Aggregate); 5] = [
    (pb::Aggr::Count, Aggregate::Count),
    (pb::Aggr::Sum, Aggregate::Sum),
    (pb::Aggr::Min, Aggregate::Min),
    (pb::Aggr::Max, Aggregate::Max),
    (pb::Aggr::Counter, Aggregate::Counter),
];

/// Aggregates for the wire.
pub fn aggregates_to_pb(wanted: &[Aggregate]) -> Vec<i32> {
    ASKABLE.iter().filter(|(_, a)| wanted.contains(a)).map(|(p, _)| *p as i32).collect()
}

/// Aggregates from the wire. Nobody who asks for none, or for raw samples, is left without: then all.
pub fn aggregates_from_pb(asked: &[i32]) -> Vec<Aggregate> {
    let found = |p: &pb::Aggr| asked.contains(&(*p as i32));
    let some: Vec<Aggregate> = ASKABLE.iter().filter(|(p, _)| found(p)).map(|(_, a)| *a).collect();
    if some.is_empty() { ASKABLE.iter().map(|(_, a)| *a).collect() } else { some }
}

/// A chunk for the wire.
///
/// # Errors
/// When a downsampled chunk is damaged, or its encoding has no name on this wire.
pub fn chunk_to_pb(chunk: &Chunk, wanted: &[Aggregate]) -> Result<pb::AggrChunk, ChunkError> {
    let mut out =
        pb::AggrChunk { min_time: chunk.min_time, max_time: chunk.max_time, ..pb::AggrChunk::default() };
    if chunk.encoding != Encoding::Aggregate {
        out.raw = Some(plain_to_pb(chunk)?);
        return Ok(out);
    }
    for which in wanted {
        let part = chunk.aggregate(*which)?.as_ref().map(plain_to_pb).transpose()?;
        match which {
            Aggregate::Count => out.count = part,
            Aggregate::Sum => out.sum = part,
            Aggregate::Min => out.min = part,
            Aggregate::Max => out.max = part,
            Aggregate::Counter => out.counter = part,
        }
    }
    Ok(out)
}

fn plain_to_pb(chunk: &Chunk) -> Result<pb::Chunk, ChunkError> {
    let kind = match chunk.encoding {
        Encoding::Xor => pb::chunk::Encoding::Xor,
        Encoding::Histogram => pb::chunk::Encoding::Histogram,
        Encoding::FloatHistogram => pb::chunk::Encoding::FloatHistogram,
        other => return Err(ChunkError::Unsupported(other)),
    };
    Ok(pb::Chunk { r#type: kind.into(), hash: xxh64(&chunk.data, 0), data: chunk.data.clone() })
}

/// A chunk from the wire; `None` for one without anything in it.
///
/// # Errors
/// What is wrong with it.
pub fn chunk_from_pb(chunk: pb::AggrChunk) -> Result<Option<Chunk>, String> {
    let bounds = (chunk.min_time, chunk.max_time);
    if bounds.0 > bounds.1 {
        return Err(format!("a chunk from {} to {}", bounds.0, bounds.1));
    }
    if let Some(raw) = chunk.raw {
        return plain_from_pb(raw, bounds).map(Some);
    }
    let parts = [chunk.count, chunk.sum, chunk.min, chunk.max, chunk.counter];
    if parts.iter().all(Option::is_none) {
        return Ok(None);
    }
    let mut aggregates = [const { None }; 5];
    for (slot, part) in aggregates.iter_mut().zip(parts) {
        *slot = part.map(|p| plain_from_pb(p, bounds)).transpose()?;
    }
    Ok(Some(Chunk::of_aggregates(bounds, &aggregates)))
}

fn plain_from_pb(chunk: pb::Chunk, (min_time, max_time): (i64, i64)) -> Result<Chunk, String> {
    let encoding = match chunk.r#type {
        0 => Encoding::Xor,
        1 => Encoding::Histogram,
        2 => Encoding::FloatHistogram,
        other => return Err(format!("chunk encoding {other} is unknown")),
    };
    if chunk.data.len() < 2 {
        return Err("a chunk without samples".to_owned());
    }
    Ok(Chunk { min_time, max_time, encoding, data: chunk.data })
}

/// Labels for the wire.
pub fn labels_to_pb(labels: &Labels) -> Vec<pb::Label> {
    labels.iter().map(|(n, v)| pb::Label { name: n.to_owned(), value: v.to_owned() }).collect()
}

/// Labels from the wire.
pub fn labels_from_pb(labels: &[pb::Label]) -> Labels {
    Labels::from_pairs(labels.iter().map(|l| (l.name.as_str(), l.value.as_str())))
}

/// The frames of one series: at least one, each with a bounded number of bytes.
pub fn frames(labels: &Labels, chunks: Vec<pb::AggrChunk>) -> Vec<pb::Series> {
    let size = |c: &pb::AggrChunk| {
        let parts = [&c.raw, &c.count, &c.sum, &c.min, &c.max, &c.counter];
        parts.into_iter().flatten().map(|p| p.data.len() + 16).sum::<usize>()
    };
    let labels = labels_to_pb(labels);
    let (mut out, mut frame, mut bytes) = (Vec::new(), Vec::new(), 0);
    for chunk in chunks {
        if bytes >= FRAME_BYTES {
            out.push(pb::Series { labels: labels.clone(), chunks: std::mem::take(&mut frame) });
            bytes = 0;
        }
        bytes += size(&chunk);
        frame.push(chunk);
    }
    out.push(pb::Series { labels, chunks: frame });
    out
}
