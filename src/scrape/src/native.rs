//! Native histograms on their way from a target to the head: integer or float, and how fine they may be.
//!
//! Owns what a job says about resolution: the most buckets of one histogram, and the least factor between bounds.
//! Reducing merges pairs of neighbouring buckets and never loses an observation. Refuses to make a histogram coarser
//! than schema -4, and to touch custom buckets.

use std::sync::Arc;

use koios_chunk::IntHistogram;
use koios_model::histogram::{CUSTOM_SCHEMA, FloatHistogram, Span};

/// The finest schema that is stored.
const SCHEMA_MAX: i32 = 8;
/// The coarsest.
const SCHEMA_MIN: i32 = -4;

/// A native histogram as scraped.
#[derive(Clone, Debug, PartialEq)]
pub enum NativeHistogram {
    /// Whole counts.
    Int(Arc<IntHistogram>),
    /// Any counts.
    Float(Arc<FloatHistogram>),
}

impl NativeHistogram {
    /// Whether spans, buckets and counts fit together.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn validate(&self) -> Result<(), String> {
        match self {
            Self::Int(h) => h.validate(),
            Self::Float(h) => h.validate(),
        }
    }

    fn schema(&self) -> i32 {
        match self {
            Self::Int(h) => h.schema,
            Self::Float(h) => h.schema,
        }
    }

    fn buckets(&self) -> usize {
        match self {
            Self::Int(h) => h.positive.len() + h.negative.len(),
            Self::Float(h) => h.positive.counts.len() + h.negative.counts.len(),
        }
    }

    fn reduced_to(&self, schema: i32) -> Self {
        match self {
            Self::Int(h) => Self::Int(Arc::new(reduce(h, schema))),
            Self::Float(h) => {
                let mut coarse = (**h).clone();
                coarse.reduce_to(schema);
                Self::Float(Arc::new(coarse))
            }
        }
    }
}

/// How fine the histograms of a job may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resolution {
    /// Most buckets of one histogram; 0 means no limit.
    pub buckets_max: u64,
    /// Finest schema that keeps the least factor between bounds.
    schema_max: i32,
}

impl Resolution {
    /// From `native_histogram_bucket_limit` and `native_histogram_min_bucket_factor`.
    pub fn new(buckets_max: u64, min_factor: f64) -> Self {
        // The factor of schema n is 2^(2^-n).
        let finest = if min_factor > 1.0 { (-min_factor.log2().log2()).floor() } else { f64::INFINITY };
        let schema_max = finest.clamp(f64::from(SCHEMA_MIN), f64::from(SCHEMA_MAX)) as i32;
        Self { buckets_max, schema_max }
    }

    /// The histogram as it is stored.
    ///
    /// # Errors
    /// When it has too many buckets however coarse it is made.
    pub fn apply(&self, h: NativeHistogram) -> Result<NativeHistogram, String> {
        let over = |h: &NativeHistogram| self.buckets_max > 0 && h.buckets() as u64 > self.buckets_max;
        if h.schema() == CUSTOM_SCHEMA {
            return if over(&h) { Err(self.too_many()) } else { Ok(h) };
        }
        let mut h = if h.schema() > self.schema_max { h.reduced_to(self.schema_max) } else { h };
        while over(&h) {
            if h.schema() <= SCHEMA_MIN {
                return Err(self.too_many());
            }
            h = h.reduced_to(h.schema() - 1);
        }
        Ok(h)
    }

    fn too_many(&self) -> String {
        format!("histogram bucket limit exceeded (native_histogram_bucket_limit: {})", self.buckets_max)
    }
}

fn reduce(h: &IntHistogram, schema: i32) -> IntHistogram {
    let steps = (h.schema - schema).clamp(0, 31);
    let side = |spans: &[Span], deltas: &[i64]| pack(coarser(spans, deltas, steps));
    let (positive_spans, positive) = side(&h.positive_spans, &h.positive);
    let (negative_spans, negative) = side(&h.negative_spans, &h.negative);
    IntHistogram { schema, positive_spans, positive, negative_spans, negative, ..h.clone() }
}

/// Buckets by index after halving the resolution `steps` times: bucket `i` ends at factor^i, so it becomes the one
/// that ends at the next multiple.
fn coarser(spans: &[Span], deltas: &[i64], steps: i32) -> Vec<(i32, i64)> {
    let mut out: Vec<(i32, i64)> = Vec::new();
    let (mut index, mut count, mut deltas) = (0i32, 0i64, deltas.iter());
    for span in spans {
        index = index.wrapping_add(span.offset);
        for delta in deltas.by_ref().take(span.length as usize) {
            count = count.wrapping_add(*delta);
            let coarse = (index.wrapping_sub(1) >> steps).wrapping_add(1);
            match out.last_mut() {
                Some((last, sum)) if *last == coarse => *sum = sum.wrapping_add(count),
                _ => out.push((coarse, count)),
            }
            index = index.wrapping_add(1);
        }
    }
    out
}

/// Spans and differences of buckets of ascending index; empty ones are left out.
pub(crate) fn pack(buckets: impl IntoIterator<Item = (i32, i64)>) -> (Vec<Span>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<Span>, Vec<i64>) = (Vec::new(), Vec::new());
    let (mut next, mut last) = (0i32, 0i64);
    for (index, count) in buckets.into_iter().filter(|(_, n)| *n != 0) {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(Span { offset: index.wrapping_sub(next), length: 1 }),
        }
        deltas.push(count.wrapping_sub(std::mem::replace(&mut last, count)));
        next = index.wrapping_add(1);
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn int(schema: i32, counts: &[(i32, i64)]) -> IntHistogram {
        let (positive_spans, positive) = pack(counts.iter().copied());
        let count = counts.iter().map(|(_, n)| *n as u64).sum();
        IntHistogram { schema, positive_spans, positive, count, ..IntHistogram::default() }
    }

    #[test]
    fn factors_pick_schemas() {
        let schema = |factor| Resolution::new(0, factor).schema_max;
        assert_eq!(
            [0.0, 1.0, 1.00271, 1.1, 2.0, 4.0, 65536.0, 1e30].map(schema),
            [8, 8, 8, 2, 0, -1, -4, -4]
        );
    }

    #[test]
    fn too_many_buckets_make_it_coarser_or_fail() {
        let h = NativeHistogram::Int(Arc::new(int(3, &[(1, 1), (2, 2), (3, 3), (4, 4), (-9, 0)])));
        let NativeHistogram::Int(two) = Resolution::new(2, 0.0).apply(h.clone()).unwrap() else { panic!() };
        assert_eq!((two.schema, two.count, &two.positive[..]), (2, 10, &[3, 4][..]));
        let far: Vec<(i32, i64)> = (-3..3).map(|i| (i << 20, 1)).collect();
        let spread = NativeHistogram::Int(Arc::new(int(8, &far)));
        let why = Resolution::new(5, 0.0).apply(spread).unwrap_err();
        assert!(why.contains("bucket limit exceeded"), "{why}");
        let mut custom = int(CUSTOM_SCHEMA, &[(0, 1), (1, 1), (2, 1)]);
        custom.custom_values = [1.0, 2.0].into();
        let custom = NativeHistogram::Int(Arc::new(custom));
        assert_eq!(Resolution::new(3, 0.0).apply(custom.clone()).unwrap(), custom);
        assert!(Resolution::new(2, 0.0).apply(custom).is_err());
    }

    proptest! {
        #[test]
        fn integers_reduce_as_floats_do(
            counts in proptest::collection::btree_map(-200i32..200, 1i64..50, 0..40),
            from in -3i32..=8,
            steps in 0i32..6,
        ) {
            let counts: Vec<(i32, i64)> = counts.into_iter().collect();
            let h = int(from, &counts);
            let to = (from - steps).max(SCHEMA_MIN);
            let mut float = h.to_float();
            float.reduce_to(to);
            let reduced = reduce(&h, to);
            reduced.validate().unwrap();
            prop_assert_eq!(reduced.to_float().positive.indexed(), float.positive.indexed());
        }
    }
}
