//! A histogram as Prometheus writes it in text: `{count:4, sum:5, [-1,-0.5):1, (1,2]:3}`.

use std::fmt;

use super::{Bucket, FloatHistogram};
use crate::format::float_g;

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = if self.lower_inclusive { '[' } else { '(' };
        let close = if self.upper_inclusive { ']' } else { ')' };
        let (lower, upper) = (float_g(self.lower), float_g(self.upper));
        write!(f, "{open}{lower},{upper}{close}:{}", float_g(self.count))
    }
}

impl fmt::Display for FloatHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{count:{}, sum:{}", float_g(self.count), float_g(self.sum))?;
        for bucket in self.all_buckets().iter().filter(|b| b.count != 0.0) {
            write!(f, ", {bucket}")?;
        }
        f.write_str("}")
    }
}
