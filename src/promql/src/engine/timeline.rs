//! The evaluation times of a query or subquery.

/// Evenly spaced times; `step` is at least 1 ms, `n` at least 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeline {
    pub start: i64,
    pub step: i64,
    pub n: usize,
}

impl Timeline {
    /// From start to end inclusive.
    pub fn new(start: i64, end: i64, step: i64) -> Self {
        let step = step.max(1);
        let n = if end < start { 0 } else { (end.saturating_sub(start) / step) as usize + 1 };
        Self { start, step, n }
    }

    pub fn at(&self, i: usize) -> i64 {
        self.start.saturating_add((i as i64).saturating_mul(self.step))
    }

    pub fn end(&self) -> i64 {
        self.at(self.n.saturating_sub(1))
    }

    /// Only the first time.
    pub fn first(&self) -> Self {
        Self { n: self.n.min(1), ..*self }
    }

    pub fn times(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.n).map(|i| self.at(i))
    }
}
