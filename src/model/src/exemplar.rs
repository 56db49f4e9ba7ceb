//! Exemplars: one observation beside a sample, with labels of its own such as a trace id.
//!
//! The length rule is OpenMetrics' (exemplars). Refuses the question whether an exemplar may follow another one:
//! that is storage's.

use crate::Labels;

/// Most characters that names and values of an exemplar's labels may have together.
pub const EXEMPLAR_CHARS_MAX: usize = 128;

/// An exemplar.
#[derive(Clone, Debug)]
pub struct Exemplar {
    /// Its own labels, not those of its series.
    pub labels: Labels,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// What was observed.
    pub v: f64,
}

/// Equality of everything, the value by bits.
impl PartialEq for Exemplar {
    fn eq(&self, other: &Self) -> bool {
        (self.t, self.v.to_bits()) == (other.t, other.v.to_bits()) && self.labels == other.labels
    }
}

impl Exemplar {
    /// Whether the labels are as short as they must be.
    pub fn is_short(&self) -> bool {
        let chars = |s: &str| s.chars().count();
        self.labels.iter().map(|(n, v)| chars(n) + chars(v)).sum::<usize>() <= EXEMPLAR_CHARS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_count_not_bytes() {
        let of = |n: usize| Exemplar {
            labels: Labels::from_pairs([("trace", "é".repeat(n).as_str())]),
            t: 1,
            v: 1.0,
        };
        assert!(of(123).is_short() && !of(124).is_short());
        assert!(of(3) == of(3) && of(3) != of(4));
        assert!(Exemplar { v: f64::NAN, ..of(3) } == Exemplar { v: f64::NAN, ..of(3) });
    }
}
