//! Variance of a native histogram, with one value standing for each bucket.

use koios_model::FloatHistogram;
use koios_model::kahan::kahan_inc;

/// Population variance.
pub(crate) fn variance(h: &FloatHistogram) -> f64 {
    let mean = h.sum / h.count;
    let (mut sum, mut c) = (0.0, 0.0);
    for b in h.all_buckets().iter().filter(|b| b.count != 0.0) {
        let value = if h.uses_custom_buckets() {
            (b.upper + b.lower) / 2.0
        } else if b.lower <= 0.0 && b.upper >= 0.0 {
            0.0
        } else {
            (b.upper * b.lower).sqrt().copysign(b.upper)
        };
        let delta = value - mean;
        (sum, c) = kahan_inc(b.count * delta * delta, sum, c);
    }
    (sum + c) / h.count
}
