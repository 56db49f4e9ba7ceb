//! Native histograms as the query engine sees them: float counts in sparse buckets.
//!
//! Owns the value type, its bucket geometry, and the arithmetic whose result must be the same on every
//! node. Chunk encodings and the integer form are the business of the formats that store them.
//!
//! Layout: the one of Prometheus (docs: native histogram specification). Schemas -4..=8 have a growth
//! factor of 2^(2^-schema); schema -53 has explicit upper bounds ("custom buckets", NHCB), whose implicit
//! last bucket reaches +Inf. Bucket indexes are given by spans; span offsets are relative to the end of the
//! previous span. Invariant: the lengths of the spans of a side add up to the number of its counts.

mod accumulate;
mod arith;
mod bounds;
mod buckets;
mod reset;
mod text;

use std::sync::Arc;

pub use accumulate::HistogramSum;
pub use arith::{Incompatible, Merged};
pub use bounds::{exponential_bound, go_exp2, go_log2};
pub use buckets::{Bucket, Buckets, Span};

/// The schema of histograms with explicit bounds.
pub const CUSTOM_SCHEMA: i32 = -53;
/// Finest exponential schema.
pub const SCHEMA_MAX: i32 = 8;
/// Coarsest exponential schema.
pub const SCHEMA_MIN: i32 = -4;

/// What is known about a counter reset between a histogram and the sample before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CounterReset {
    /// Nothing is known; compare the buckets.
    #[default]
    Unknown,
    /// There was a reset.
    Reset,
    /// There was none.
    NotReset,
    /// The series is a gauge, resets have no meaning.
    Gauge,
}

/// A native histogram with float counts.
#[derive(Clone, Debug, Default)]
pub struct FloatHistogram {
    /// Reset knowledge; no part of equality.
    pub hint: CounterReset,
    /// Resolution, or `CUSTOM_SCHEMA`.
    pub schema: i32,
    /// Half width of the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Sum of observations; the stale marker here makes the whole sample stale.
    pub sum: f64,
    /// Buckets of positive observations; of all observations with custom bounds.
    pub positive: Buckets,
    /// Buckets of negative observations.
    pub negative: Buckets,
    /// Upper bounds with `CUSTOM_SCHEMA`, ascending, without +Inf; else empty.
    pub custom_values: Arc<[f64]>,
}

impl FloatHistogram {
    /// Whether the bounds are explicit.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Whether this sample is the stale marker.
    pub fn is_stale(&self) -> bool {
        crate::is_stale(self.sum)
    }

    /// Whether the zero bucket and buckets agree in number, order and sign with the layout rules.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn validate(&self) -> Result<(), String> {
        if self.uses_custom_buckets() {
            if self.custom_values.windows(2).any(|w| w[0] >= w[1]) {
                return Err("histogram custom bounds must be in strictly increasing order".to_owned());
            }
            if !self.negative.counts.is_empty() {
                return Err("histogram with custom bounds must not have negative buckets".to_owned());
            }
        } else if !(SCHEMA_MIN..=SCHEMA_MAX).contains(&self.schema) {
            return Err(format!("histogram has an invalid schema {}", self.schema));
        }
        self.positive.validate("positive")?;
        self.negative.validate("negative")
    }

    /// Bytes this value occupies.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + 8 * (self.positive.counts.len()
                + self.negative.counts.len()
                + self.positive.spans.len()
                + self.negative.spans.len())
    }

    /// How many float samples this one counts for in sample limits: 16 bytes each, as Prometheus counts.
    pub fn size_in_samples(&self) -> usize {
        let custom = if self.uses_custom_buckets() { self.custom_values.len() } else { 0 };
        let bytes = 8
            * (5 + self.positive.counts.len()
                + self.negative.counts.len()
                + self.positive.spans.len()
                + self.negative.spans.len()
                + custom)
            + 8;
        bytes.div_ceil(16)
    }

    /// The lower and upper bound of bucket `index` on the positive side.
    pub fn bounds(&self, index: i32) -> (f64, f64) {
        if self.uses_custom_buckets() {
            let at = |i: i32| match usize::try_from(i) {
                Err(_) => f64::NEG_INFINITY,
                Ok(i) => self.custom_values.get(i).copied().unwrap_or(f64::INFINITY),
            };
            return (at(index - 1), at(index));
        }
        (exponential_bound(index - 1, self.schema), exponential_bound(index, self.schema))
    }

    /// Positive buckets by ascending bounds, empty ones too.
    pub fn positive_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        let custom = self.uses_custom_buckets();
        self.positive.indexed().into_iter().map(move |(i, count)| {
            let (lower, upper) = self.bounds(i);
            Bucket {
                lower,
                upper,
                count,
                index: i,
                lower_inclusive: custom && lower == f64::NEG_INFINITY,
                upper_inclusive: true,
            }
        })
    }

    /// Negative buckets by descending bounds (away from zero).
    pub fn negative_buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + '_ {
        self.negative.indexed().into_iter().map(move |(i, count)| {
            let (lower, upper) = self.bounds(i);
            Bucket {
                lower: -upper,
                upper: -lower,
                count,
                index: i,
                lower_inclusive: true,
                upper_inclusive: false,
            }
        })
    }

    /// The zero bucket.
    pub fn zero_bucket(&self) -> Bucket {
        Bucket {
            lower: -self.zero_threshold,
            upper: self.zero_threshold,
            count: self.zero_count,
            index: 0,
            lower_inclusive: true,
            upper_inclusive: true,
        }
    }

    /// All buckets by ascending bounds; the zero bucket only when it holds something.
    pub fn all_buckets(&self) -> Vec<Bucket> {
        let mut all: Vec<Bucket> = self.negative_buckets().collect();
        all.reverse();
        if self.zero_count != 0.0 {
            all.push(self.zero_bucket());
        }
        all.extend(self.positive_buckets());
        all
    }

    /// Whether any part is infinite, the sign that a running sum overflowed.
    pub fn has_overflow(&self) -> bool {
        [self.zero_count, self.count, self.sum].iter().any(|v| v.is_infinite())
            || self.positive.counts.iter().chain(&self.negative.counts).any(|v| v.is_infinite())
    }
}

/// Equality of content: empty buckets and the hint do not count, NaN equals NaN.
impl PartialEq for FloatHistogram {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
        self.schema == other.schema
            && same(self.count, other.count)
            && same(self.sum, other.sum)
            && (!self.uses_custom_buckets() || self.custom_values == other.custom_values)
            && self.zero_threshold == other.zero_threshold
            && same(self.zero_count, other.zero_count)
            && self.positive.same_content(&other.positive)
            && self.negative.same_content(&other.negative)
    }
}

#[cfg(test)]
mod tests;
