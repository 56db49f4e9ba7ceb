//! The `storage:` section of Prometheus: out-of-order window, retention, exemplars.

use crate::read::Section;

/// `storage.tsdb`. Times are milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TsdbConfig {
    /// How late a sample may be; `None` when not written.
    pub out_of_order_time_window_ms: Option<i64>,
    /// Share of stale series that triggers an early compaction; 0 means never.
    pub stale_series_compaction_threshold: f64,
    /// Age at which data is deleted; `None` when not written, 0 means never.
    pub retention_time_ms: Option<i64>,
    /// Bytes at which the oldest data is deleted.
    pub retention_size: Option<u64>,
    /// Percentage of the disk at which the oldest data is deleted.
    pub retention_percentage: Option<f64>,
}

/// The `storage:` section.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageConfig {
    /// `tsdb`
    pub tsdb: TsdbConfig,
    /// Exemplars kept in memory.
    pub max_exemplars: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { tsdb: TsdbConfig::default(), max_exemplars: 100_000 }
    }
}

impl StorageConfig {
    pub(crate) fn read(mut s: Section<'_>) -> Self {
        let mut out = Self { tsdb: s.section("tsdb").map(tsdb).unwrap_or_default(), ..Self::default() };
        if let Some(mut e) = s.section("exemplars") {
            out.max_exemplars = e.integer("max_exemplars").unwrap_or(out.max_exemplars);
            e.finish();
        }
        s.finish();
        out
    }
}

fn tsdb(mut s: Section<'_>) -> TsdbConfig {
    let mut out = TsdbConfig {
        out_of_order_time_window_ms: s.duration("out_of_order_time_window"),
        stale_series_compaction_threshold: fraction(&mut s, "stale_series_compaction_threshold", 1.0)
            .unwrap_or(0.0),
        ..TsdbConfig::default()
    };
    if let Some(mut c) = s.section("chunk_encoding") {
        // Both write the same bytes for readers of today; the choice is kept for Prometheus' sake.
        let _ = c.one_of("floats", &[("xor", ()), ("xor2", ())]);
        c.finish();
    }
    if let Some(mut r) = s.section("retention") {
        out.retention_time_ms = r.duration("time");
        out.retention_size = r.size("size");
        out.retention_percentage = fraction(&mut r, "percentage", 100.0);
        r.finish();
    }
    s.finish();
    out
}

/// A number from 0 to `max`.
pub(crate) fn fraction(s: &mut Section<'_>, name: &'static str, max: f64) -> Option<f64> {
    let value = s.float(name)?;
    if (0.0..=max).contains(&value) {
        return Some(value);
    }
    s.ctx.error(
        1202,
        s.value_span(name),
        format!("`{name}`: {value} is out of range"),
        format!("write a number from 0 to {max}"),
    );
    None
}
