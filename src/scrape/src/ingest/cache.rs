//! Rows and slots, generations, and the prediction of the next line.
//!
//! A row remembers where it stood in the previous body. As long as the body keeps its order, the next row is
//! known before it is read, and neither hashing nor lexing is needed (one comparison). On a surprise the row
//! is found by hash and the prediction goes on from there.

use hashbrown::HashTable;
use koios_model::Labels;
use xxhash_rust::xxh3::xxh3_64;

/// Slot of a series in one scrape cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheIndex(pub u32);

/// Where a row leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Dropped by metric relabelling.
    Dropped,
    /// To a series.
    Slot(CacheIndex),
}

/// Rows beyond this many times the last successful body, plus some, are swept even when scrapes fail.
const GARBAGE_FACTOR: usize = 2;
const GARBAGE_FLOOR: usize = 1000;

#[derive(Debug)]
struct Row {
    raw: Box<[u8]>,
    hash: u64,
    place: Place,
    /// Position in the previous order.
    position: u32,
    /// Generation in which it was last seen.
    seen: u32,
}

#[derive(Debug)]
struct Slot {
    labels: Labels,
    reference: Option<u64>,
    /// Generation in which it was last visited.
    seen: u32,
    /// Its end is announced by a stale marker.
    tracked: bool,
    /// In `live`.
    live: bool,
    /// Never swept; report series.
    pinned: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cache {
    rows: Vec<Option<Row>>,
    free_rows: Vec<u32>,
    by_raw: HashTable<u32>,
    slots: Vec<Option<Slot>>,
    free_slots: Vec<u32>,
    by_labels: HashTable<u32>,
    /// Rows of the last successful body, and of the one being read.
    order: Vec<u32>,
    next: Vec<u32>,
    cursor: usize,
    generation: u32,
    /// Slots that exist for storage: visited by the last successful scrape and tracked.
    live: Vec<u32>,
    visited: Vec<u32>,
    sweep: bool,
    /// Slots may be left that no row leads to.
    orphans: bool,
}

impl Cache {
    pub(super) fn len(&self) -> usize {
        self.by_raw.len()
    }

    /// Starts a body. What the previous one left behind is swept now, not before, because its output may
    /// still have been in use.
    pub(super) fn begin(&mut self) {
        if std::mem::take(&mut self.sweep) {
            self.sweep();
        }
        self.generation = self.generation.wrapping_add(1);
        self.cursor = 0;
        self.next.clear();
        self.visited.clear();
    }

    /// The raw bytes of the row that probably comes next.
    #[inline]
    pub(super) fn expected(&self) -> &[u8] {
        match self.order.get(self.cursor).and_then(|i| self.rows[*i as usize].as_ref()) {
            Some(row) => &row.raw,
            None => &[],
        }
    }

    /// The expected row came.
    #[inline]
    pub(super) fn guessed(&mut self) -> Option<Place> {
        let index = *self.order.get(self.cursor)?;
        self.cursor += 1;
        self.touch(index)
    }

    /// Finds a row by its bytes.
    pub(super) fn find(&mut self, raw: &[u8]) -> Option<Place> {
        let hash = xxh3_64(raw);
        let rows = &self.rows;
        let same = |i: &u32| rows[*i as usize].as_ref().is_some_and(|r| r.hash == hash && *r.raw == *raw);
        let index = *self.by_raw.find(hash, same)?;
        let position = self.rows[index as usize].as_ref().map_or(0, |r| r.position as usize);
        if self.order.get(position) == Some(&index) {
            self.cursor = position + 1;
        }
        self.touch(index)
    }

    #[inline]
    fn touch(&mut self, index: u32) -> Option<Place> {
        let row = self.rows[index as usize].as_mut()?;
        if row.seen != self.generation {
            row.seen = self.generation;
            self.next.push(index);
        }
        Some(row.place)
    }

    /// Adds a row; `None` labels mean it is dropped.
    pub(super) fn insert(&mut self, raw: &[u8], labels: Option<Labels>) -> Place {
        let place = labels.map_or(Place::Dropped, |l| Place::Slot(self.slot_of(l)));
        let hash = xxh3_64(raw);
        let row = Row { raw: raw.into(), hash, place, position: 0, seen: self.generation };
        let index = put(&mut self.rows, &mut self.free_rows, row);
        let rows = &self.rows;
        self.by_raw.insert_unique(hash, index, |i| rows[*i as usize].as_ref().map_or(0, |r| r.hash));
        self.next.push(index);
        place
    }

    /// The slot of a label set, made when new.
    pub(super) fn slot_of(&mut self, labels: Labels) -> CacheIndex {
        let hash = labels.hash64();
        let slots = &self.slots;
        let same = |i: &u32| slots[*i as usize].as_ref().is_some_and(|s| s.labels == labels);
        if let Some(index) = self.by_labels.find(hash, same) {
            return CacheIndex(*index);
        }
        let slot = Slot {
            labels,
            reference: None,
            seen: self.generation.wrapping_sub(1),
            tracked: false,
            live: false,
            pinned: false,
        };
        let index = put(&mut self.slots, &mut self.free_slots, slot);
        let slots = &self.slots;
        self.by_labels
            .insert_unique(hash, index, |i| slots[*i as usize].as_ref().map_or(0, |s| s.labels.hash64()));
        CacheIndex(index)
    }

    /// Keeps a slot for as long as the cache lives.
    pub(super) fn pin(&mut self, index: CacheIndex) {
        if let Some(slot) = &mut self.slots[index.0 as usize] {
            slot.pinned = true;
        }
    }

    /// Marks a slot as present in this body; true the first time.
    #[inline]
    pub(super) fn visit(&mut self, index: CacheIndex, tracked: bool) -> bool {
        let Some(slot) = &mut self.slots[index.0 as usize] else {
            unreachable!("BUG: a row leads to a slot that is gone")
        };
        let first = slot.seen != self.generation;
        slot.seen = self.generation;
        slot.tracked = tracked;
        if first {
            self.visited.push(index.0);
        }
        first
    }

    /// The body turned out to be bad: nothing of it counts as present.
    pub(super) fn undo(&mut self) {
        let before = self.generation.wrapping_sub(1);
        for index in self.visited.drain(..) {
            if let Some(slot) = &mut self.slots[index as usize] {
                slot.seen = before;
            }
        }
    }

    /// Ends a body, naming each slot whose series ended.
    pub(super) fn end(&mut self, success: bool, mut stale: impl FnMut(CacheIndex)) {
        for index in std::mem::take(&mut self.live) {
            let Some(slot) = &mut self.slots[index as usize] else { continue };
            slot.live = false;
            if slot.seen != self.generation {
                stale(CacheIndex(index));
            }
        }
        for index in self.visited.drain(..) {
            let Some(slot) = &mut self.slots[index as usize] else { continue };
            if slot.tracked {
                slot.live = true;
                self.live.push(index);
            }
        }
        if success {
            // Usually the order is the same, and the positions are right already.
            let same = self.order == self.next;
            std::mem::swap(&mut self.order, &mut self.next);
            for (position, index) in self.order.iter().enumerate().skip_while(|_| same) {
                if let Some(row) = &mut self.rows[*index as usize] {
                    row.position = position as u32;
                }
            }
            self.sweep = self.order.len() < self.len() || std::mem::take(&mut self.orphans);
        } else {
            // The rows of the last good body are kept, so that a target that comes back is cheap.
            self.sweep = self.len() > self.order.len() * GARBAGE_FACTOR + GARBAGE_FLOOR;
        }
    }

    /// Drops rows that the last successful body did not have, and slots that nothing leads to.
    fn sweep(&mut self) {
        let mut keep_rows = vec![false; self.rows.len()];
        for index in &self.order {
            keep_rows[*index as usize] = true;
        }
        let mut keep_slots: Vec<bool> =
            self.slots.iter().map(|s| s.as_ref().is_some_and(|s| s.pinned || s.live)).collect();
        for (index, keep) in keep_rows.iter().enumerate() {
            match &self.rows[index] {
                Some(Row { place: Place::Slot(slot), .. }) if *keep => keep_slots[slot.0 as usize] = true,
                Some(_) if !keep => {
                    self.rows[index] = None;
                    self.free_rows.push(index as u32);
                }
                _ => {}
            }
        }
        self.by_raw.retain(|i| keep_rows[*i as usize]);
        for (index, keep) in keep_slots.iter().enumerate() {
            if !keep && self.slots[index].is_some() {
                self.slots[index] = None;
                self.free_slots.push(index as u32);
            }
        }
        self.by_labels.retain(|i| keep_slots[*i as usize]);
    }

    /// Forgets how rows lead to labels; slots stay.
    pub(super) fn forget_rows(&mut self) {
        self.orphans = true;
        self.rows.clear();
        self.free_rows.clear();
        self.by_raw.clear();
        self.order.clear();
        self.next.clear();
    }

    pub(super) fn labels_of(&self, index: CacheIndex) -> &Labels {
        match self.slots.get(index.0 as usize) {
            Some(Some(slot)) => &slot.labels,
            _ => panic!("BUG: cache index {} is not in use", index.0),
        }
    }

    pub(super) fn reference(&self, index: CacheIndex) -> Option<u64> {
        self.slots.get(index.0 as usize)?.as_ref()?.reference
    }

    pub(super) fn set_reference(&mut self, index: CacheIndex, reference: Option<u64>) {
        if let Some(Some(slot)) = self.slots.get_mut(index.0 as usize) {
            slot.reference = reference;
        }
    }

    pub(super) fn forget_references(&mut self) {
        for slot in self.slots.iter_mut().flatten() {
            slot.reference = None;
        }
    }
}

fn put<T>(all: &mut Vec<Option<T>>, free: &mut Vec<u32>, value: T) -> u32 {
    if let Some(index) = free.pop() {
        all[index as usize] = Some(value);
        return index;
    }
    all.push(Some(value));
    (all.len() - 1) as u32
}
