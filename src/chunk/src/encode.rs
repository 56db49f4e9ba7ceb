//! Packing decoded samples, floats and histograms as they come, into chunks again.
//!
//! For what was decoded on the way: clipped, merged or deleted ranges. Histograms are float histograms here.
//! Invariant: reading the chunks gives the columns back, only hints may know less.

use bytes::Bytes;
use koios_model::Columns;

use crate::histogram::{Coder, FloatCoder, HistogramAppender, HistogramIter, IntCoder};
use crate::{Chunk, ChunkError, Encoding, encode_xor};

/// Packs columns into chunks of at most `per_chunk` samples, a new one at every change between floats and
/// histograms and wherever histograms must not share one.
pub fn encode(samples: &Columns, per_chunk: usize) -> Vec<Chunk> {
    let Some(histograms) = &samples.histograms else { return encode_xor(samples, per_chunk) };
    let per_chunk = per_chunk.clamp(1, usize::from(u16::MAX));
    let mut out = Vec::new();
    let mut at = 0;
    for run in histograms.chunk_by(|a, b| a.is_some() == b.is_some()) {
        let end = at + run.len();
        if run[0].is_some() {
            encode_histograms(samples, at..end, per_chunk, &mut out);
        } else {
            let mut floats = Columns::default();
            (at..end).for_each(|i| floats.push(samples.times[i], samples.values[i]));
            out.extend(encode_xor(&floats, per_chunk));
        }
        at = end;
    }
    out
}

fn encode_histograms(
    samples: &Columns,
    range: std::ops::Range<usize>,
    per_chunk: usize,
    out: &mut Vec<Chunk>,
) {
    let mut packer = Packer::<FloatCoder>::new(per_chunk);
    for i in range {
        if let Some(h) = samples.histogram(i) {
            packer.push(samples.times[i], h, out);
        }
    }
    packer.finish(out);
}

/// Puts histograms of one kind into as few chunks as their rules allow.
struct Packer<C> {
    per_chunk: usize,
    open: Option<(i64, HistogramAppender<C>)>,
}

impl<C: Coder> Packer<C> {
    fn new(per_chunk: usize) -> Self {
        Self { per_chunk, open: None }
    }

    fn push(&mut self, t: i64, h: &C::Value, out: &mut Vec<Chunk>) {
        let next = match &mut self.open {
            Some((_, a)) if usize::from(a.count()) < self.per_chunk => a.append(t, h),
            Some((_, a)) => Some(HistogramAppender::start(Some(a), t, h)),
            None => Some(HistogramAppender::start(None, t, h)),
        };
        if let Some(next) = next {
            out.extend(self.open.replace((t, next)).map(close));
        }
    }

    fn finish(self, out: &mut Vec<Chunk>) {
        out.extend(self.open.map(close));
    }
}

fn close<C: Coder>((min_time, a): (i64, HistogramAppender<C>)) -> Chunk {
    Chunk { min_time, max_time: a.last_time(), encoding: C::ENCODING, data: Bytes::from(a.to_bytes()) }
}

impl Chunk {
    /// The chunk without the samples for which `keep` says no, in the same encoding; usually one chunk, none when
    /// nothing is left.
    ///
    /// # Errors
    /// `ChunkError` when it does not decode, `Unsupported` among them.
    pub fn retain(&self, keep: impl Fn(i64) -> bool) -> Result<Vec<Self>, ChunkError> {
        match self.encoding {
            Encoding::Histogram => self.retain_histograms::<IntCoder>(keep),
            Encoding::FloatHistogram => self.retain_histograms::<FloatCoder>(keep),
            _ => {
                let (mut all, mut kept) = (Columns::default(), Columns::default());
                self.read(i64::MIN, i64::MAX, &mut all)?;
                (0..all.len()).filter(|&i| keep(all.times[i])).for_each(|i| kept.push_from(&all, i));
                Ok(encode(&kept, usize::from(u16::MAX)))
            }
        }
    }

    fn retain_histograms<C: Coder>(&self, keep: impl Fn(i64) -> bool) -> Result<Vec<Self>, ChunkError> {
        let mut out = Vec::new();
        let mut packer = Packer::<C>::new(usize::from(u16::MAX));
        for sample in HistogramIter::<C>::new(&self.data)? {
            let (t, h) = sample?;
            if keep(t) {
                packer.push(t, &h, &mut out);
            }
        }
        packer.finish(&mut out);
        Ok(out)
    }
}
