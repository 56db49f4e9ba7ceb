//! Natural order of strings: runs of digits compare as numbers, so `pod2` comes before `pod10`.

use std::cmp::Ordering;

/// Compares two strings chunk by chunk.
pub(super) fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    while !a.is_empty() && !b.is_empty() {
        let (x, rest_a) = chunk(a);
        let (y, rest_b) = chunk(b);
        let both_digits = x.as_bytes()[0].is_ascii_digit() && y.as_bytes()[0].is_ascii_digit();
        let order = if both_digits { numbers(x, y) } else { x.cmp(y) };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    a.len().cmp(&b.len())
}

/// The leading run of digits or of anything else.
fn chunk(s: &str) -> (&str, &str) {
    let digits = s.as_bytes()[0].is_ascii_digit();
    let end = s.bytes().position(|b| b.is_ascii_digit() != digits).unwrap_or(s.len());
    s.split_at(end)
}

fn numbers(a: &str, b: &str) -> Ordering {
    let (x, y) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    x.len().cmp(&y.len()).then_with(|| x.cmp(y)).then_with(|| a.len().cmp(&b.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_numbers() {
        let mut all = vec!["pod10", "pod2", "pod", "a1b10", "a1b9", "pod02"];
        all.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(all, ["a1b9", "a1b10", "pod", "pod2", "pod02", "pod10"]);
    }
}
