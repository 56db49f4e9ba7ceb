//! Short lists of numbers, many to an allocation: the label pairs of every series.
//!
//! A list never moves and never straddles a page; what is not needed any more stays until the pool is made anew.
//! Invariant: a `Run` is read from the pool that made it.

use super::index::PairId;

/// Numbers of one page; a longer list has a page of its own.
const PAGE: usize = 1 << 16;

/// Where a list is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    /// Page in the upper half, place in the lower one.
    at: u32,
    len: u32,
}

/// The lists.
#[derive(Default)]
pub(crate) struct Pool {
    pages: Vec<Vec<PairId>>,
}

impl Pool {
    pub(crate) fn add(&mut self, list: &[PairId]) -> Run {
        let fits = |page: &Vec<PairId>| page.len() + list.len() <= PAGE;
        if !self.pages.last().is_some_and(fits) {
            self.pages.push(Vec::with_capacity(list.len().max(PAGE)));
        }
        let number = self.pages.len() - 1;
        let page = &mut self.pages[number];
        let at = (number << 16 | page.len()) as u32;
        page.extend_from_slice(list);
        Run { at, len: list.len() as u32 }
    }

    pub(crate) fn get(&self, run: Run) -> &[PairId] {
        if run.len == 0 {
            return &[];
        }
        &self.pages[run.at as usize >> 16][run.at as usize & (PAGE - 1)..][..run.len as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back_across_pages() {
        let mut pool = Pool::default();
        let lists: Vec<Vec<PairId>> =
            (0..30_000u32).map(|i| (0..i % 12).map(|k| i * 31 + k).collect()).collect();
        let long: Vec<PairId> = (0..PAGE as u32 + 5).collect();
        let runs: Vec<Run> = lists.iter().map(|l| pool.add(l)).collect();
        let far = pool.add(&long);
        let after = pool.add(&[7]);
        assert!(runs.iter().zip(&lists).all(|(r, l)| pool.get(*r) == l));
        assert_eq!((pool.get(far), pool.get(after)), (&long[..], &[7][..]));
        assert!(pool.pages.len() > 3);
        assert!(pool.get(Run::default()).is_empty());
    }
}
