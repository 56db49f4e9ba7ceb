//! The network between nodes: delay, loss, copies, disorder, cuts in one direction.
//!
//! Decides the fate of each message when it is sent; messages overtake each other because delays differ.

use super::rng::Rng;
use super::types::Ms;

/// State of all links.
#[derive(Clone, Debug)]
pub struct Net {
    cut: [[u8; MAX]; MAX],
    /// Loss in percent.
    pub loss: u64,
    /// Copies in percent.
    pub copies: u64,
    /// Longest delay.
    pub delay_max: Ms,
}

/// Most nodes.
pub const MAX: usize = 8;

impl Default for Net {
    fn default() -> Self {
        Self { cut: [[0; MAX]; MAX], loss: 0, copies: 0, delay_max: 6 }
    }
}

impl Net {
    /// Cuts or mends one direction; cuts add up.
    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        let c = &mut self.cut[from][to];
        *c = if cut { *c + 1 } else { c.saturating_sub(1) };
    }

    /// Whether a message can pass at all.
    pub fn is_open(&self, from: usize, to: usize) -> bool {
        self.cut[from][to] == 0
    }

    /// Delays of the copies of a message that arrive: none, one or two.
    pub fn fate(&self, from: usize, to: usize, rng: &mut Rng) -> [Option<Ms>; 2] {
        if !self.is_open(from, to) || (self.loss > 0 && rng.chance(self.loss)) {
            return [None, None];
        }
        let delay = 1 + rng.within(0, self.delay_max);
        let again = self.copies > 0 && rng.chance(self.copies);
        [Some(delay), again.then(|| delay + rng.within(0, self.delay_max * 4))]
    }
}
