//! The writer's own view of its series: what an append must know without asking readers' structures.
//!
//! `Hot` holds, per cell, the last sample (to refuse old ones and to encode the log), the label hash, and where
//! the index has the series. References lead to cells through pages of 256, labels through a hash table of
//! cells. Invariant: a cell in use is in both, its `id` is the reference.

use std::sync::Arc;

use hashbrown::{HashMap, HashTable};
use koios_model::{Labels, Slot};

use super::sweep::PairSet;
use crate::head::HeadView;
use crate::head::index::{Index, PairId};
use crate::head::series::{PAGE, Page};
use crate::types::Value;

/// What the writer keeps per series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hot {
    /// Reference, 0 when the cell is free.
    pub(super) id: u64,
    pub(super) last_t: i64,
    pub(super) last_v: f64,
    hash: u64,
    /// Segment in which `last_v`, the last float, was written; the base of the next value is 0 in any other. The
    /// top bit says that the last sample was a histogram, which `SeriesTable::histograms` has.
    wal: u32,
    pub(super) ordinal: u32,
}

const FREE: Hot = Hot { id: 0, last_t: i64::MIN, last_v: 0.0, hash: 0, wal: 0, ordinal: u32::MAX };
/// The last sample was a histogram.
const HISTOGRAM: u32 = 1 << 31;

impl Hot {
    /// What the next float's value is coded against.
    #[inline]
    pub(super) fn base(&self, segment: u64) -> f64 {
        if self.wal & !HISTOGRAM == segment as u32 & !HISTOGRAM { self.last_v } else { 0.0 }
    }

    /// Notes a float that goes into `segment`.
    #[inline]
    pub(super) fn note_float(&mut self, t: i64, v: f64, segment: u64) {
        (self.last_t, self.last_v, self.wal) = (t, v, segment as u32 & !HISTOGRAM);
    }

    pub(super) fn note_histogram(&mut self, t: i64) {
        self.last_t = t;
        self.wal |= HISTOGRAM;
    }

    #[inline]
    pub(super) fn is_histogram(&self) -> bool {
        self.wal & HISTOGRAM != 0
    }
}

/// So many gaps among the ordinals do not matter.
const GAPS_MAX: usize = 4096;
/// No cell.
const NONE: u32 = u32::MAX;
/// References of one page of the map.
const REFS: u64 = 256;

#[derive(Default)]
pub(super) struct SeriesTable {
    pub(super) hot: Vec<Hot>,
    free: Vec<u32>,
    by_labels: HashTable<u32>,
    /// Cells by reference; the first page holds references from `first_page` x 256 on.
    by_ref: Vec<Option<Box<[u32; REFS as usize]>>>,
    first_page: u64,
    /// The last sample of each cell whose last sample is a histogram.
    pub(super) histograms: HashMap<u32, Value>,
    pub(super) pages: Vec<Arc<Page>>,
}

pub(super) fn series_hash(slot: Slot, labels: &Labels) -> u64 {
    labels.hash64() ^ u64::from(slot.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl SeriesTable {
    pub(super) fn len(&self) -> usize {
        self.by_labels.len()
    }

    /// The cell of a reference.
    #[inline]
    pub(super) fn cell_of(&self, id: u64) -> Option<u32> {
        let page = (id / REFS).checked_sub(self.first_page)?;
        let page = self.by_ref.get(usize::try_from(page).ok()?)?.as_ref()?;
        Some(page[(id % REFS) as usize]).filter(|c| *c != NONE)
    }

    /// Points a reference at a cell.
    pub(super) fn set_ref(&mut self, id: u64, cell: u32) {
        if self.by_ref.is_empty() {
            self.first_page = id / REFS;
        }
        while id / REFS < self.first_page {
            // Only while a log is replayed whose records are not in order.
            self.by_ref.insert(0, None);
            self.first_page -= 1;
        }
        let page = (id / REFS - self.first_page) as usize;
        if page >= self.by_ref.len() {
            self.by_ref.resize_with(page + 1, || None);
        }
        self.by_ref[page].get_or_insert_with(|| Box::new([NONE; REFS as usize]))[(id % REFS) as usize] = cell;
    }

    fn clear_ref(&mut self, id: u64) {
        let Some(page) = (id / REFS).checked_sub(self.first_page) else { return };
        if let Some(slot) = self.by_ref.get_mut(page as usize)
            && let Some(cells) = slot
        {
            cells[(id % REFS) as usize] = NONE;
            if cells.iter().all(|c| *c == NONE) {
                *slot = None;
            }
        }
    }

    /// Forgets the empty pages of old references.
    fn trim_refs(&mut self) {
        let empty = self.by_ref.iter().take_while(|p| p.is_none()).count();
        self.by_ref.drain(..empty);
        self.first_page += empty as u64;
    }

    /// The cell with this hash for which `same` holds.
    pub(super) fn find(&self, hash: u64, same: impl Fn(u32, &Hot) -> bool) -> Option<u32> {
        let is = |&c: &u32| {
            let hot = &self.hot[c as usize];
            hot.hash == hash && same(c, hot)
        };
        self.by_labels.find(hash, is).copied()
    }

    /// Takes a free cell for a new series. Its samples' home exists after `grow_pages`.
    pub(super) fn claim(&mut self, id: u64, hash: u64) -> u32 {
        let hot = Hot { id, hash, ..FREE };
        let cell = match self.free.pop() {
            Some(cell) => {
                self.hot[cell as usize] = hot;
                cell
            }
            None => {
                self.hot.push(hot);
                (self.hot.len() - 1) as u32
            }
        };
        self.set_ref(id, cell);
        let hots = &self.hot;
        self.by_labels.insert_unique(hash, cell, |&c| hots[c as usize].hash);
        cell
    }

    /// Gives a cell back: its series was removed, or never came to be.
    pub(super) fn release(&mut self, cell: u32) {
        let hot = std::mem::replace(&mut self.hot[cell as usize], FREE);
        if let Ok(entry) = self.by_labels.find_entry(hot.hash, |&c| c == cell) {
            entry.remove();
        }
        if hot.is_histogram() {
            self.histograms.remove(&cell);
        }
        self.clear_ref(hot.id);
        self.free.push(cell);
    }

    /// Makes sure that all claimed cells have a page, here and in the index.
    pub(super) fn grow_pages(&mut self, index: &mut Index) {
        while self.pages.len() * PAGE < self.hot.len() {
            let page = Arc::new(Page::new());
            self.pages.push(page.clone());
            index.pages.push(page);
        }
    }

    /// Adopts a label set into the index and its cell.
    pub(super) fn register(&mut self, index: &mut Index, cell: u32, slot: Slot, labels: &Labels) {
        self.grow_pages(index);
        let hot = &mut self.hot[cell as usize];
        self.pages[cell as usize / PAGE].cell(cell as usize).lock().reset(hot.id);
        hot.ordinal = index.add(hot.id, cell, slot, labels);
    }

    /// The same with labels that are interned already.
    pub(super) fn register_pairs(&mut self, index: &mut Index, cell: u32, slot: Slot, pairs: &[PairId]) {
        self.grow_pages(index);
        let hot = &mut self.hot[cell as usize];
        self.pages[cell as usize / PAGE].cell(cell as usize).lock().reset(hot.id);
        hot.ordinal = index.add_interned(hot.id, cell, slot, pairs);
    }

    /// Makes room for so many series.
    pub(super) fn reserve(&mut self, index: &mut Index, series: usize) {
        let hots = &self.hot;
        self.by_labels.reserve(series, |&c| hots[c as usize].hash);
        self.hot.reserve(series);
        index.series.reserve(series);
    }

    /// Removes series, unless they have samples again; what is left of them in postings goes with `pairs`, which
    /// gets the pairs concerned.
    pub(super) fn remove(&mut self, view: &HeadView, dead: &[u32], pairs: &mut PairSet) {
        let mut index = view.index.write();
        for &cell in dead {
            let empty = {
                let mut series = self.pages[cell as usize / PAGE].cell(cell as usize).lock();
                let empty = series.chunk_count() == 0;
                if empty {
                    series.reset(0);
                }
                empty
            };
            if empty {
                let buried = index.bury(self.hot[cell as usize].ordinal);
                buried.iter().for_each(|&p| pairs.add(p));
                self.release(cell);
            }
        }
        drop(index);
        self.trim_refs();
    }

    /// Closes the gaps among the ordinals once there are many.
    pub(super) fn renumber(&mut self, view: &HeadView) {
        let mut index = view.index.write();
        if index.compact(GAPS_MAX) {
            for (ordinal, series) in index.series.iter().enumerate() {
                self.hot[series.cell as usize].ordinal = ordinal as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_come_and_go() {
        let mut t = SeriesTable::default();
        let cells: Vec<u32> = (1000..2000).map(|id| t.claim(id, id * 7)).collect();
        assert_eq!(
            (t.cell_of(1000), t.cell_of(1999), t.cell_of(999), t.cell_of(2000)),
            (Some(0), Some(999), None, None)
        );
        assert_eq!(t.find(1500 * 7, |_, h| h.id == 1500), Some(500));
        for &c in &cells[..900] {
            t.release(c);
        }
        t.trim_refs();
        assert!(t.first_page > 5 && t.by_ref.len() < 3);
        assert_eq!((t.cell_of(1899), t.cell_of(1900), t.len()), (None, Some(900), 100));
        let again = t.claim(5000, 1);
        assert!(again < 900, "a freed cell is used again");
        t.set_ref(3, again);
        assert_eq!((t.cell_of(3), t.cell_of(1900)), (Some(again), Some(900)));
    }
}
