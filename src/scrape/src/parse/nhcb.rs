//! Classic histograms made native, with their bounds as custom buckets (`convert_classic_histograms_to_nhcb`).
//!
//! A sink before the sink: collects the consecutive lines of one histogram and puts out one sample for them; whatever
//! else comes by is handed on. Needs `TYPE histogram`. A family that also brings exponential histograms is
//! not converted. Buckets whose counts do not ascend make no histogram, and the lines are lost as they are with
//! Prometheus. Bound: the lines of one histogram.

use std::sync::Arc;

use koios_chunk::IntHistogram;
use koios_model::histogram::{Buckets, CUSTOM_SCHEMA, FloatHistogram};
use koios_model::{LabelsBuilder, METRIC_NAME};

use super::number::parse_value;
use super::proto::push_quoted;
use super::series::labels_of_series;
use super::{Kind, Metadata, OwnExemplar, ParsedSample, Sink};
use crate::native::{NativeHistogram, pack};

/// Which line of a histogram.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Bucket(f64),
    Count,
    Sum,
}

/// The lines of one histogram so far.
#[derive(Default)]
struct Collected {
    /// Raw form of the histogram's own series; empty when nothing is collected.
    series: Vec<u8>,
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    timestamp_ms: Option<i64>,
    exemplars: Vec<OwnExemplar>,
}

/// See the module.
pub(super) struct Converting<'s, S: Sink> {
    sink: &'s mut S,
    /// The classic series are handed on as well.
    keep_classic: bool,
    collected: Collected,
    /// Name of the family that brought an exponential histogram.
    exponential: String,
    family: String,
}

impl<'s, S: Sink> Converting<'s, S> {
    pub(super) fn new(sink: &'s mut S, keep_classic: bool) -> Self {
        Self {
            sink,
            keep_classic,
            collected: Collected::default(),
            exponential: String::new(),
            family: String::new(),
        }
    }

    /// Puts out what was collected.
    pub(super) fn flush(&mut self) {
        let c = std::mem::take(&mut self.collected);
        if c.series.is_empty() || self.exponential == self.family {
            return;
        }
        if let Some(h) = c.histogram() {
            let (series, kind) = (&c.series[..], Kind::Histogram);
            let guessed = self.sink.expected() == series;
            let sample = ParsedSample {
                series,
                value: 0.0,
                timestamp_ms: c.timestamp_ms,
                kind,
                start_ms: None,
                exemplar: None,
                guessed,
            };
            self.sink.histogram(sample, h, &c.exemplars);
        }
    }

    fn collect(&mut self, sample: &ParsedSample<'_>) -> bool {
        let Some((series, part)) = part_of(sample) else { return false };
        if series != self.collected.series || sample.timestamp_ms != self.collected.timestamp_ms {
            self.flush();
            self.collected.series = series;
            self.collected.timestamp_ms = sample.timestamp_ms;
        }
        match part {
            Part::Bucket(bound) => self.collected.buckets.push((bound, sample.value)),
            Part::Count => self.collected.count = Some(sample.value),
            Part::Sum => self.collected.sum = sample.value,
        }
        self.collected.exemplars.extend(sample.exemplar.map(|e| OwnExemplar {
            labels: e.labels.to_vec(),
            value: e.value,
            timestamp_ms: e.timestamp_ms,
        }));
        true
    }
}

impl<S: Sink> Sink for Converting<'_, S> {
    fn expected(&self) -> &[u8] {
        if self.keep_classic { self.sink.expected() } else { &[] }
    }

    fn sample(&mut self, sample: ParsedSample<'_>) {
        let collected = sample.kind == Kind::Histogram && !sample.is_created() && self.collect(&sample);
        if !collected || self.keep_classic {
            self.sink.sample(sample);
        }
    }

    fn histogram(&mut self, sample: ParsedSample<'_>, h: NativeHistogram, exemplars: &[OwnExemplar]) {
        self.exponential.clone_from(&self.family);
        self.sink.histogram(sample, h, exemplars);
    }

    fn metadata(&mut self, metadata: Metadata<'_>) {
        if let Metadata::Kind(name, _) = metadata {
            self.flush();
            name.clone_into(&mut self.family);
        }
        self.sink.metadata(metadata);
    }
}

/// The histogram's own series and which part of it a classic line is.
fn part_of(sample: &ParsedSample<'_>) -> Option<(Vec<u8>, Part)> {
    let mut labels = LabelsBuilder::new();
    labels_of_series(sample.series, sample.kind, &mut labels).ok()?;
    let name = labels.get(METRIC_NAME).to_owned();
    let (base, part) = if let Some(base) = name.strip_suffix("_bucket") {
        (base, Part::Bucket(parse_value(labels.get("le").as_bytes())?))
    } else if let Some(base) = name.strip_suffix("_count") {
        (base, Part::Count)
    } else {
        (name.strip_suffix("_sum")?, Part::Sum)
    };
    let mut series = vec![b'{'];
    push_quoted(&mut series, base);
    for (name, value) in labels.build().iter().filter(|(n, _)| *n != METRIC_NAME && *n != "le") {
        series.push(b',');
        push_quoted(&mut series, name);
        series.push(b'=');
        push_quoted(&mut series, value);
    }
    series.push(b'}');
    Some((series, part))
}

impl Collected {
    fn histogram(&self) -> Option<NativeHistogram> {
        let mut buckets = self.buckets.clone();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets.dedup_by(|a, b| a.0 == b.0);
        let largest = buckets.last().copied();
        let count = self.count.or(largest.map(|(_, n)| n))?;
        if largest.is_none_or(|(bound, _)| bound != f64::INFINITY) {
            buckets.push((f64::INFINITY, count));
        }
        let ascending = buckets.windows(2).all(|w| w[0].1 <= w[1].1);
        let fits = buckets.last().is_some_and(|(_, n)| *n == count);
        if !ascending || !fits || buckets[0].1 < 0.0 || buckets[0].0.is_nan() {
            return None;
        }
        let mut below = 0.0;
        let own = buckets.iter().map(|(_, n)| n - std::mem::replace(&mut below, *n));
        let own: Vec<(i32, f64)> = own.enumerate().map(|(i, n)| (i as i32, n)).collect();
        let custom_values: Arc<[f64]> =
            buckets[..buckets.len() - 1].iter().map(|(bound, _)| *bound).collect();
        let (schema, sum) = (CUSTOM_SCHEMA, self.sum);
        let whole = |v: f64| v.fract() == 0.0 && v.abs() < (1u64 << 53) as f64;
        let h = if whole(count) && own.iter().all(|(_, n)| whole(*n)) {
            let (positive_spans, positive) = pack(own.iter().map(|(i, n)| (*i, *n as i64)));
            let count = count as u64;
            let h = IntHistogram {
                schema,
                count,
                sum,
                positive_spans,
                positive,
                custom_values,
                ..Default::default()
            };
            NativeHistogram::Int(Arc::new(h))
        } else {
            let filled = own.into_iter().filter(|(_, n)| *n != 0.0);
            let positive = Buckets::from_sorted(filled);
            let h = FloatHistogram { schema, count, sum, positive, custom_values, ..Default::default() };
            NativeHistogram::Float(Arc::new(h))
        };
        h.validate().ok().map(|()| h)
    }
}

#[cfg(test)]
mod tests {
    use koios_model::histogram::Span;

    use super::*;
    use crate::parse::{Format, ParseOptions, parse_with};

    #[derive(Default)]
    struct Seen {
        classic: Vec<String>,
        native: Vec<(String, NativeHistogram, usize)>,
    }

    impl Sink for Seen {
        fn sample(&mut self, s: ParsedSample<'_>) {
            self.classic.push(String::from_utf8_lossy(s.series).into_owned());
        }

        fn histogram(&mut self, s: ParsedSample<'_>, h: NativeHistogram, exemplars: &[OwnExemplar]) {
            self.native.push((String::from_utf8_lossy(s.series).into_owned(), h, exemplars.len()));
        }
    }

    fn convert(text: &str, classic: bool) -> Seen {
        let mut seen = Seen::default();
        let options = ParseOptions { convert_classic: true, classic, ..ParseOptions::default() };
        parse_with(Format::OpenMetrics, text.as_bytes(), options, &mut seen).unwrap();
        seen
    }

    const TEXT: &str = "# TYPE h histogram\n\
        h_bucket{a=\"x\",le=\"0.5\"} 0\nh_bucket{a=\"x\",le=\"1\"} 2 # {id=\"7\"} 0.7\nh_bucket{a=\"x\",le=\"+Inf\"} 5\n\
        h_count{a=\"x\"} 5\nh_sum{a=\"x\"} 9.5\n\
        h_bucket{a=\"y\",le=\"1\"} 1.5\nh_count{a=\"y\"} 2.5\n\
        h_bucket{a=\"bad\",le=\"1\"} 3\nh_bucket{a=\"bad\",le=\"+Inf\"} 2\n\
        # TYPE other gauge\nother 1\n# EOF\n";

    #[test]
    fn lines_of_one_histogram_become_one_sample() {
        let seen = convert(TEXT, false);
        assert_eq!(seen.classic, ["other"]);
        let [(x, h, exemplars), (y, f, _)] = &seen.native[..] else { panic!("{:?}", seen.native) };
        assert_eq!((x.as_str(), y.as_str(), *exemplars), ("{\"h\",\"a\"=\"x\"}", "{\"h\",\"a\"=\"y\"}", 1));
        let NativeHistogram::Int(h) = h else { panic!("{h:?}") };
        assert_eq!(
            (h.count, h.sum, &h.custom_values[..], &h.positive[..]),
            (5, 9.5, &[0.5, 1.0][..], &[2, 1][..])
        );
        assert_eq!(h.positive_spans, [Span { offset: 1, length: 2 }]);
        let NativeHistogram::Float(f) = f else { panic!("{f:?}") };
        assert_eq!((f.count, f.positive.indexed()), (2.5, vec![(0, 1.5), (1, 1.0)]));
    }

    #[test]
    fn classic_lines_stay_when_asked_for() {
        let seen = convert(TEXT, true);
        assert_eq!((seen.classic.len(), seen.native.len()), (10, 2));
    }
}
