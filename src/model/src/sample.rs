//! Samples, the stale marker, and decoded sample columns.
//!
//! Owns the meaning of one measured value. Invariant: `Columns::times` is strictly ascending and every
//! column that is present has its length.

use std::sync::Arc;

use crate::histogram::FloatHistogram;

/// Bit pattern of the value that marks a series as ended (Prometheus `value.StaleNaN`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;
/// Bit pattern that every other NaN is turned into at ingest (Prometheus `value.NormalNaN`).
pub const NORMAL_NAN_BITS: u64 = 0x7ff8_0000_0000_0001;

/// The stale marker as a float.
pub fn stale_nan() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// The ordinary NaN as Prometheus stores it.
pub fn normal_nan() -> f64 {
    f64::from_bits(NORMAL_NAN_BITS)
}

/// Whether a value is the stale marker. Ordinary NaN is data.
pub fn is_stale(v: f64) -> bool {
    v.to_bits() == STALE_NAN_BITS
}

/// One float sample.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Milliseconds since the epoch.
    pub t: i64,
    /// Value; may be the stale marker.
    pub v: f64,
}

/// Equality by bits, so NaN payloads count.
impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.t == other.t && self.v.to_bits() == other.v.to_bits()
    }
}

/// Decoded samples of one series, as parallel columns.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Timestamps, strictly ascending, milliseconds.
    pub times: Vec<i64>,
    /// Values; stale markers are kept. Beside a histogram stands its sum, so staleness shows here too.
    pub values: Vec<f64>,
    /// Histograms, parallel to `times`; `None` for the whole while only floats were pushed.
    pub histograms: Option<Vec<Option<Arc<FloatHistogram>>>>,
    /// Start timestamps, parallel to `times`, 0 when unknown; `None` for the whole while none was pushed.
    pub starts: Option<Vec<i64>>,
}

impl Columns {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Appends one float sample; the caller keeps time ascending.
    #[inline]
    pub fn push(&mut self, t: i64, v: f64) {
        self.times.push(t);
        self.values.push(v);
        if let Some(h) = &mut self.histograms {
            h.push(None);
        }
        if let Some(s) = &mut self.starts {
            s.push(0);
        }
    }

    /// Appends one histogram sample; the caller keeps time ascending.
    pub fn push_histogram(&mut self, t: i64, h: Arc<FloatHistogram>) {
        let before = self.times.len();
        self.times.push(t);
        self.values.push(h.sum);
        self.histograms.get_or_insert_with(|| vec![None; before]).push(Some(h));
        if let Some(s) = &mut self.starts {
            s.push(0);
        }
    }

    /// Sets the start timestamp of the sample pushed last; 0 means unknown.
    pub fn set_start(&mut self, start: i64) {
        if start == 0 && self.starts.is_none() {
            return;
        }
        let n = self.times.len();
        let starts = self.starts.get_or_insert_with(|| vec![0; n]);
        if let Some(last) = starts.last_mut() {
            *last = start;
        }
    }

    /// Appends the sample at position `i` of other columns, whatever it is.
    pub fn push_from(&mut self, other: &Self, i: usize) {
        match other.histogram(i) {
            Some(h) => self.push_histogram(other.times[i], h.clone()),
            None => self.push(other.times[i], other.values[i]),
        }
        self.set_start(other.start(i));
    }

    /// The histogram at position `i`, `None` for a float sample.
    pub fn histogram(&self, i: usize) -> Option<&Arc<FloatHistogram>> {
        self.histograms.as_ref().and_then(|h| h.get(i)).and_then(Option::as_ref)
    }

    /// The start timestamp at position `i`, 0 when unknown.
    pub fn start(&self, i: usize) -> i64 {
        self.starts.as_ref().and_then(|s| s.get(i)).copied().unwrap_or(0)
    }

    /// Forgets all samples, keeps the memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.histograms = None;
        self.starts = None;
    }

    /// Samples in order; a histogram appears as its sum.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        self.times.iter().zip(&self.values).map(|(&t, &v)| Sample { t, v })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stay_parallel() {
        let mut c = Columns::default();
        c.push(1, 1.0);
        c.push_histogram(2, Arc::new(FloatHistogram { sum: 7.0, ..FloatHistogram::default() }));
        c.set_start(1);
        c.push(3, 3.0);
        assert_eq!(c.values, [1.0, 7.0, 3.0]);
        assert!(c.histogram(0).is_none() && c.histogram(1).is_some() && c.histogram(2).is_none());
        assert_eq!((c.start(0), c.start(1), c.start(2)), (0, 1, 0));
        let mut copy = Columns::default();
        (0..3).for_each(|i| copy.push_from(&c, i));
        assert_eq!((&copy.times, &copy.values, &copy.starts), (&c.times, &c.values, &c.starts));
        assert_eq!(copy.histograms, c.histograms);
        c.clear();
        assert!(c.is_empty() && c.histograms.is_none());
    }
}
