//! The chunk as a value: time bounds, encoding, bytes; and the series of chunks that a selection answers.
//!
//! Refuses to interpret encodings it cannot decode: their bytes still travel. Invariant: `min_time` and
//! `max_time` are the first and last sample's times, both inclusive.

use bytes::Bytes;
use koios_model::{Code, Coded, Columns, Labels, Slot};

use crate::aggregate::Aggregate;
use crate::xor_read::XorIter;

/// How the bytes of a chunk are packed. The numbers are those of the block format (Prometheus
/// `tsdb/docs/format/chunks.md`; 255 is Thanos' `AggrChunk`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// Gorilla-style floats.
    Xor = 1,
    /// Integer native histograms.
    Histogram = 2,
    /// Float native histograms.
    FloatHistogram = 3,
    /// Floats with start timestamps.
    Xor2 = 4,
    /// Integer native histograms with start timestamps.
    HistogramSt = 5,
    /// Float native histograms with start timestamps.
    FloatHistogramSt = 6,
    /// Five downsampled aggregates in one chunk.
    Aggregate = 255,
}

impl Encoding {
    /// The encoding with this number.
    pub fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Xor,
            2 => Self::Histogram,
            3 => Self::FloatHistogram,
            4 => Self::Xor2,
            5 => Self::HistogramSt,
            6 => Self::FloatHistogramSt,
            255 => Self::Aggregate,
            _ => return None,
        })
    }
}

/// Why a chunk cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes end before the samples do.
    #[error("chunk is cut short: sample {sample} of {count} runs past its {bytes} bytes")]
    Short {
        /// Which sample, from 0.
        sample: usize,
        /// How many the header promises.
        count: usize,
        /// Length of the chunk.
        bytes: usize,
    },
    /// The bits at this sample mean nothing.
    #[error("chunk is damaged at sample {sample}: {what}")]
    Damaged {
        /// Which sample, from 0.
        sample: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The format has no such encoding.
    #[error("chunk encoding {0} is unknown")]
    UnknownEncoding(u8),
    /// Known, but not decoded by this version.
    #[error("chunk encoding {0:?} cannot be decoded yet")]
    Unsupported(Encoding),
}

impl Coded for ChunkError {
    fn code(&self) -> Code {
        match self {
            Self::Unsupported(_) => Code::Execution,
            _ => Code::Internal,
        }
    }
}

/// A run of samples of one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Time of the first sample, milliseconds.
    pub min_time: i64,
    /// Time of the last sample, milliseconds, inclusive.
    pub max_time: i64,
    /// How `data` is packed.
    pub encoding: Encoding,
    /// The encoded samples; cheap to clone, often a slice of a mapped file.
    pub data: Bytes,
}

impl Chunk {
    /// Whether any instant of the inclusive range lies within the chunk's bounds.
    pub fn overlaps(&self, mint: i64, maxt: i64) -> bool {
        self.min_time <= maxt && mint <= self.max_time
    }

    /// Number of samples that the header promises, of a downsampled chunk that of its counts; `None` without a header.
    pub fn sample_count(&self) -> Option<usize> {
        if self.encoding == Encoding::Aggregate {
            return self.aggregate(Aggregate::Count).ok().flatten()?.sample_count();
        }
        self.data.first_chunk::<2>().map(|c| usize::from(u16::from_be_bytes(*c)))
    }

    /// Appends the samples with `mint <= t <= maxt` to `out`. The caller hands over chunks in time order.
    ///
    /// # Errors
    /// `ChunkError`; samples before the damage may already be in `out`.
    pub fn read(&self, mint: i64, maxt: i64, out: &mut Columns) -> Result<(), ChunkError> {
        read_samples(self.encoding, &self.data, (self.min_time, self.max_time), (mint, maxt), out)
    }
}

/// Appends the samples with `mint <= t <= maxt` of encoded data to `out`. `bounds` are the times of its first and last
/// sample.
///
/// # Errors
/// `ChunkError`; samples before the damage may already be in `out`.
pub fn read_samples(
    encoding: Encoding,
    data: &[u8],
    bounds: (i64, i64),
    (mint, maxt): (i64, i64),
    out: &mut Columns,
) -> Result<(), ChunkError> {
    if encoding != Encoding::Xor {
        return crate::histogram::read(encoding, data, mint, maxt, out);
    }
    if mint <= bounds.0 && bounds.1 <= maxt {
        return crate::decode_xor(data, out);
    }
    if out.histograms.is_none() && out.starts.is_none() {
        // Decoding all and cutting is faster than looking at each sample.
        let start = out.len();
        let decoded = crate::decode_xor(data, out);
        let to = start + out.times[start..].partition_point(|t| *t <= maxt);
        let from = start + out.times[start..to].partition_point(|t| *t < mint);
        out.times.truncate(to);
        out.values.truncate(to);
        out.times.drain(start..from);
        out.values.drain(start..from);
        return decoded;
    }
    for sample in XorIter::new(data)? {
        let sample = sample?;
        if sample.t > maxt {
            break;
        }
        if sample.t >= mint {
            out.push(sample.t, sample.v);
        }
    }
    Ok(())
}

/// One series of an answer: who it is and the chunks that overlap the asked range, in time order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesChunks {
    /// Labels of the series, without the replica.
    pub labels: Labels,
    /// Which replica the samples come from.
    pub slot: Slot,
    /// Whole chunks; the first and last may reach beyond the asked range.
    pub chunks: Vec<Chunk>,
}

impl SeriesChunks {
    /// Decodes all samples with `mint <= t <= maxt`.
    ///
    /// # Errors
    /// `ChunkError` of the first chunk that cannot be read.
    pub fn read(&self, mint: i64, maxt: i64) -> Result<Columns, ChunkError> {
        let mut out = Columns::default();
        for chunk in &self.chunks {
            chunk.read(mint, maxt, &mut out)?;
        }
        Ok(out)
    }
}
