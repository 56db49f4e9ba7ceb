//! The integer form of a native histogram, as scraped and as stored.
//!
//! Counts are whole; buckets are coded as the difference to the bucket before them. The float form, which queries
//! work with, is `koios_model::histogram::FloatHistogram`. Invariant: none is enforced here; `validate` tells
//! whether spans and buckets fit, and everything that stores a histogram asks first.

use std::sync::Arc;

use koios_model::histogram::{Buckets, CUSTOM_SCHEMA, CounterReset, FloatHistogram, Span};

/// A native histogram with integer counts.
#[derive(Clone, Debug, Default)]
pub struct IntHistogram {
    /// What is known about a reset; no part of equality.
    pub hint: CounterReset,
    /// Resolution, or `CUSTOM_SCHEMA`.
    pub schema: i32,
    /// Half width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: u64,
    /// All observations.
    pub count: u64,
    /// Sum of observations; the stale marker here makes the whole sample stale.
    pub sum: f64,
    /// Where the positive buckets are.
    pub positive_spans: Vec<Span>,
    /// Positive buckets, the first whole, then differences.
    pub positive: Vec<i64>,
    /// Where the negative buckets are.
    pub negative_spans: Vec<Span>,
    /// Negative buckets, coded as the positive ones.
    pub negative: Vec<i64>,
    /// Upper bounds with `CUSTOM_SCHEMA`, else empty.
    pub custom_values: Arc<[f64]>,
}

/// Equality of everything stored but the hint; the sum by bits.
impl PartialEq for IntHistogram {
    fn eq(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.zero_threshold == other.zero_threshold
            && (self.zero_count, self.count) == (other.zero_count, other.count)
            && self.sum.to_bits() == other.sum.to_bits()
            && self.positive_spans == other.positive_spans
            && self.positive == other.positive
            && self.negative_spans == other.negative_spans
            && self.negative == other.negative
            && (self.schema != CUSTOM_SCHEMA || self.custom_values == other.custom_values)
    }
}

impl IntHistogram {
    /// The marker that a histogram series ended.
    pub fn stale() -> Self {
        Self { sum: koios_model::stale_nan(), ..Self::default() }
    }

    /// Whether this is the stale marker.
    pub fn is_stale(&self) -> bool {
        koios_model::is_stale(self.sum)
    }

    /// The form that queries work with.
    pub fn to_float(&self) -> FloatHistogram {
        let side = |spans: &[Span], deltas: &[i64]| Buckets {
            spans: spans.to_vec(),
            counts: absolute(deltas).map(|c| c as f64).collect(),
        };
        FloatHistogram {
            hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero_count as f64,
            count: self.count as f64,
            sum: self.sum,
            positive: side(&self.positive_spans, &self.positive),
            negative: side(&self.negative_spans, &self.negative),
            custom_values: self.custom_values.clone(),
        }
    }

    /// Whether spans and buckets fit together and the schema is one that is stored. The stale marker is sound.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn validate(&self) -> Result<(), String> {
        if self.is_stale() {
            return Ok(());
        }
        if absolute(&self.positive).chain(absolute(&self.negative)).any(|c| c < 0) {
            return Err("histogram has a bucket whose observation count is negative".to_owned());
        }
        self.to_float().validate()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        8 * (self.positive.len() + self.negative.len())
            + size_of::<Span>() * (self.positive_spans.len() + self.negative_spans.len())
            + 8 * self.custom_values.len()
    }
}

/// Counts of buckets that are coded as differences.
pub(crate) fn absolute(deltas: &[i64]) -> impl Iterator<Item = i64> + '_ {
    deltas.iter().scan(0i64, |sum, d| {
        *sum = sum.wrapping_add(*d);
        Some(*sum)
    })
}

/// Undoes `absolute`.
pub(crate) fn deltas(counts: &[i64]) -> Vec<i64> {
    let mut last = 0i64;
    counts.iter().map(|&c| c.wrapping_sub(std::mem::replace(&mut last, c))).collect()
}
