//! Which bytes of a file are here.
//!
//! A block in an object store is not fetched: its files lie in the cache as long as they are there, full of holes, and what a
//! question needs is fetched into them. Owns the set of byte ranges that are no holes. Refuses to fetch. Invariants: ranges are
//! disjoint and do not touch; what is not in the set is not believed, whatever the bytes say.

use std::collections::BTreeMap;
use std::ops::Range;

use parking_lot::RwLock;

/// A set of byte ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    /// End by start.
    ends: BTreeMap<u64, u64>,
}

impl Extents {
    /// Adds a range.
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Those that overlap or touch, the last first.
        while let Some((&s, &e)) = self.ends.range(..=end).next_back().filter(|(_, e)| **e >= start) {
            self.ends.remove(&s);
            (start, end) = (start.min(s), end.max(e));
        }
        self.ends.insert(start, end);
    }

    /// Removes a range.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&s, &e)) = self.ends.range(..range.end).next_back().filter(|(_, e)| **e > range.start)
        {
            self.ends.remove(&s);
            if e > range.end {
                self.ends.insert(range.end, e);
            }
            if s < range.start {
                self.ends.insert(s, range.start);
            }
        }
    }

    /// Whether all of a range is in the set.
    pub fn covers(&self, range: Range<u64>) -> bool {
        range.is_empty()
            || self.ends.range(..=range.start).next_back().is_some_and(|(_, end)| *end >= range.end)
    }

    /// The parts of a range that are not in the set, ascending.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut at = range.start;
        let mut out = Vec::new();
        let first = self.ends.range(..=at).next_back().map_or(at, |(s, _)| *s);
        for (&s, &e) in self.ends.range(first..range.end) {
            if s > at {
                out.push(at..s);
            }
            at = at.max(e);
        }
        if at < range.end {
            out.push(at..range.end);
        }
        out
    }

    /// Its ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ends.iter().map(|(s, e)| *s..*e)
    }
}

/// What is here of one file, shared between who fetches and who reads.
#[derive(Debug, Default)]
pub struct Present(RwLock<Extents>);

impl Present {
    /// This much of it.
    pub fn new(extents: Extents) -> Self {
        Self(RwLock::new(extents))
    }

    /// These bytes came and were written.
    pub fn add(&self, range: Range<u64>) {
        self.0.write().add(range);
    }

    /// These bytes are not what they should be.
    pub fn remove(&self, range: Range<u64>) {
        self.0.write().remove(range);
    }

    /// Whether all of a range is here.
    pub fn covers(&self, range: Range<u64>) -> bool {
        self.0.read().covers(range)
    }

    /// What is not here of some ranges, in their order.
    pub fn missing(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
        let extents = self.0.read();
        ranges.into_iter().flat_map(|r| extents.missing(r)).collect()
    }

    /// What is here.
    pub fn extents(&self) -> Extents {
        self.0.read().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set_of_bytes(steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..30),
                                asked in (0u64..70, 0u64..20)) {
            let (mut extents, mut bytes) = (Extents::default(), BTreeSet::new());
            for (adds, start, len) in steps {
                let range = start..start + len;
                if adds {
                    extents.add(range.clone());
                    bytes.extend(range);
                } else {
                    extents.remove(range.clone());
                    bytes.retain(|b| !range.contains(b));
                }
            }
            prop_assert_eq!(extents.iter().flatten().collect::<BTreeSet<_>>(), bytes.clone());
            let ranges: Vec<_> = extents.iter().collect();
            prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start), "{:?}", ranges);
            let asked = asked.0..asked.0 + asked.1;
            let missing: Vec<u64> = extents.missing(asked.clone()).into_iter().flatten().collect();
            let want: Vec<u64> = asked.clone().filter(|b| !bytes.contains(b)).collect();
            prop_assert_eq!(extents.covers(asked), want.is_empty());
            prop_assert_eq!(missing, want);
        }
    }
}
