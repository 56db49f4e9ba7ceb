//! Counter reset detection between two consecutive histograms of a series.
//!
//! A hint decides when there is one. Otherwise any shrinking count, bucket or resolution limit is a reset;
//! the sum says nothing, because observations may be negative.

use super::arith::{common_bounds, rebound_pairs};
use super::{CounterReset, FloatHistogram};

impl FloatHistogram {
    /// Whether the counter was reset between `previous` and this sample.
    pub fn detect_reset(&self, previous: &Self) -> bool {
        match self.hint {
            CounterReset::Reset => return true,
            CounterReset::NotReset => return false,
            CounterReset::Unknown | CounterReset::Gauge => {}
        }
        if self.count < previous.count || self.uses_custom_buckets() != previous.uses_custom_buckets() {
            return true;
        }
        if self.uses_custom_buckets() {
            return self.custom_shrunk(previous);
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        let (zero, threshold) = previous.zero_count_for(self.zero_threshold);
        if threshold != self.zero_threshold || self.zero_count < zero {
            return true;
        }
        [true, false].into_iter().any(|positive| {
            shrunk(
                &self.reduced_outside_zero(positive, self.schema, self.zero_threshold),
                &previous.reduced_outside_zero(positive, self.schema, self.zero_threshold),
            )
        })
    }

    fn custom_shrunk(&self, previous: &Self) -> bool {
        if self.custom_values == previous.custom_values {
            return shrunk(&self.positive.indexed(), &previous.positive.indexed());
        }
        let (bounds, _) = common_bounds(&self.custom_values, &previous.custom_values);
        shrunk(
            &rebound_pairs(&self.positive, &self.custom_values, &bounds),
            &rebound_pairs(&previous.positive, &previous.custom_values, &bounds),
        )
    }
}

/// Whether any index of `before` has less in `now`.
fn shrunk(now: &[(i32, f64)], before: &[(i32, f64)]) -> bool {
    let mut i = 0;
    before.iter().any(|&(index, count)| {
        while i < now.len() && now[i].0 < index {
            i += 1;
        }
        let current = now.get(i).filter(|p| p.0 == index).map_or(0.0, |p| p.1);
        current < count
    })
}
