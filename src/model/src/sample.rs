//! Samples, the stale marker, and decoded sample columns.
//!
//! Owns the meaning of one measured value. The place of native histograms is beside `Columns::values`:
//! they arrive with the storage issue. Invariant: `Columns::times` is strictly ascending.

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

/// Decoded samples of one series, as two parallel columns.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    /// Timestamps, strictly ascending, milliseconds.
    pub times: Vec<i64>,
    /// Values; stale markers are kept.
    pub values: Vec<f64>,
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

    /// Appends one sample; the caller keeps time ascending.
    #[inline]
    pub fn push(&mut self, t: i64, v: f64) {
        self.times.push(t);
        self.values.push(v);
    }

    /// Forgets all samples, keeps the memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
    }

    /// Samples in order.
    pub fn iter(&self) -> impl Iterator<Item = Sample> + '_ {
        self.times.iter().zip(&self.values).map(|(&t, &v)| Sample { t, v })
    }
}
