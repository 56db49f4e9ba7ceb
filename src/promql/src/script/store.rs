//! The storage of a script: series in memory, with the reset hints that a real storage would give.
//!
//! Prometheus keeps reset knowledge per chunk: only the first histogram of a chunk is unknown, all others
//! are known not to follow a reset, because a reset starts a new chunk.

use std::collections::BTreeMap;
use std::sync::Arc;

use koios_model::histogram::{Buckets, CUSTOM_SCHEMA};
use koios_model::{Columns, CounterReset, FloatHistogram, Labels, LabelsBuilder, METRIC_NAME, is_stale};

use crate::api::{MemorySeries, Select, SeriesSource};

use super::values::Value;

/// Time, value, and absolute start timestamp (0: unknown).
type Sample = (Value, i64);

/// All series, by labels.
#[derive(Default)]
pub(super) struct Store {
    raw: BTreeMap<Labels, BTreeMap<i64, Sample>>,
    ready: Vec<Arc<MemorySeries>>,
}

impl Store {
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds samples at multiples of `interval`.
    pub fn add(&mut self, labels: &Labels, interval: i64, values: &[Value], starts: &[Option<i64>]) {
        let series = self.raw.entry(labels.clone()).or_default();
        for (i, v) in values.iter().enumerate() {
            if matches!(v, Value::None) {
                continue;
            }
            let t = interval * i as i64;
            let start = starts.get(i).copied().flatten().map_or(0, |s| t + s);
            series.insert(t, (v.clone(), start));
        }
    }

    /// Makes the added samples visible.
    pub fn commit(&mut self) {
        self.ready = self
            .raw
            .iter()
            .map(|(labels, samples)| {
                Arc::new(MemorySeries { labels: labels.clone(), columns: columns(samples) })
            })
            .collect();
    }

    /// The visible series.
    pub fn series(&self) -> &[Arc<MemorySeries>] {
        &self.ready
    }

    /// The series that a select asks for.
    pub fn select(&self, select: &Select) -> Vec<Box<dyn SeriesSource>> {
        let matching =
            |s: &&Arc<MemorySeries>| select.matchers.iter().all(|m| m.matches(s.labels.value(&m.name)));
        self.ready.iter().filter(matching).map(|s| Box::new(s.clone()) as Box<dyn SeriesSource>).collect()
    }
}

fn columns(samples: &BTreeMap<i64, Sample>) -> Columns {
    let mut out = Columns::default();
    let mut previous: Option<Arc<FloatHistogram>> = None;
    for (t, (value, start)) in samples {
        match value {
            Value::None => continue,
            Value::Float(v) => {
                previous = None;
                out.push(*t, *v);
            }
            Value::Hist(h, _) => {
                let mut stored = h.as_ref().clone();
                if stored.hint != CounterReset::Gauge {
                    let same_chunk = previous.as_ref().is_some_and(|p| appendable(p, h));
                    stored.hint = if same_chunk { CounterReset::NotReset } else { CounterReset::Unknown };
                }
                previous = (!is_stale(h.sum)).then(|| h.clone());
                out.push_histogram(*t, Arc::new(stored));
            }
        }
        out.set_start(*start);
    }
    out
}

/// Whether a counter histogram fits into the chunk of the one before it.
fn appendable(previous: &FloatHistogram, h: &FloatHistogram) -> bool {
    let compared = FloatHistogram { hint: CounterReset::Unknown, ..h.clone() };
    previous.hint != CounterReset::Gauge
        && h.hint != CounterReset::Reset
        && previous.schema == h.schema
        && previous.zero_threshold == h.zero_threshold
        && previous.custom_values == h.custom_values
        && !compared.detect_reset(previous)
}

/// Parts of a classic histogram at one time.
#[derive(Default)]
struct Parts {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: Option<f64>,
}

/// Native histograms with custom buckets made of the classic histograms among `series`.
pub(super) fn custom_buckets(series: &[(Labels, Vec<Value>)]) -> Vec<(Labels, Vec<Value>)> {
    let mut all: BTreeMap<Labels, BTreeMap<usize, Parts>> = BTreeMap::new();
    for (labels, values) in series {
        let name = labels.metric_name();
        let Some((base, suffix)) = name.rsplit_once('_') else {
            continue;
        };
        let le = koios_model::format::parse_go_float(labels.value("le"));
        if !matches!(suffix, "bucket" | "count" | "sum") || (suffix == "bucket" && le.is_none()) {
            continue;
        }
        let mut builder = LabelsBuilder::from_labels(labels);
        builder.set(METRIC_NAME, base).del("le");
        let times = all.entry(builder.build()).or_default();
        for (i, value) in values.iter().enumerate() {
            let Value::Float(v) = value else {
                continue;
            };
            let parts = times.entry(i).or_default();
            match (suffix, le) {
                ("bucket", Some(le)) => parts.buckets.push((le, *v)),
                ("count", _) => parts.count = Some(*v),
                _ => parts.sum = Some(*v),
            }
        }
    }
    all.into_iter().map(|(labels, times)| (labels, sequence(times))).collect()
}

fn sequence(times: BTreeMap<usize, Parts>) -> Vec<Value> {
    let n = times.keys().next_back().map_or(0, |i| i + 1);
    let mut out = vec![Value::None; n];
    for (i, parts) in times {
        out[i] = Value::Hist(Arc::new(convert(parts)), false);
    }
    out
}

fn convert(mut parts: Parts) -> FloatHistogram {
    if parts.buckets.iter().chain([&(0.0, parts.sum.unwrap_or(0.0))]).any(|b| is_stale(b.1)) {
        return FloatHistogram { sum: koios_model::stale_nan(), ..FloatHistogram::default() };
    }
    parts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let highest = parts.buckets.last().map_or(0.0, |b| b.1);
    let count = parts.count.unwrap_or(highest);
    if parts.buckets.last().is_none_or(|b| b.0 != f64::INFINITY) {
        parts.buckets.push((f64::INFINITY, count));
    }
    let mut before = 0.0;
    let mut counts = Vec::new();
    for (i, (_, cumulative)) in parts.buckets.iter().enumerate() {
        counts.push((i as i32, cumulative - before));
        before = *cumulative;
    }
    let bounds: Vec<f64> = parts.buckets.iter().map(|b| b.0).filter(|b| b.is_finite()).collect();
    FloatHistogram {
        schema: CUSTOM_SCHEMA,
        count,
        sum: parts.sum.unwrap_or(0.0),
        positive: Buckets::from_sorted(counts),
        custom_values: bounds.into(),
        ..FloatHistogram::default()
    }
}
