//! Series in memory that rules read from and write to.
//!
//! What was written is visible to the next rule at once. Reading has an upper bound in time, so that a test
//! sees at each moment only what had happened by then.

use std::collections::BTreeMap;
use std::sync::Arc;

use koios_model::{Columns, FloatHistogram, Labels};
use koios_promql::{MemorySeries, Select, SeriesSource};

/// Where a rule's inputs come from.
pub trait Input {
    /// The series that a select asks for, samples up to `until_ms`.
    fn select(&self, select: &Select, until_ms: i64) -> Vec<Box<dyn SeriesSource>>;
}

/// Series by labels.
#[derive(Clone, Debug, Default)]
pub struct SeriesStore {
    series: BTreeMap<Labels, Arc<MemorySeries>>,
}

/// A sample to write.
#[derive(Clone, Debug)]
pub enum Written {
    /// A float; staleness is the stale NaN.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

impl SeriesStore {
    /// With series that are there from the beginning.
    pub fn new(series: Vec<Arc<MemorySeries>>) -> Self {
        Self { series: series.into_iter().map(|s| (s.labels.clone(), s)).collect() }
    }

    /// Appends a sample; one that is not newer than the last of its series is dropped, as storage does.
    pub fn append(&mut self, labels: &Labels, t_ms: i64, value: Written) {
        let fresh = || Arc::new(MemorySeries { labels: labels.clone(), columns: Columns::default() });
        let series = Arc::make_mut(self.series.entry(labels.clone()).or_insert_with(fresh));
        if series.columns.times.last().is_some_and(|t| *t >= t_ms) {
            return;
        }
        match value {
            Written::Float(v) => series.columns.push(t_ms, v),
            Written::Histogram(h) => series.columns.push_histogram(t_ms, h),
        }
    }
}

impl Input for SeriesStore {
    fn select(&self, select: &Select, until_ms: i64) -> Vec<Box<dyn SeriesSource>> {
        let matches = |l: &Labels| select.matchers.iter().all(|m| m.matches(l.value(&m.name)));
        let found = self.series.values().filter(|s| matches(&s.labels));
        found.map(|s| Box::new(Until { series: s.clone(), until_ms }) as Box<dyn SeriesSource>).collect()
    }
}

struct Until {
    series: Arc<MemorySeries>,
    until_ms: i64,
}

impl SeriesSource for Until {
    fn labels(&self) -> &Labels {
        &self.series.labels
    }

    fn read(&self, mint: i64, maxt: i64, out: &mut Columns) -> Result<(), String> {
        self.series.read(mint, maxt.min(self.until_ms), out)
    }
}
