//! The notation of series and histograms for others: rule unit tests write their data in it too.

use std::sync::Arc;

use koios_model::{FloatHistogram, Labels};

use crate::api::MemorySeries;

use super::store::Store;
use super::values::{Value, parse_metric, parse_series, parse_values};

/// Series from pairs of metric and values (`x{a="b"}`, `0+1x10 _ stale`), the first value at `start_ms`.
///
/// # Errors
/// What is wrong, and in which series.
pub fn read_series(
    pairs: &[(String, String)],
    start_ms: i64,
    interval_ms: i64,
) -> Result<Vec<Arc<MemorySeries>>, String> {
    let mut store = Store::default();
    for (metric, values) in pairs {
        let (labels, values) =
            parse_series(&format!("{metric} {values}")).map_err(|e| format!("series {metric}: {e}"))?;
        store.add(&labels, interval_ms, &values, &[]);
    }
    store.commit();
    let shift = |s: &Arc<MemorySeries>| {
        let mut s = s.as_ref().clone();
        s.columns.times.iter_mut().for_each(|t| *t = t.saturating_add(start_ms));
        Arc::new(s)
    };
    Ok(store.series().iter().map(shift).collect())
}

/// Labels from `x{a="b"}`.
///
/// # Errors
/// What is wrong.
pub fn read_metric(text: &str) -> Result<Labels, String> {
    let (labels, rest) = parse_metric(text)?;
    if rest.trim().is_empty() {
        Ok(labels)
    } else {
        Err(format!("unexpected {:?} after the metric", rest.trim()))
    }
}

/// A histogram from `{{schema:1 count:3 buckets:[1 2]}}`.
///
/// # Errors
/// What is wrong.
pub fn read_histogram(text: &str) -> Result<Arc<FloatHistogram>, String> {
    match &parse_values(text)?[..] {
        [Value::Hist(h, _)] => Ok(h.clone()),
        _ => Err(format!("want one histogram like {{{{schema:0 count:1 sum:1 buckets:[1]}}}}, got {text:?}")),
    }
}
