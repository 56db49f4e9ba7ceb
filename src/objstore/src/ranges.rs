//! Which ranges to ask for, given which bytes are wanted.
//!
//! Pure. A request costs a round trip however few bytes it brings, and bytes that nobody wanted cost too. Small gaps are
//! fetched with their neighbours as long as all of them together stay below a share of what is wanted; when there would still
//! be too many requests, more gaps are closed, the smallest first. Invariant: every wanted byte is in one range of the answer.

use std::ops::Range;

/// Unwanted bytes may be one of so many wanted ones.
const WASTE_SHARE: u64 = 10;
/// Most requests of one plan that are kept apart by gaps.
pub const REQUESTS_MAX: usize = 512;
/// Most bytes of one request.
pub const REQUEST_BYTES_MAX: u64 = 4 << 20;

/// The ranges to ask for, ascending, for `wanted` in any order.
pub fn joined(mut wanted: Vec<Range<u64>>) -> Vec<Range<u64>> {
    wanted.retain(|r| !r.is_empty());
    wanted.sort_unstable_by_key(|r| (r.start, r.end));
    let mut apart: Vec<Range<u64>> = Vec::with_capacity(wanted.len());
    for r in wanted {
        match apart.last_mut().filter(|last| last.end >= r.start) {
            Some(last) => last.end = last.end.max(r.end),
            None => apart.push(r),
        }
    }
    let mut gaps: Vec<(u64, usize)> =
        apart.windows(2).enumerate().map(|(i, w)| (w[1].start - w[0].end, i)).collect();
    gaps.sort_unstable();
    let mut allowance = apart.iter().map(|r| r.end - r.start).sum::<u64>() / WASTE_SHARE;
    let mut left = apart.len();
    let mut closed = vec![false; gaps.len()];
    for (gap, i) in gaps {
        if gap > allowance && left <= REQUESTS_MAX {
            break;
        }
        allowance = allowance.saturating_sub(gap);
        left -= 1;
        closed[i] = true;
    }
    let mut out: Vec<Range<u64>> = Vec::with_capacity(left);
    for (i, r) in apart.into_iter().enumerate() {
        match out.last_mut().filter(|_| i > 0 && closed[i - 1]) {
            Some(last) => last.end = r.end,
            None => out.push(r),
        }
    }
    out.into_iter().flat_map(parts).collect()
}

/// A range in parts that one request may bring.
fn parts(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let count = (range.end - range.start).div_ceil(REQUEST_BYTES_MAX);
    (0..count).map(move |i| {
        let start = range.start + i * REQUEST_BYTES_MAX;
        start..range.end.min(start + REQUEST_BYTES_MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_gaps_are_closed_and_large_ones_are_not() {
        assert_eq!(joined(vec![1000..2000, 0..990, 5000..5100]), [0..2000, 5000..5100]);
        assert_eq!(joined(vec![0..10, 20..30]), [0..10, 20..30], "a gap as large as what is wanted");
        let large = joined(vec![5..5, 0..REQUEST_BYTES_MAX + 1]);
        assert_eq!(large, [0..REQUEST_BYTES_MAX, REQUEST_BYTES_MAX..REQUEST_BYTES_MAX + 1]);
        let many = joined((0..10_000u64).map(|i| i * 100..i * 100 + 10).collect());
        assert_eq!(many.len(), REQUESTS_MAX);
    }

    proptest! {
        #[test]
        fn all_is_there_and_little_else(wanted in proptest::collection::vec((0u64..100_000, 0u64..500), 0..60)) {
            let wanted: Vec<_> = wanted.into_iter().map(|(s, l)| s..s + l).collect();
            let got = joined(wanted.clone());
            prop_assert!(got.windows(2).all(|w| w[0].end <= w[1].start));
            let mut bytes = std::collections::BTreeSet::new();
            for r in wanted {
                prop_assert!(r.is_empty() || got.iter().any(|g| g.start <= r.start && r.end <= g.end));
                bytes.extend(r);
            }
            let fetched: u64 = got.iter().map(|r| r.end - r.start).sum();
            prop_assert!(fetched <= bytes.len() as u64 + bytes.len() as u64 / WASTE_SHARE);
        }
    }
}
