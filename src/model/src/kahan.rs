//! Compensated summation (Kahan, with Neumaier's improvement).
//!
//! Owned here because both native histograms and the query engine must add in exactly the same way for a
//! result to be the same on every node.

/// Adds `inc` to the running `(sum, compensation)` and returns the new pair. The value of the whole is
/// `sum + compensation`. An infinite sum forgets its compensation, which could only turn it into NaN.
#[inline]
pub fn kahan_inc(inc: f64, sum: f64, c: f64) -> (f64, f64) {
    let t = sum + inc;
    if t.is_infinite() {
        (t, 0.0)
    } else if sum.abs() >= inc.abs() {
        (t, c + ((sum - t) + inc))
    } else {
        (t, c + ((inc - t) + sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_plain_addition_loses() {
        let (mut s, mut c) = (0.0, 0.0);
        for v in [1.0, 1e100, 1.0, -1e100] {
            (s, c) = kahan_inc(v, s, c);
        }
        assert_eq!(s + c, 2.0);
        let (s, c) = kahan_inc(f64::INFINITY, 1.0, 0.5);
        assert_eq!((s, c), (f64::INFINITY, 0.0));
    }
}
