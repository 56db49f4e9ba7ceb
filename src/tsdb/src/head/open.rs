//! The chunk of a series that takes samples, whatever they are, and the rule when it is closed.
//!
//! The rule is Prometheus' (`head_append.go`). Floats: aim for N samples, spread evenly to the end of the block
//! range, twice that or 1,005 bytes at most. Histograms: the same by bytes, 1,024 aimed for, but not below ten
//! samples while the range lasts; and a new chunk wherever the encoding says so. Another kind of sample always
//! begins a new chunk. Invariant: an open chunk has a sample.

use std::sync::Arc;

use bytes::Bytes;
use koios_chunk::{Chunk, ChunkError, Coder, Encoding, FloatCoder, HistogramAppender, IntCoder, XorAppender};

use super::series::{ChunkRule, range_end};
use crate::types::Value;

/// An XOR chunk is closed when it has more bytes than this, however few samples.
const CHUNK_BYTES_MAX: usize = 1005;
/// Bytes a histogram chunk aims for.
const HISTOGRAM_BYTES: usize = 1024;
/// A histogram chunk gets this many samples whatever they weigh.
const HISTOGRAM_SAMPLES_MIN: u16 = 10;

/// An open histogram chunk.
pub(crate) struct OpenHistogram<C> {
    app: HistogramAppender<C>,
    /// Whether `next_at` was moved so that chunks get equally long.
    planned: bool,
}

/// The samples of an open chunk.
pub(crate) enum Samples {
    Xor(XorAppender),
    Int(Box<OpenHistogram<IntCoder>>),
    Float(Box<OpenHistogram<FloatCoder>>),
}

/// The chunk that takes samples.
pub(crate) struct OpenChunk {
    pub(crate) samples: Samples,
    pub(crate) min_time: i64,
    /// A sample at or after this opens a new chunk.
    pub(crate) next_at: i64,
}

impl std::fmt::Debug for OpenChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenChunk({:?}, {}..={})", self.encoding(), self.min_time, self.last_time())
    }
}

impl OpenChunk {
    pub(crate) fn of_float(t: i64, v: f64, rule: ChunkRule) -> Self {
        let mut xor = XorAppender::new();
        xor.append(t, v);
        Self { samples: Samples::Xor(xor), min_time: t, next_at: range_end(t, rule.range_ms) }
    }

    /// Appends a float; false when the chunk is full or holds something else.
    #[inline]
    pub(crate) fn append_float(&mut self, t: i64, v: f64, rule: ChunkRule) -> bool {
        let Samples::Xor(xor) = &mut self.samples else { return false };
        let count = xor.count();
        if count == rule.samples / 4 {
            self.next_at = even_end(self.min_time, xor.last_time(), self.next_at);
        }
        let fits = t < self.next_at && count < rule.samples * 2 && xor.byte_len() <= CHUNK_BYTES_MAX;
        if fits {
            xor.append(t, v);
        }
        fits
    }

    /// Appends a histogram; answers the next chunk, which then has it, when this one must be closed.
    pub(crate) fn append_histogram(
        before: Option<&mut Self>,
        t: i64,
        v: &Value,
        rule: ChunkRule,
    ) -> Option<Self> {
        match v {
            Value::Histogram(h) => append_as::<IntCoder>(before, t, h, rule),
            Value::FloatHistogram(h) => append_as::<FloatCoder>(before, t, h, rule),
            Value::Float(_) => unreachable!("BUG: a float is no histogram"),
        }
    }

    /// Goes on with a chunk that was stored.
    ///
    /// # Errors
    /// `ChunkError`.
    pub(crate) fn resume(chunk: &Chunk, next_at: i64, rule: ChunkRule) -> Result<Self, ChunkError> {
        let planned = next_at != range_end(chunk.min_time, rule.range_ms);
        let samples = match chunk.encoding {
            Encoding::Xor => Samples::Xor(XorAppender::resume(&chunk.data)?),
            Encoding::Histogram => Samples::Int(Box::new(OpenHistogram {
                app: HistogramAppender::resume(&chunk.data)?,
                planned,
            })),
            Encoding::FloatHistogram => Samples::Float(Box::new(OpenHistogram {
                app: HistogramAppender::resume(&chunk.data)?,
                planned,
            })),
            other => return Err(ChunkError::Unsupported(other)),
        };
        let open = Self { samples, min_time: chunk.min_time, next_at };
        if open.count() == 0 || open.last_time() != chunk.max_time {
            return Err(ChunkError::Damaged { sample: 0, what: "open chunk does not end when it should" });
        }
        Ok(open)
    }

    fn count(&self) -> u16 {
        match &self.samples {
            Samples::Xor(a) => a.count(),
            Samples::Int(a) => a.app.count(),
            Samples::Float(a) => a.app.count(),
        }
    }

    fn encoding(&self) -> Encoding {
        match &self.samples {
            Samples::Xor(_) => Encoding::Xor,
            Samples::Int(_) => Encoding::Histogram,
            Samples::Float(_) => Encoding::FloatHistogram,
        }
    }

    #[inline]
    pub(crate) fn last_time(&self) -> i64 {
        match &self.samples {
            Samples::Xor(a) => a.last_time(),
            Samples::Int(a) => a.app.last_time(),
            Samples::Float(a) => a.app.last_time(),
        }
    }

    /// The newest sample.
    pub(crate) fn last_value(&self) -> Value {
        match &self.samples {
            Samples::Xor(a) => Value::Float(a.last_value()),
            Samples::Int(a) => Value::Histogram(Arc::new(a.app.last_value())),
            Samples::Float(a) => Value::FloatHistogram(Arc::new(a.app.last_value())),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.samples {
            Samples::Xor(a) => a.heap_bytes(),
            Samples::Int(a) => size_of_val(&**a) + a.app.heap_bytes(),
            Samples::Float(a) => size_of_val(&**a) + a.app.heap_bytes(),
        }
    }

    pub(crate) fn to_chunk(&self) -> Chunk {
        let data = match &self.samples {
            Samples::Xor(a) => a.to_bytes(),
            Samples::Int(a) => a.app.to_bytes(),
            Samples::Float(a) => a.app.to_bytes(),
        };
        let (min_time, max_time) = (self.min_time, self.last_time());
        Chunk { min_time, max_time, encoding: self.encoding(), data: Bytes::from(data) }
    }

    /// First time, last time, encoding, bytes without spare capacity.
    pub(crate) fn close(self) -> (i64, i64, Encoding, Box<[u8]>) {
        let (min_time, max_time, encoding) = (self.min_time, self.last_time(), self.encoding());
        let data = match self.samples {
            // A copy of the right size, so that the larger allocation can serve the next open chunk.
            Samples::Xor(a) => a.to_bytes(),
            Samples::Int(a) => a.app.to_bytes(),
            Samples::Float(a) => a.app.to_bytes(),
        };
        (min_time, max_time, encoding, data.into_boxed_slice())
    }
}

/// How a coder's open chunk is found and put into `Samples`.
trait Kind: Coder {
    fn find(samples: &mut Samples) -> Option<&mut OpenHistogram<Self>>;
    fn wrap(open: OpenHistogram<Self>) -> Samples;
}

impl Kind for IntCoder {
    fn find(samples: &mut Samples) -> Option<&mut OpenHistogram<Self>> {
        if let Samples::Int(a) = samples { Some(a) } else { None }
    }

    fn wrap(open: OpenHistogram<Self>) -> Samples {
        Samples::Int(Box::new(open))
    }
}

impl Kind for FloatCoder {
    fn find(samples: &mut Samples) -> Option<&mut OpenHistogram<Self>> {
        if let Samples::Float(a) = samples { Some(a) } else { None }
    }

    fn wrap(open: OpenHistogram<Self>) -> Samples {
        Samples::Float(Box::new(open))
    }
}

fn append_as<C: Kind>(
    before: Option<&mut OpenChunk>,
    t: i64,
    v: &C::Value,
    rule: ChunkRule,
) -> Option<OpenChunk> {
    let new = |app, planned| {
        let samples = C::wrap(OpenHistogram { app, planned });
        Some(OpenChunk { samples, min_time: t, next_at: range_end(t, rule.range_ms) })
    };
    let Some(open) = before else { return new(HistogramAppender::start(None, t, v), false) };
    let min_time = open.min_time;
    let Some(own) = C::find(&mut open.samples) else {
        return new(HistogramAppender::start(None, t, v), false);
    };
    let (bytes, count) = (own.app.byte_len(), own.app.count());
    let range_ends = if own.planned { range_end(min_time, rule.range_ms) } else { open.next_at };
    if !own.planned && bytes >= HISTOGRAM_BYTES / 4 {
        let to_full = HISTOGRAM_BYTES as f64 / bytes as f64;
        open.next_at = even_end_by(min_time, own.app.last_time(), open.next_at, to_full);
        own.planned = true;
    }
    let full = t >= open.next_at || bytes >= 2 * HISTOGRAM_BYTES;
    if full && (count >= HISTOGRAM_SAMPLES_MIN || t >= range_ends) {
        return new(HistogramAppender::start(Some(&own.app), t, v), false);
    }
    let next = own.app.append(t, v)?;
    // Prometheus does not plan again after a reset; its chunks tell.
    let planned = own.planned;
    new(next, planned)
}

/// Where a chunk that is a quarter full should end so that the chunks up to `max` get equally long.
fn even_end(start: i64, current: i64, max: i64) -> i64 {
    let span = max.saturating_sub(start);
    let n = span / current.saturating_sub(start).saturating_add(1).saturating_mul(4).max(1);
    if n <= 1 { max } else { start + span / n }
}

/// The same for a chunk that has to grow `to_full`-fold.
fn even_end_by(start: i64, current: i64, max: i64, to_full: f64) -> i64 {
    let span = max.saturating_sub(start) as f64;
    let n = span / (current.saturating_sub(start).saturating_add(1) as f64 * to_full);
    if n <= 1.0 { max } else { (start as f64 + span / n.floor()) as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_chunk::IntHistogram;
    use koios_model::histogram::{CounterReset, Span};

    const RULE: ChunkRule = ChunkRule { range_ms: 7_200_000, samples: 120 };

    fn histogram(n: i64, width: usize) -> Value {
        let positive = (0..width as i64).map(|i| if i == 0 { n } else { (n * i) % 7 }).collect();
        Value::Histogram(Arc::new(IntHistogram {
            count: n as u64,
            sum: n as f64 * 0.7,
            positive_spans: vec![Span { offset: 0, length: width as u32 }],
            positive,
            hint: CounterReset::Gauge,
            ..IntHistogram::default()
        }))
    }

    fn fill(samples: impl IntoIterator<Item = (i64, Value)>) -> Vec<Chunk> {
        let (mut out, mut open): (Vec<Chunk>, Option<OpenChunk>) = (Vec::new(), None);
        for (t, v) in samples {
            if let Some(next) = OpenChunk::append_histogram(open.as_mut(), t, &v, RULE) {
                out.extend(open.replace(next).map(|o| o.to_chunk()));
            }
        }
        out.extend(open.map(|o| o.to_chunk()));
        out
    }

    #[test]
    fn histogram_chunks_are_about_a_kilobyte_and_end_with_the_range() {
        let chunks = fill((0..1000).map(|i| (i * 15_000, histogram(i, 8))));
        assert!(chunks.iter().all(|c| c.min_time / 7_200_000 == c.max_time / 7_200_000));
        assert!(chunks.iter().all(|c| c.data.len() < 2 * HISTOGRAM_BYTES));
        let mean = chunks.iter().map(|c| c.data.len()).sum::<usize>() / chunks.len();
        assert!((500..1400).contains(&mean), "{mean} bytes in the mean of {}", chunks.len());
    }

    #[test]
    fn large_histograms_still_share_a_chunk() {
        let chunks = fill((0..100).map(|i| (i * 15_000, histogram(i, 900))));
        let counts: Vec<_> = chunks.iter().map(|c| c.sample_count().unwrap()).collect();
        assert!(counts.iter().all(|n| *n == 10), "{counts:?}");
    }
}
