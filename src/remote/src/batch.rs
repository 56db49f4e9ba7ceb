//! What a request comes to: series with their samples in one flat list.
//!
//! Owns the shape in which pushed data travels to the port. Samples of all series lie behind one another, so that a
//! request costs a handful of allocations and a sample has a number by which an outcome names it. Invariants: the
//! ranges of `series` follow one another and cover `samples`; labels are sorted and carry a metric name; histograms are
//! consistent.

use std::ops::Range;
use std::sync::Arc;

use koios_chunk::IntHistogram;
use koios_model::metadata::MetricMetadata;
use koios_model::{Exemplar, FloatHistogram, Labels};

/// What was measured.
#[derive(Clone, Debug)]
pub enum PushValue {
    /// A float; the stale marker and the payload of other NaN are kept as they were sent.
    Float(f64),
    /// A native histogram with integer counts.
    Histogram(Arc<IntHistogram>),
    /// A native histogram with float counts.
    FloatHistogram(Arc<FloatHistogram>),
}

impl PushValue {
    /// Bytes on the heap.
    fn heap_bytes(&self) -> usize {
        match self {
            Self::Float(_) => 0,
            Self::Histogram(h) => size_of::<IntHistogram>() + h.heap_bytes(),
            Self::FloatHistogram(h) => h.memory_bytes(),
        }
    }

    /// Whether this is a float.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::Float(_))
    }
}

/// Floats by bits, histograms by content.
impl PartialEq for PushValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Histogram(a), Self::Histogram(b)) => a == b,
            (Self::FloatHistogram(a), Self::FloatHistogram(b)) => {
                a == b && a.sum.to_bits() == b.sum.to_bits()
            }
            _ => false,
        }
    }
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct PushSample {
    /// Milliseconds since the epoch.
    pub t: i64,
    /// Value.
    pub v: PushValue,
}

/// One series of a batch. A series may occur more than once.
#[derive(Clone, Debug, PartialEq)]
pub struct PushSeries {
    /// Sorted, with a metric name.
    pub labels: Labels,
    /// Where its samples are in the batch; they are to be appended in this order. Empty when only exemplars came.
    pub samples: Range<u32>,
}

/// One exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct PushExemplar {
    /// Position of its series in the batch.
    pub series: u32,
    /// The exemplar.
    pub exemplar: Exemplar,
}

/// Everything of one request that is fit to be stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PushBatch {
    /// The series.
    pub series: Vec<PushSeries>,
    /// The samples of all series. A sample's position here is its number in a `PushOutcome`.
    pub samples: Vec<PushSample>,
    /// The exemplars, to be stored after the samples.
    pub exemplars: Vec<PushExemplar>,
    /// What was said about families, each once.
    pub metadata: Vec<(String, MetricMetadata)>,
}

impl PushBatch {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.exemplars.is_empty() && self.metadata.is_empty()
    }

    /// Bytes that the batch occupies, about.
    pub fn memory_bytes(&self) -> usize {
        let series = |s: &PushSeries| size_of::<PushSeries>() + s.labels.heap_bytes();
        let sample = |s: &PushSample| size_of::<PushSample>() + s.v.heap_bytes();
        let exemplar = |e: &PushExemplar| size_of::<PushExemplar>() + e.exemplar.labels.heap_bytes();
        let family = |(name, m): &(String, MetricMetadata)| {
            size_of::<(String, MetricMetadata)>() + name.len() + m.help.len() + m.unit.len()
        };
        self.series.iter().map(series).sum::<usize>()
            + self.samples.iter().map(sample).sum::<usize>()
            + self.exemplars.iter().map(exemplar).sum::<usize>()
            + self.metadata.iter().map(family).sum::<usize>()
    }

    /// Position of the series that a sample belongs to.
    pub fn series_of(&self, sample: u32) -> Option<usize> {
        let at = self.series.partition_point(|s| s.samples.end <= sample);
        self.series.get(at).is_some_and(|s| s.samples.contains(&sample)).then_some(at)
    }

    /// The samples with ascending numbers `wanted` and their series, and the series at ascending positions `bare`, which
    /// have exemplars alone; exemplars come along, metadata stays behind: a family is no series.
    pub fn part(&self, wanted: &[u32], bare: &[u32]) -> Self {
        let mut part = Self::default();
        let (mut rest, mut bare) = (wanted, bare.iter().peekable());
        let mut exemplars = self.exemplars.iter().peekable();
        for (at, series) in self.series.iter().enumerate() {
            let (own, others) = rest.split_at(rest.partition_point(|n| *n < series.samples.end));
            rest = others;
            let chosen = bare.next_if(|b| **b as usize == at).is_some() || !own.is_empty();
            while let Some(e) = exemplars.next_if(|e| e.series as usize <= at) {
                if chosen && e.series as usize == at {
                    let series = part.series.len() as u32;
                    part.exemplars.push(PushExemplar { series, exemplar: e.exemplar.clone() });
                }
            }
            if chosen {
                let start = part.samples.len() as u32;
                part.samples.extend(own.iter().map(|n| self.samples[*n as usize].clone()));
                let samples = start..part.samples.len() as u32;
                part.series.push(PushSeries { labels: series.labels.clone(), samples });
            }
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> PushBatch {
        let mut b = PushBatch::default();
        for (n, count) in [("a", 2u32), ("b", 0), ("c", 1)] {
            let start = b.samples.len() as u32;
            for i in 0..count {
                b.samples.push(PushSample { t: i64::from(start + i), v: PushValue::Float(1.0) });
            }
            let series = b.series.len() as u32;
            b.series.push(PushSeries {
                labels: Labels::from_pairs([("__name__", n)]),
                samples: start..start + count,
            });
            let exemplar = Exemplar { labels: Labels::empty(), t: i64::from(series), v: 1.0 };
            b.exemplars.push(PushExemplar { series, exemplar });
        }
        b
    }

    #[test]
    fn a_sample_finds_its_series() {
        let b = batch();
        let found: Vec<_> = (0..4).map(|i| b.series_of(i)).collect();
        assert_eq!(found, [Some(0), Some(0), Some(2), None]);
    }

    #[test]
    fn a_part_is_what_was_chosen() {
        let b = batch();
        let part = b.part(&[2], &[1]);
        assert_eq!(part.series[1].samples, 0..1);
        assert_eq!(part.samples[0], b.samples[2]);
        let of: Vec<_> = part.exemplars.iter().map(|e| (e.series, e.exemplar.t)).collect();
        assert_eq!(of, [(0, 1), (1, 2)]);
        assert_eq!(b.part(&[0, 1, 2], &[1]), b);
        let half = b.part(&[1], &[]);
        assert_eq!((half.series.len(), half.samples[0].t, half.exemplars.len()), (1, 1, 1));
    }
}
