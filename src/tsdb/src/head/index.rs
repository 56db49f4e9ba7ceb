//! Labels to series: interned label pairs, postings, and where each series lives.
//!
//! A label pair (name and value) is interned once and named by a number; a series is a sorted list of these
//! numbers. Postings list *ordinals*, positions in `series`, which ascend with the references, so a new series
//! is always appended at the end of its lists. A series that is taken out leaves a gap, an entry without cell and
//! labels; when gaps prevail the rest is renumbered, which changes `epoch`.
//!
//! Invariants: `series` is sorted by reference; postings are strictly ascending; a pair without series is gone once
//! its postings are swept.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::BuildHasher as _;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use koios_block::{PostingsSource, ValueTest, union};
use koios_model::{Labels, Slot};

use super::pool::{Pool, Run};
use super::series::Page;

/// Number of an interned label pair.
pub(crate) type PairId = u32;

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) name: Arc<str>,
    pub(crate) value: Arc<str>,
    postings: Vec<u32>,
}

/// A series as the index knows it.
#[derive(Debug)]
pub(crate) struct IndexedSeries {
    pub(crate) id: u64,
    /// Which cell holds its samples.
    pub(crate) cell: u32,
    pub(crate) slot: Slot,
    /// Its labels, in label order: `Index::pairs_of`.
    run: Run,
}

#[derive(Default)]
pub(crate) struct Index {
    /// Values of each name in order, with their pair.
    names: BTreeMap<Arc<str>, BTreeMap<Arc<str>, PairId>>,
    /// Pairs by name and value.
    lookup: HashTable<PairId>,
    hasher: DefaultHashBuilder,
    pub(crate) pairs: Vec<Pair>,
    free: Vec<PairId>,
    pub(crate) series: Vec<IndexedSeries>,
    runs: Pool,
    pub(crate) pages: Vec<Arc<Page>>,
    /// Changes whenever ordinals do.
    pub(crate) epoch: u64,
    /// Ordinals without a series.
    gaps: usize,
}

/// The cell of an ordinal whose series was taken out.
pub(crate) const GAP: u32 = u32::MAX;

impl Index {
    /// Adds a series whose reference is greater than all others'. Answers its ordinal.
    pub(crate) fn add(&mut self, id: u64, cell: u32, slot: Slot, labels: &Labels) -> u32 {
        debug_assert!(self.series.last().is_none_or(|s| s.id < id), "BUG: references must ascend");
        let pairs: Vec<PairId> = labels.iter().map(|(n, v)| self.intern(n, v)).collect();
        self.add_interned(id, cell, slot, &pairs)
    }

    /// The same with labels that are interned already, in label order.
    pub(crate) fn add_interned(&mut self, id: u64, cell: u32, slot: Slot, pairs: &[PairId]) -> u32 {
        let ordinal = self.series.len() as u32;
        for &p in pairs {
            self.pairs[p as usize].postings.push(ordinal);
        }
        let run = self.runs.add(pairs);
        self.series.push(IndexedSeries { id, cell, slot, run });
        ordinal
    }

    /// The labels of a series, in label order.
    pub(crate) fn pairs_of(&self, series: &IndexedSeries) -> &[PairId] {
        self.runs.get(series.run)
    }

    fn find_pair(&self, name: &str, value: &str) -> Option<PairId> {
        let hash = self.hasher.hash_one((name, value));
        let is = |&p: &PairId| {
            let pair = &self.pairs[p as usize];
            *pair.name == *name && *pair.value == *value
        };
        self.lookup.find(hash, is).copied()
    }

    pub(crate) fn intern(&mut self, name: &str, value: &str) -> PairId {
        if let Some(p) = self.find_pair(name, value) {
            return p;
        }
        let name: Arc<str> = match self.names.get_key_value(name) {
            Some((known, _)) => known.clone(),
            None => name.into(),
        };
        let value: Arc<str> = value.into();
        let pair = Pair { name: name.clone(), value: value.clone(), postings: Vec::new() };
        let id = match self.free.pop() {
            Some(id) => {
                self.pairs[id as usize] = pair;
                id
            }
            None => {
                self.pairs.push(pair);
                (self.pairs.len() - 1) as PairId
            }
        };
        let (hasher, pairs) = (&self.hasher, &self.pairs);
        let hash = |&p: &PairId| hasher.hash_one((&*pairs[p as usize].name, &*pairs[p as usize].value));
        self.lookup.insert_unique(hash(&id), id, hash);
        self.names.entry(name).or_default().insert(value, id);
        id
    }

    /// Whether a series has exactly these labels.
    pub(crate) fn has_labels(&self, ordinal: u32, labels: &Labels) -> bool {
        let Some(series) = self.series.get(ordinal as usize) else { return false };
        let mut pairs = self.pairs_of(series).iter().map(|&p| &self.pairs[p as usize]);
        labels.iter().all(|(n, v)| pairs.next().is_some_and(|p| *p.name == *n && *p.value == *v))
            && pairs.next().is_none()
    }

    /// Whether the names of pairs ascend, as those of labels do.
    pub(crate) fn is_label_order(&self, pairs: &[PairId]) -> bool {
        let name = |p: PairId| &*self.pairs[p as usize].name;
        pairs.windows(2).all(|w| name(w[0]) < name(w[1]))
            && pairs.iter().all(|&p| !self.pairs[p as usize].value.is_empty())
    }

    /// Forgets pairs that no series has: those whose series were lost.
    pub(crate) fn forget_unused(&mut self) {
        for id in 0..self.pairs.len() as PairId {
            let pair = &self.pairs[id as usize];
            if pair.postings.is_empty() && self.find_pair(&pair.name, &pair.value) == Some(id) {
                self.forget_pair(id);
            }
        }
    }

    /// Labels of a series.
    pub(crate) fn labels(&self, series: &IndexedSeries) -> Labels {
        self.labels_of(self.pairs_of(series))
    }

    /// Labels of a list of pairs.
    pub(crate) fn labels_of(&self, pairs: &[PairId]) -> Labels {
        Labels::from_sorted(pairs.iter().map(|&p| {
            let pair = &self.pairs[p as usize];
            (&*pair.name, &*pair.value)
        }))
    }

    /// Position of the first series with a reference above `id`.
    pub(crate) fn after(&self, id: u64) -> usize {
        self.series.partition_point(|s| s.id <= id)
    }

    pub(crate) fn cell(&self, cell: u32) -> Option<&parking_lot::Mutex<super::series::SeriesState>> {
        let cell = cell as usize;
        self.pages.get(cell / super::series::PAGE).map(|p| p.cell(cell))
    }

    /// Takes a series out; answers its pairs, whose postings `sweep_pair` must clear. Its ordinal stays a gap.
    pub(crate) fn bury(&mut self, ordinal: u32) -> Box<[PairId]> {
        let series = &mut self.series[ordinal as usize];
        self.gaps += usize::from(series.cell != GAP);
        series.cell = GAP;
        self.runs.get(std::mem::take(&mut series.run)).into()
    }

    /// Removes gaps from a pair's postings, and the pair with its last series. Answers how many were looked at.
    pub(crate) fn sweep_pair(&mut self, id: PairId) -> usize {
        let (pair, series) = (&mut self.pairs[id as usize], &self.series);
        let had = pair.postings.len();
        pair.postings.retain(|o| series[*o as usize].cell != GAP);
        if pair.postings.capacity() > 2 * pair.postings.len() {
            pair.postings.shrink_to(pair.postings.len() + pair.postings.len() / 4);
        }
        if had > 0 && pair.postings.is_empty() {
            self.forget_pair(id);
        }
        had
    }

    /// Renumbers the series when there are more gaps than series and than `gaps_max`; their order stays. Answers
    /// whether it did. The postings must have been swept.
    pub(crate) fn compact(&mut self, gaps_max: usize) -> bool {
        if self.gaps <= gaps_max.max(self.series.len() - self.gaps) {
            return false;
        }
        let mut rank = Vec::with_capacity(self.series.len());
        let mut next = 0u32;
        for s in &self.series {
            rank.push(next);
            next += u32::from(s.cell != GAP);
        }
        self.series.retain(|s| s.cell != GAP);
        self.series.shrink_to(self.series.len() + self.series.len() / 4);
        let runs = std::mem::take(&mut self.runs);
        self.series.iter_mut().for_each(|s| s.run = self.runs.add(runs.get(s.run)));
        for pair in &mut self.pairs {
            pair.postings.iter_mut().for_each(|o| *o = rank[*o as usize]);
        }
        self.gaps = 0;
        self.epoch += 1;
        true
    }

    fn forget_pair(&mut self, id: PairId) {
        let empty: Arc<str> = "".into();
        let gone = Pair { name: empty.clone(), value: empty, postings: Vec::new() };
        let pair = std::mem::replace(&mut self.pairs[id as usize], gone);
        let hash = self.hasher.hash_one((&*pair.name, &*pair.value));
        if let Ok(entry) = self.lookup.find_entry(hash, |&p| p == id) {
            entry.remove();
        }
        if let Some(values) = self.names.get_mut(&pair.name) {
            values.remove(&pair.value);
            if values.is_empty() {
                self.names.remove(&pair.name);
            }
        }
        self.free.push(id);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|n| &**n)
    }

    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.names.get(name).into_iter().flat_map(|v| v.keys().map(|v| &**v))
    }

    /// Every pair with the number of its series.
    pub(crate) fn pair_counts(&self) -> impl Iterator<Item = (&str, &str, usize)> {
        self.pairs.iter().filter(|p| !p.postings.is_empty()).map(|p| (&*p.name, &*p.value, p.postings.len()))
    }

    fn postings(&self, pair: PairId) -> &[u32] {
        &self.pairs[pair as usize].postings
    }
}

impl PostingsSource for Index {
    type Error = Infallible;

    fn all(&self) -> Result<Vec<u32>, Infallible> {
        Ok((0..self.series.len() as u32).collect())
    }

    fn equal(&self, name: &str, value: &str) -> Result<Vec<u32>, Infallible> {
        Ok(self.find_pair(name, value).map_or(Vec::new(), |p| self.postings(p).to_vec()))
    }

    fn any_of(&self, name: &str, test: &ValueTest<'_>) -> Result<Vec<u32>, Infallible> {
        let Some(values) = self.names.get(name) else { return Ok(Vec::new()) };
        let lists =
            |ids: &mut dyn Iterator<Item = PairId>| union(ids.map(|p| self.postings(p).to_vec()).collect());
        Ok(match test {
            ValueTest::Set(set) => lists(&mut set.iter().filter_map(|v| self.find_pair(name, v))),
            ValueTest::Prefix(prefix, fits) => {
                let from = (Bound::Included(*prefix), Bound::Unbounded);
                let range = values.range::<str, _>(from).take_while(|(v, _)| v.starts_with(prefix));
                lists(&mut range.filter(|(v, _)| fits(v)).map(|(_, &p)| p))
            }
            ValueTest::Any(fits) => lists(&mut values.iter().filter(|(v, _)| fits(v)).map(|(_, &p)| p)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_block::select_postings;
    use koios_model::{MatchType, Matcher};
    use std::collections::BTreeSet;

    fn labels(i: u64) -> Labels {
        let (job, n) = (format!("j{}", i % 3), format!("n{i:03}"));
        Labels::from_pairs([("__name__", "m"), ("job", job.as_str()), ("n", n.as_str())])
    }

    fn select(index: &Index, kind: MatchType, name: &str, value: &str) -> Vec<u64> {
        let found = select_postings(index, &[Matcher::new(kind, name, value).unwrap()]);
        let Ok(found) = found;
        found.into_iter().map(|o| index.series[o as usize].id).collect()
    }

    fn remove(index: &mut Index, ordinals: std::ops::Range<u32>) {
        let pairs: BTreeSet<PairId> = ordinals.flat_map(|o| index.bury(o)).collect();
        pairs.into_iter().for_each(|p| {
            index.sweep_pair(p);
        });
    }

    #[test]
    fn finds_removes_and_reuses() {
        let mut index = Index::default();
        for i in 0..100 {
            assert_eq!(index.add(i + 1, i as u32, Slot(0), &labels(i)), i as u32);
        }
        assert!(
            index.has_labels(7, &labels(7))
                && !index.has_labels(7, &labels(8))
                && !index.has_labels(100, &labels(0))
        );
        assert_eq!(select(&index, MatchType::Equal, "job", "j1").len(), 33);
        assert_eq!(select(&index, MatchType::Regex, "n", "n00.*").len(), 10);
        assert_eq!(select(&index, MatchType::Regex, "n", "n001|n050|nope"), [2, 51]);
        assert_eq!(select(&index, MatchType::NotEqual, "job", "j1").len(), 67);

        remove(&mut index, 10..100);
        assert_eq!((index.compact(90), index.series.len()), (false, 100));
        assert_eq!(
            select(&index, MatchType::NotEqual, "job", "j1").len(),
            100 - 3,
            "gaps are the reader's to skip"
        );
        assert_eq!((index.compact(89), index.series.len(), index.epoch), (true, 10, 1));
        assert_eq!(index.values("n").count(), 10);
        assert_eq!(select(&index, MatchType::Equal, "job", "j1"), [2, 5, 8]);
        let pairs = index.pairs.len();
        assert_eq!(index.add(200, 50, Slot(1), &labels(200)), 10);
        assert_eq!(index.pairs.len(), pairs, "a freed pair is used again");
        assert_eq!(index.labels(&index.series[10]), labels(200));
        remove(&mut index, 0..11);
        assert_eq!((index.names().count(), index.lookup.len()), (0, 0));
    }
}
