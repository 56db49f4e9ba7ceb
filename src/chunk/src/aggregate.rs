//! Downsampled chunks: five small chunks in one, each with one aggregate of windows of time.
//!
//! The layout is Thanos' (`AggrChunk`, `docs/formats/chunk.md`): count, sum, min, max and counter in this order, each
//! as a uvarint of its length, which is 0 where there is none, one byte of encoding, and the bytes. Owns taking them
//! apart; what they mean beside each other is the readers' business. Invariant: nothing is copied or allocated.

use bytes::Bytes;
use koios_model::Columns;

use crate::{Chunk, ChunkError, Encoding, XorIter, varint};

/// What is kept of a window of time, in the order of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// How many samples it had.
    Count,
    /// Their sum.
    Sum,
    /// The least of them.
    Min,
    /// The greatest.
    Max,
    /// How far a counter got since its first sample, resets taken out. The first sample of the chunk is a raw one, and
    /// the last time comes twice: the second value is the last raw one, by which a reset before the next chunk shows.
    Counter,
}

const ALL: [Aggregate; 5] =
    [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Counter];

impl Chunk {
    /// One aggregate of a downsampled chunk as a chunk, whose time bounds are those of the whole; `None` when the chunk
    /// has none, as with minima of histograms.
    ///
    /// # Errors
    /// `ChunkError` when the chunk is damaged or is no downsampled one.
    pub fn aggregate(&self, which: Aggregate) -> Result<Option<Self>, ChunkError> {
        if self.encoding != Encoding::Aggregate {
            return Err(damaged("not a downsampled chunk"));
        }
        let mut rest = &self.data[..];
        for one in ALL {
            let Some(len) = varint::get_uvarint(&mut rest) else {
                return Err(damaged("an aggregate is missing"));
            };
            if len == 0 {
                if one == which {
                    return Ok(None);
                }
                continue;
            }
            let len = usize::try_from(len).ok().filter(|len| *len < rest.len());
            let Some(len) = len else { return Err(damaged("an aggregate is cut short")) };
            let (encoding, data) = (rest[0], &rest[1..=len]);
            if one == which {
                return self.part(encoding, self.data.slice_ref(data)).map(Some);
            }
            rest = &rest[1 + len..];
        }
        Ok(None)
    }

    /// Puts a downsampled chunk together from parts in the order of the format; `bounds` are its first and last time.
    pub fn of_aggregates(bounds: (i64, i64), parts: &[Option<Self>; 5]) -> Self {
        let bytes = parts.iter().flatten().map(|p| p.data.len() + 4).sum::<usize>();
        let mut data = Vec::with_capacity(bytes + 5);
        for part in parts {
            varint::put_uvarint(&mut data, part.as_ref().map_or(0, |p| p.data.len() as u64));
            if let Some(part) = part {
                data.push(part.encoding as u8);
                data.extend_from_slice(&part.data);
            }
        }
        Self { min_time: bounds.0, max_time: bounds.1, encoding: Encoding::Aggregate, data: data.into() }
    }

    /// Appends all samples of the counter aggregate to `out`, in which a time may come again.
    ///
    /// # Errors
    /// `ChunkError` when the chunk is damaged or is no downsampled one.
    pub fn read_counter(&self, out: &mut Columns) -> Result<(), ChunkError> {
        match self.aggregate(Aggregate::Counter)? {
            None => Ok(()),
            Some(c) if c.encoding == Encoding::Xor => {
                XorIter::repeating(&c.data)?.try_for_each(|s| s.map(|s| out.push(s.t, s.v)))
            }
            Some(c) if c.encoding == Encoding::FloatHistogram => {
                crate::histogram::read_repeating(&c.data, out)
            }
            Some(c) => Err(ChunkError::Unsupported(c.encoding)),
        }
    }

    fn part(&self, encoding: u8, data: Bytes) -> Result<Self, ChunkError> {
        match Encoding::from_u8(encoding) {
            None => Err(ChunkError::UnknownEncoding(encoding)),
            Some(Encoding::Aggregate) => Err(damaged("an aggregate in an aggregate")),
            Some(encoding) => Ok(Self { min_time: self.min_time, max_time: self.max_time, encoding, data }),
        }
    }
}

fn damaged(what: &'static str) -> ChunkError {
    ChunkError::Damaged { sample: 0, what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::XorAppender;
    use proptest::prelude::*;

    fn xor(samples: &[(i64, f64)]) -> Vec<u8> {
        let mut a = XorAppender::new();
        samples.iter().for_each(|(t, v)| a.append(*t, *v));
        a.into_bytes()
    }

    fn packed(parts: [Option<Vec<u8>>; 5]) -> Chunk {
        let chunk = |data: Vec<u8>| Chunk {
            min_time: 299,
            max_time: 599,
            encoding: Encoding::Xor,
            data: data.into(),
        };
        Chunk::of_aggregates((299, 599), &parts.map(|p| p.map(chunk)))
    }

    #[test]
    fn each_aggregate_is_a_chunk() {
        let count = xor(&[(299, 5.0), (599, 2.0)]);
        let counter = xor(&[(10, 1.0), (299, 9.0), (599, 12.0), (599, 3.0)]);
        let chunk = packed([Some(count), Some(xor(&[(299, 7.0)])), None, None, Some(counter)]);
        let read = |which| {
            let mut out = Columns::default();
            let part = chunk.aggregate(which).unwrap()?;
            part.read(i64::MIN, i64::MAX, &mut out).unwrap();
            Some(out.times.into_iter().zip(out.values).collect::<Vec<_>>())
        };
        assert_eq!(read(Aggregate::Count).unwrap(), [(299, 5.0), (599, 2.0)]);
        assert_eq!(read(Aggregate::Sum).unwrap(), [(299, 7.0)]);
        assert_eq!((read(Aggregate::Min), read(Aggregate::Max)), (None, None));
        let mut out = Columns::default();
        chunk.read_counter(&mut out).unwrap();
        let counter: Vec<_> = out.times.into_iter().zip(out.values).collect();
        assert_eq!(counter, [(10, 1.0), (299, 9.0), (599, 12.0), (599, 3.0)]);
        assert_eq!(chunk.sample_count(), Some(2));
    }

    proptest! {
        #[test]
        fn damage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let chunk = Chunk { min_time: 0, max_time: 1, encoding: Encoding::Aggregate, data: bytes.into() };
            for which in ALL {
                if let Ok(Some(part)) = chunk.aggregate(which) {
                    let _ = part.read(i64::MIN, i64::MAX, &mut Columns::default());
                }
            }
            let _ = (chunk.sample_count(), chunk.read_counter(&mut Columns::default()));
        }
    }
}
