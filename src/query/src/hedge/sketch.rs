//! Quantiles of answer times in a fixed number of counters.
//!
//! Four counters to each doubling of the time, from a quarter of a millisecond to four minutes: a quantile is at most a
//! quarter too high and never too low. When many times were seen all counts are halved, so what was long ago counts
//! little. (The bucketing is that of an HDR histogram with two significant bits; Tene, hdrhistogram.org.)

/// Doublings of the time.
const OCTAVES: usize = 20;
/// Counters to a doubling.
const FINE: u64 = 4;
/// log2 of the shortest time that is told apart, microseconds.
const SHORTEST_LOG2: usize = 8;
/// All counts are halved at this many times.
const SEEN_MAX: u32 = 2048;

/// Answer times of one class.
#[derive(Clone, Debug)]
pub struct Sketch {
    counts: [u32; OCTAVES * FINE as usize],
    seen: u32,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { counts: [0; OCTAVES * FINE as usize], seen: 0 }
    }
}

impl Sketch {
    /// One more, microseconds.
    pub fn add(&mut self, us: u64) {
        if self.seen >= SEEN_MAX {
            self.counts.iter_mut().for_each(|c| *c /= 2);
            self.seen = self.counts.iter().sum();
        }
        self.counts[place(us)] += 1;
        self.seen += 1;
    }

    /// How many times the quantiles rest on.
    pub fn seen(&self) -> u32 {
        self.seen
    }

    /// A time that `percent` of all stayed within, microseconds; `None` when there were none.
    pub fn quantile(&self, percent: u32) -> Option<u64> {
        let wanted = (u64::from(self.seen) * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut below = 0;
        let at = self.counts.iter().position(|c| {
            below += u64::from(*c);
            below >= wanted
        })?;
        Some(end(at))
    }
}

fn place(us: u64) -> usize {
    let us = us.max(1 << SHORTEST_LOG2);
    let log2 = us.ilog2() as usize;
    let fine = (us >> (log2 - 2)) & (FINE - 1);
    ((log2 - SHORTEST_LOG2) * FINE as usize + fine as usize).min(OCTAVES * FINE as usize - 1)
}

/// The longest time that falls into a place.
fn end(place: usize) -> u64 {
    let (octave, fine) = (place / FINE as usize, place as u64 % FINE);
    (FINE + fine + 1) << (octave + SHORTEST_LOG2 - 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn old_times_fade() {
        let mut s = Sketch::default();
        assert_eq!(s.quantile(95), None);
        (0..SEEN_MAX).for_each(|_| s.add(1_000_000));
        (0..8 * SEEN_MAX).for_each(|_| s.add(1000));
        assert!(s.quantile(95).unwrap() < 2000 && s.seen() <= SEEN_MAX);
    }

    proptest! {
        /// Never below the true quantile, and at most a quarter above it.
        #[test]
        fn quantiles_are_close(mut times in proptest::collection::vec(256u64..200_000_000, 1..500), percent in 1u32..=100) {
            let mut s = Sketch::default();
            times.iter().for_each(|t| s.add(*t));
            times.sort_unstable();
            let rank = (times.len() as u64 * u64::from(percent)).div_ceil(100).max(1);
            let (truth, told) = (times[rank as usize - 1], s.quantile(percent).unwrap());
            prop_assert!(told >= truth && told <= truth + truth / 4 + 1, "{told} for {truth}");
        }
    }
}
