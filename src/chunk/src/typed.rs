//! Samples that keep their kind, out of chunks and into chunks again.
//!
//! `Columns` turns every histogram into a float histogram, which is right for queries and wrong for storage: whoever
//! merges chunks (blocks that overlap) needs integers back as integers. Invariant: unpacking what a `Packer` made
//! gives the same samples, but for empty buckets that a histogram may gain and for hints.

use bytes::Bytes;
use koios_model::histogram::FloatHistogram;

use crate::histogram::{Coder, FloatCoder, HistogramAppender, HistogramIter, IntCoder, IntHistogram};
use crate::{Chunk, ChunkError, Encoding, XorAppender, XorIter};

/// What was measured, in the form in which it is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Typed {
    /// A float, the stale marker included.
    Float(f64),
    /// A native histogram with integer counts.
    Histogram(IntHistogram),
    /// A native histogram with float counts.
    FloatHistogram(FloatHistogram),
}

impl Typed {
    /// The float, or the histogram's sum: what says whether a sample is the stale marker.
    pub fn value(&self) -> f64 {
        match self {
            Self::Float(v) => *v,
            Self::Histogram(h) => h.sum,
            Self::FloatHistogram(h) => h.sum,
        }
    }
}

impl Chunk {
    /// All samples with their kinds, in time order.
    ///
    /// # Errors
    /// `ChunkError`, `Unsupported` among them.
    pub fn typed(&self) -> Result<Vec<(i64, Typed)>, ChunkError> {
        match self.encoding {
            Encoding::Xor => XorIter::new(&self.data)?.map(|s| s.map(|s| (s.t, Typed::Float(s.v)))).collect(),
            Encoding::Histogram => HistogramIter::<IntCoder>::new(&self.data)?
                .map(|s| s.map(|(t, h)| (t, Typed::Histogram(h))))
                .collect(),
            Encoding::FloatHistogram => HistogramIter::<FloatCoder>::new(&self.data)?
                .map(|s| s.map(|(t, h)| (t, Typed::FloatHistogram(h))))
                .collect(),
            other => Err(ChunkError::Unsupported(other)),
        }
    }

    /// The chunk without its claim about the step from the chunk before it, for when another one comes before it now.
    /// A chunk that makes no such claim stays as it is.
    #[must_use]
    pub fn without_reset_claim(self) -> Self {
        let counter = matches!(self.data.get(2).map(|flags| flags >> 6), Some(0b10 | 0b01));
        if !counter || !matches!(self.encoding, Encoding::Histogram | Encoding::FloatHistogram) {
            return self;
        }
        let mut data = self.data.to_vec();
        data[2] &= 0x3f;
        Self { data: Bytes::from(data), ..self }
    }
}

/// The chunk that is being filled, with the time of its first sample.
#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    Float(i64, XorAppender),
    Histogram(i64, HistogramAppender<IntCoder>),
    FloatHistogram(i64, HistogramAppender<FloatCoder>),
}

/// Packs samples that come in time order into chunks.
#[derive(Debug)]
pub struct Packer {
    per_chunk: u16,
    open: Open,
    done: Vec<Chunk>,
}

impl Packer {
    /// A packer that begins a new chunk after `per_chunk` samples, and wherever the kind changes or histograms must
    /// not share a chunk.
    pub fn new(per_chunk: u16) -> Self {
        Self { per_chunk: per_chunk.max(1), open: Open::Nothing, done: Vec::new() }
    }

    /// Adds a sample that is newer than the one before.
    pub fn push(&mut self, t: i64, v: &Typed) {
        match v {
            Typed::Float(v) => self.push_float(t, *v),
            Typed::Histogram(h) => {
                let (mine, rest) = match std::mem::take(&mut self.open) {
                    Open::Histogram(from, a) => (Some((from, a)), Open::Nothing),
                    rest => (None, rest),
                };
                self.close(rest);
                let (from, a) = self.grow(mine, t, h);
                self.open = Open::Histogram(from, a);
            }
            Typed::FloatHistogram(h) => {
                let (mine, rest) = match std::mem::take(&mut self.open) {
                    Open::FloatHistogram(from, a) => (Some((from, a)), Open::Nothing),
                    rest => (None, rest),
                };
                self.close(rest);
                let (from, a) = self.grow(mine, t, h);
                self.open = Open::FloatHistogram(from, a);
            }
        }
    }

    fn push_float(&mut self, t: i64, v: f64) {
        if let Open::Float(_, a) = &mut self.open
            && a.count() < self.per_chunk
        {
            return a.append(t, v);
        }
        let full = std::mem::take(&mut self.open);
        self.close(full);
        let mut a = XorAppender::new();
        a.append(t, v);
        self.open = Open::Float(t, a);
    }

    /// Appends to the open chunk of the kind, or begins the next one.
    fn grow<C: Coder>(
        &mut self,
        open: Option<(i64, HistogramAppender<C>)>,
        t: i64,
        h: &C::Value,
    ) -> (i64, HistogramAppender<C>) {
        let Some((from, mut a)) = open else { return (t, HistogramAppender::start(None, t, h)) };
        let next = match a.count() < self.per_chunk {
            true => a.append(t, h),
            false => Some(HistogramAppender::start(Some(&a), t, h)),
        };
        match next {
            None => (from, a),
            Some(next) => {
                self.done.push(closed(from, &a));
                (t, next)
            }
        }
    }

    fn close(&mut self, open: Open) {
        match open {
            Open::Nothing => {}
            Open::Float(min_time, a) => {
                let max_time = a.last_time();
                let data = Bytes::from(a.into_bytes());
                self.done.push(Chunk { min_time, max_time, encoding: Encoding::Xor, data });
            }
            Open::Histogram(from, a) => self.done.push(closed(from, &a)),
            Open::FloatHistogram(from, a) => self.done.push(closed(from, &a)),
        }
    }

    /// The chunks, in time order.
    pub fn finish(mut self) -> Vec<Chunk> {
        let open = std::mem::take(&mut self.open);
        self.close(open);
        self.done
    }
}

fn closed<C: Coder>(min_time: i64, a: &HistogramAppender<C>) -> Chunk {
    Chunk { min_time, max_time: a.last_time(), encoding: C::ENCODING, data: Bytes::from(a.to_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_model::histogram::{Buckets, CounterReset, Span};

    fn int(count: u64) -> Typed {
        let spans = vec![Span { offset: 0, length: 1 }];
        Typed::Histogram(IntHistogram {
            count,
            sum: count as f64,
            positive_spans: spans,
            positive: vec![count as i64],
            ..IntHistogram::default()
        })
    }

    fn float(count: f64) -> Typed {
        let positive = Buckets { spans: vec![Span { offset: 3, length: 1 }], counts: vec![count] };
        Typed::FloatHistogram(FloatHistogram { count, sum: count, positive, ..FloatHistogram::default() })
    }

    #[test]
    fn kinds_come_back_and_chunks_end_where_they_must() {
        let stale = || Typed::Histogram(IntHistogram::stale());
        let samples = [
            Typed::Float(1.0),
            Typed::Float(2.0),
            Typed::Float(3.0),
            int(1),
            int(5),
            int(2),
            stale(),
            float(7.0),
            float(7.5),
        ];
        let mut p = Packer::new(2);
        samples.iter().enumerate().for_each(|(i, v)| p.push(i as i64 * 10, v));
        let chunks = p.finish();
        let shape: Vec<_> = chunks.iter().map(|c| (c.encoding, c.min_time, c.max_time)).collect();
        assert_eq!(
            shape,
            [
                (Encoding::Xor, 0, 10),
                (Encoding::Xor, 20, 20),
                (Encoding::Histogram, 30, 40),
                // The count shrank.
                (Encoding::Histogram, 50, 60),
                (Encoding::FloatHistogram, 70, 80),
            ]
        );
        let back: Vec<_> = chunks.iter().flat_map(|c| c.typed().unwrap()).collect();
        assert_eq!(
            back.iter().map(|(t, _)| *t).collect::<Vec<_>>(),
            (0..9).map(|i| i * 10).collect::<Vec<_>>()
        );
        for ((_, got), want) in back.iter().zip(&samples) {
            assert_eq!(got.value().to_bits(), want.value().to_bits());
            assert!(got == want || koios_model::is_stale(want.value()), "{got:?} {want:?}");
        }
        assert_eq!(chunks[3].data[2] >> 6, 0b10, "the reset is in the flags");
        let claim_free = chunks[3].clone().without_reset_claim();
        assert_eq!(claim_free.data[2], 0);
        assert_eq!(claim_free.data[3..], chunks[3].data[3..]);
        assert_eq!(chunks[0].clone().without_reset_claim(), chunks[0]);
        let gauge =
            Typed::FloatHistogram(FloatHistogram { hint: CounterReset::Gauge, ..FloatHistogram::default() });
        let mut p = Packer::new(9);
        p.push(1, &gauge);
        let made = p.finish().remove(0);
        assert_eq!(made.clone().without_reset_claim(), made, "a gauge claims no step");
        let bytes = Bytes::from_static(&[0, 0, 0]);
        let st = Chunk { min_time: 0, max_time: 0, encoding: Encoding::Xor2, data: bytes };
        assert_eq!(st.typed(), Err(ChunkError::Unsupported(Encoding::Xor2)));
    }
}
