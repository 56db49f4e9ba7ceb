//! Counts of a head, cheap ones always and cardinalities on demand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use koios_model::METRIC_NAME;

use super::index::Index;

/// Counts that the writer keeps up to date.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) series: AtomicU64,
    pub(crate) chunks: AtomicU64,
    pub(crate) samples_appended: AtomicU64,
    pub(crate) late_appended: AtomicU64,
    pub(crate) late_repeated: AtomicU64,
    /// `i64::MAX` while there is no sample.
    pub(crate) min_time: AtomicI64,
    /// `i64::MIN` while there is no sample.
    pub(crate) max_time: AtomicI64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            series: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            samples_appended: AtomicU64::new(0),
            late_appended: AtomicU64::new(0),
            late_repeated: AtomicU64::new(0),
            min_time: AtomicI64::new(i64::MAX),
            max_time: AtomicI64::new(i64::MIN),
        }
    }
}

/// What a head holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadStats {
    /// Series.
    pub series: u64,
    /// Chunks, open ones included.
    pub chunks: u64,
    /// Time of the oldest sample; `i64::MAX` when there is none.
    pub min_time: i64,
    /// Time of the newest sample; `i64::MIN` when there is none.
    pub max_time: i64,
    /// Samples taken since the shard was opened.
    pub samples_appended: u64,
    /// Of them, those that were older than the newest of their series.
    pub out_of_order_appended: u64,
    /// Out-of-order samples that were passed over because their series has one at their time.
    pub out_of_order_repeated: u64,
    /// How far behind the newest sample one may be, milliseconds: a range must not be cut before.
    pub out_of_order_window_ms: i64,
    /// Distinct label pairs.
    pub label_pairs: u64,
}

/// The largest contributors, largest first, as `/api/v1/status/tsdb` lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series per metric name.
    pub series_by_metric: Vec<(String, u64)>,
    /// Distinct values per label name.
    pub values_by_label: Vec<(String, u64)>,
    /// Bytes of the values per label name.
    pub bytes_by_label: Vec<(String, u64)>,
    /// Series per label pair, written `name=value`.
    pub series_by_pair: Vec<(String, u64)>,
}

impl Counters {
    pub(crate) fn snapshot(&self, label_pairs: u64, out_of_order_window_ms: i64) -> HeadStats {
        HeadStats {
            series: self.series.load(Relaxed),
            chunks: self.chunks.load(Relaxed),
            min_time: self.min_time.load(Relaxed),
            max_time: self.max_time.load(Relaxed),
            samples_appended: self.samples_appended.load(Relaxed),
            out_of_order_appended: self.late_appended.load(Relaxed),
            out_of_order_repeated: self.late_repeated.load(Relaxed),
            out_of_order_window_ms,
            label_pairs,
        }
    }
}

pub(crate) fn cardinality(index: &Index, limit: usize) -> Cardinality {
    let mut out = Cardinality::default();
    let mut labels: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (name, value, series) in index.pair_counts() {
        let seen = labels.entry(name).or_default();
        *seen = (seen.0 + 1, seen.1 + value.len() as u64);
        if name == METRIC_NAME {
            out.series_by_metric.push((value.to_owned(), series as u64));
        }
        out.series_by_pair.push((format!("{name}={value}"), series as u64));
    }
    out.values_by_label = labels.iter().map(|(n, (count, _))| ((*n).to_owned(), *count)).collect();
    out.bytes_by_label = labels.iter().map(|(n, (_, bytes))| ((*n).to_owned(), *bytes)).collect();
    let lists = [
        &mut out.series_by_metric,
        &mut out.values_by_label,
        &mut out.bytes_by_label,
        &mut out.series_by_pair,
    ];
    for list in lists {
        list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        list.truncate(limit);
    }
    out
}
