//! What may be sent beyond what has to be: a share of it, with a small reserve.
//!
//! Everything that has to be sent earns a share of a token, each extra one takes a whole one. So extras stay a share of
//! the whole however long it goes on, and no storm grows out of them.

/// Thousandths of a token to one token.
const WHOLE: u64 = 1000;

/// Tokens.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    earned: u64,
    share: u64,
    most: u64,
}

impl Budget {
    /// `percent` of what is sent may be sent again, and at most `burst` at a time.
    pub fn new(percent: u64, burst: u64) -> Self {
        Self { earned: burst * WHOLE, share: percent * WHOLE / 100, most: burst * WHOLE }
    }

    /// Something that had to be sent was sent.
    pub fn earn(&mut self) {
        self.earned = (self.earned + self.share).min(self.most);
    }

    /// Takes a token for something extra; false when there is none.
    pub fn take(&mut self) -> bool {
        let enough = self.earned >= WHOLE;
        self.earned -= if enough { WHOLE } else { 0 };
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn extras_are_a_share_and_a_burst(wants in proptest::collection::vec(any::<bool>(), 0..2000), percent in 1u64..50, burst in 1u64..10) {
            let mut budget = Budget::new(percent, burst);
            let (mut sent, mut extra) = (0u64, 0u64);
            for want in wants {
                sent += 1;
                budget.earn();
                extra += u64::from(want && budget.take());
                prop_assert!(extra <= burst + sent * percent / 100);
            }
        }
    }
}
