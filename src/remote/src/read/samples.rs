//! The answer of samples: one `prometheus.ReadResponse` in a snappy block.
//!
//! Owns its bounds. It is held whole before it is sent, because a snappy block begins with its length.

use koios_model::{Columns, Labels};

use super::put_labels;
use crate::encode::{put_bytes, put_double, put_float, put_int};

/// Samples of an answer: Prometheus' `--storage.remote.read-sample-limit`.
pub const SAMPLES_MAX: usize = 50_000_000;

/// The answer is larger than one of samples may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the answer has more than {max} {what}; fix: ask for fewer series or a shorter time, or accept STREAMED_XOR_CHUNKS"
)]
pub struct TooMuch {
    /// Samples or bytes.
    pub what: &'static str,
    /// The bound.
    pub max: u64,
}

/// An answer that is being written.
#[derive(Debug)]
pub struct SamplesAnswer {
    out: Vec<u8>,
    result: Vec<u8>,
    series: Vec<u8>,
    part: Vec<u8>,
    samples: usize,
    samples_max: usize,
    bytes_max: u64,
}

impl SamplesAnswer {
    /// An empty answer of at most so many samples and bytes before packing.
    pub fn new(samples_max: usize, bytes_max: u64) -> Self {
        // A snappy block can be no longer.
        let bytes_max = bytes_max.min(u64::from(u32::MAX));
        let (out, result, series, part) = Default::default();
        Self { out, result, series, part, samples: 0, samples_max, bytes_max }
    }

    /// Adds a series to the query that is being answered.
    ///
    /// # Errors
    /// When the answer becomes too large.
    pub fn push(&mut self, labels: &Labels, samples: &Columns) -> Result<(), TooMuch> {
        self.samples += samples.len();
        if self.samples > self.samples_max {
            return Err(TooMuch { what: "samples", max: self.samples_max as u64 });
        }
        self.series.clear();
        put_labels(&mut self.series, 1, labels);
        for i in 0..samples.len() {
            self.part.clear();
            let (field, time) = match samples.histogram(i) {
                Some(h) => {
                    put_float(&mut self.part, h);
                    (4, 15)
                }
                None => {
                    put_double(&mut self.part, 1, samples.values[i]);
                    (2, 2)
                }
            };
            put_int(&mut self.part, time, samples.times[i] as u64);
            put_bytes(&mut self.series, field, &self.part);
        }
        if (self.out.len() + self.result.len() + self.series.len()) as u64 > self.bytes_max {
            return Err(TooMuch { what: "bytes", max: self.bytes_max });
        }
        put_bytes(&mut self.result, 1, &self.series);
        Ok(())
    }

    /// Closes the query that is being answered.
    pub fn end_query(&mut self) {
        put_bytes(&mut self.out, 1, &std::mem::take(&mut self.result));
    }

    /// The packed answer.
    ///
    /// # Errors
    /// When it is larger than a snappy block can be.
    pub fn finish(self) -> Result<Vec<u8>, TooMuch> {
        let max = u64::from(u32::MAX);
        snap::raw::Encoder::new().compress_vec(&self.out).map_err(|_| TooMuch { what: "bytes", max })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use koios_model::histogram::{Buckets, FloatHistogram, Span};
    use koios_proto::prometheus as wire;
    use prost::Message;

    fn unpack(answer: SamplesAnswer) -> wire::ReadResponse {
        let bytes = snap::raw::Decoder::new().decompress_vec(&answer.finish().unwrap()).unwrap();
        wire::ReadResponse::decode(&bytes[..]).unwrap()
    }

    #[test]
    fn samples_and_histograms_are_what_the_messages_say() {
        let mut columns = Columns::default();
        columns.push(-1, 1.5);
        columns.push(7, koios_model::stale_nan());
        let positive = Buckets { spans: vec![Span { offset: -2, length: 2 }], counts: vec![1.0, 2.5] };
        let h = FloatHistogram { count: 3.5, sum: 9.0, schema: 1, positive, ..FloatHistogram::default() };
        columns.push_histogram(8, Arc::new(h));
        let labels = Labels::from_pairs([("__name__", "m"), ("a", "\u{e9}")]);
        let mut answer = SamplesAnswer::new(3, 1000);
        answer.end_query();
        answer.push(&labels, &columns).unwrap();
        answer.end_query();
        let response = unpack(answer);
        assert_eq!(response.results[0].timeseries, []);
        let [series] = &response.results[1].timeseries[..] else { panic!("{response:?}") };
        let pairs: Vec<_> = series.labels.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect();
        assert_eq!(pairs, [("__name__", "m"), ("a", "\u{e9}")]);
        let samples: Vec<_> = series.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
        assert_eq!(samples, [(-1, 1.5f64.to_bits()), (7, koios_model::STALE_NAN_BITS)]);
        let [h] = &series.histograms[..] else { panic!("{series:?}") };
        assert_eq!((h.timestamp, h.schema, h.sum), (8, 1, 9.0));
        assert_eq!(h.count, Some(wire::histogram::Count::CountFloat(3.5)));
        assert_eq!(h.positive_spans, [wire::BucketSpan { offset: -2, length: 2 }]);
        assert_eq!(h.positive_counts, [1.0, 2.5]);
    }

    #[test]
    fn too_many_samples_or_bytes_are_refused() {
        let mut columns = Columns::default();
        (0..10).for_each(|t| columns.push(t, t as f64));
        let labels = Labels::from_pairs([("__name__", "m")]);
        let mut answer = SamplesAnswer::new(19, 10_000);
        answer.push(&labels, &columns).unwrap();
        assert_eq!(answer.push(&labels, &columns), Err(TooMuch { what: "samples", max: 19 }));
        let refused = SamplesAnswer::new(100, 50).push(&labels, &columns);
        assert_eq!(refused, Err(TooMuch { what: "bytes", max: 50 }));
    }
}
