//! How much is done between two looks at the control block, and orders that can be broken off.
//!
//! Loops say what they do in units: one unit is what handling one float or one byte of a label costs. No loop
//! of the engine runs for more than `UNCHECKED` units unseen, so a cancelled query stops in milliseconds.

use std::cmp::Ordering;

use crate::api::Control;

use super::{Ctx, Res, Row};

/// Units between two looks: a quarter of a millisecond, or some milliseconds without optimisation.
const UNCHECKED: usize = 1 << 18;
/// What beginning with a row costs beside its cells and bytes.
const ROW: usize = 128;
/// Longest run that is sorted in one go.
const RUN_MAX: usize = 8192;
/// Comparisons of one element while a run is sorted, about.
const DEPTH: usize = 16;

impl Ctx<'_> {
    /// Counts work, and looks at the control block when it was much.
    #[inline]
    pub fn work(&self, units: usize) -> Res<()> {
        let done = self.worked.get().saturating_add(units);
        if done < UNCHECKED {
            self.worked.set(done);
            return Ok(());
        }
        self.worked.set(0);
        self.control.check()
    }

    /// The work of handling a row once: its labels and its cells.
    #[inline]
    pub fn work_row(&self, row: &Row) -> Res<()> {
        self.work(ROW + row.labels.heap_bytes() + row.col.len())
    }
}

/// A stable sort that looks at the control block. `cost` is what one comparison costs at most, in units.
pub(crate) fn sorted<T>(
    list: Vec<T>,
    cost: usize,
    control: &Control,
    cmp: impl Fn(&T, &T) -> Ordering,
) -> Res<Vec<T>> {
    let longest = (8 * UNCHECKED / (cost.max(1) * DEPTH)).clamp(1, RUN_MAX);
    let mut runs: Vec<Vec<T>> = Vec::new();
    for (i, item) in list.into_iter().enumerate() {
        if i % longest == 0 {
            runs.push(Vec::with_capacity(longest.min(64)));
        }
        if let Some(run) = runs.last_mut() {
            run.push(item);
        }
    }
    for run in &mut runs {
        control.check()?;
        run.sort_by(&cmp);
    }
    let every = (UNCHECKED / (cost.max(1) + 16)).max(1);
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut rest = runs.into_iter();
        while let Some(a) = rest.next() {
            merged.push(match rest.next() {
                Some(b) => merge(a, b, every, control, &cmp)?,
                None => a,
            });
        }
        runs = merged;
    }
    Ok(runs.pop().unwrap_or_default())
}

fn merge<T>(
    a: Vec<T>,
    b: Vec<T>,
    every: usize,
    control: &Control,
    cmp: &impl Fn(&T, &T) -> Ordering,
) -> Res<Vec<T>> {
    let mut out = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    loop {
        if out.len() % every == 0 {
            control.check()?;
        }
        let left = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => cmp(x, y) != Ordering::Greater,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return Ok(out),
        };
        out.extend(if left { a.next() } else { b.next() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EvalError;

    #[test]
    fn sorts_stably_whatever_a_comparison_costs() {
        let list: Vec<(u32, usize)> = (0..5000).map(|i| ((i * 7919 % 101) as u32, i)).collect();
        let mut want = list.clone();
        want.sort_by_key(|p| p.0);
        for cost in [0, 16, 1 << 12, 1 << 20] {
            let got = sorted(list.clone(), cost, &Control::new(), |a, b| a.0.cmp(&b.0)).unwrap();
            assert_eq!(got, want, "cost {cost}");
        }
        let stopped = Control::new();
        stopped.cancel();
        assert_eq!(sorted(list, 1, &stopped, |a, b| a.cmp(b)), Err(EvalError::Canceled));
    }
}
