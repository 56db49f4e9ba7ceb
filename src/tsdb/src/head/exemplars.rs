//! Exemplars of one shard: a ring of bounded length over all series, so that the newest ones stay.
//!
//! The rules are Prometheus' (`tsdb/exemplar.go`): within a series time, value and label hash never go back, an
//! exact repetition is passed over, label texts are short. Exemplars outlive their series in the head, so they
//! keep its labels. Invariants: a series' exemplars are in the order of the ring; a series without any is gone.

use std::collections::VecDeque;

use hashbrown::HashMap;
use koios_model::{Exemplar, Labels, Matcher, Slot};

use crate::types::{ExemplarReject, ExemplarStats, SeriesExemplars};

struct Owner {
    slot: Slot,
    labels: Labels,
    exemplars: VecDeque<Exemplar>,
}

/// Gets a piece of the ring: its series by reference, its exemplars.
pub(crate) type Visit<'v> = dyn FnMut(&[(u64, Slot, &Labels)], &[(u64, &Exemplar)]) + 'v;

/// The ring.
pub(crate) struct ExemplarRing {
    max: usize,
    /// Whose each exemplar is, oldest first.
    order: VecDeque<u64>,
    owners: HashMap<u64, Owner>,
    appended: u64,
    out_of_order: u64,
}

impl ExemplarRing {
    pub(crate) fn new(max: usize) -> Self {
        let (order, owners, appended, out_of_order) = Default::default();
        Self { max, order, owners, appended, out_of_order }
    }

    /// Whether an exemplar may be added to a series; `Ok(false)` when it is there already. `last` is the one that
    /// will come before it, when that is not in the ring yet.
    pub(crate) fn check(
        &self,
        id: u64,
        last: Option<&Exemplar>,
        e: &Exemplar,
    ) -> Result<bool, ExemplarReject> {
        if self.max == 0 {
            return Err(ExemplarReject::Disabled);
        }
        if !e.is_short() {
            return Err(ExemplarReject::LabelsTooLong);
        }
        let last = last.or_else(|| self.owners.get(&id).and_then(|o| o.exemplars.back()));
        last.map_or(Ok(true), |last| follows(last, e))
    }

    pub(crate) fn note_out_of_order(&mut self) {
        self.out_of_order += 1;
    }

    /// Adds what `check` allowed. `who` is asked for a series that has no exemplar yet.
    pub(crate) fn push(&mut self, id: u64, e: Exemplar, who: impl FnOnce() -> (Slot, Labels)) {
        while self.order.len() >= self.max.max(1) {
            self.drop_oldest();
        }
        self.order.push_back(id);
        let owner = self.owners.entry(id).or_insert_with(|| {
            let (slot, labels) = who();
            Owner { slot, labels, exemplars: VecDeque::new() }
        });
        owner.exemplars.push_back(e);
        self.appended += 1;
    }

    fn drop_oldest(&mut self) {
        let Some(id) = self.order.pop_front() else { return };
        if let Some(owner) = self.owners.get_mut(&id) {
            owner.exemplars.pop_front();
            if owner.exemplars.is_empty() {
                self.owners.remove(&id);
            }
        }
    }

    /// Exemplars within a time range of the series that satisfy all matchers of any set, by labels and slot.
    pub(crate) fn select(&self, sets: &[Vec<Matcher>], start: i64, end: i64) -> Vec<SeriesExemplars> {
        let fits = |o: &Owner| sets.iter().any(|set| set.iter().all(|m| m.matches(o.labels.value(&m.name))));
        let mut out: Vec<SeriesExemplars> = Vec::new();
        for o in self.owners.values().filter(|o| fits(o)) {
            let exemplars: Vec<Exemplar> =
                o.exemplars.iter().filter(|e| (start..=end).contains(&e.t)).cloned().collect();
            if !exemplars.is_empty() {
                out.push(SeriesExemplars { slot: o.slot, labels: o.labels.clone(), exemplars });
            }
        }
        out.sort_by(|a, b| (&a.labels, a.slot).cmp(&(&b.labels, b.slot)));
        // A series that left the head and came back has two references.
        out.dedup_by(|later, first| {
            let same = (&later.labels, later.slot) == (&first.labels, first.slot);
            if same {
                first.exemplars.append(&mut later.exemplars);
                first.exemplars.sort_by_key(|e| e.t);
            }
            same
        });
        out
    }

    /// Everything in the order of the ring, `piece` at a time: series by reference, exemplars.
    pub(crate) fn pieces(&self, piece: usize, visit: &mut Visit<'_>) {
        let mut at: HashMap<u64, usize> = HashMap::new();
        let mut from = 0;
        while from < self.order.len() {
            let to = (from + piece).min(self.order.len());
            let (mut series, mut exemplars) = (Vec::new(), Vec::with_capacity(to - from));
            for &id in self.order.range(from..to) {
                let Some(owner) = self.owners.get(&id) else { continue };
                let nth = at.entry(id).or_default();
                exemplars.extend(owner.exemplars.get(*nth).map(|e| (id, e)));
                *nth += 1;
                series.push((id, owner.slot, &owner.labels));
            }
            series.sort_unstable_by_key(|s| s.0);
            series.dedup_by_key(|s| s.0);
            visit(&series, &exemplars);
            from = to;
        }
    }

    pub(crate) fn stats(&self) -> ExemplarStats {
        let newest = self.owners.values().filter_map(|o| o.exemplars.back()).map(|e| e.t).max();
        ExemplarStats {
            stored: self.order.len() as u64,
            series: self.owners.len() as u64,
            max: self.max as u64,
            appended: self.appended,
            out_of_order: self.out_of_order,
            newest: newest.unwrap_or(i64::MIN),
        }
    }
}

/// The order is by time, then value, then hash of the labels, because histograms bring several at one time.
fn follows(last: &Exemplar, e: &Exemplar) -> Result<bool, ExemplarReject> {
    if last == e {
        return Ok(false);
    }
    let later = match e.t.cmp(&last.t) {
        std::cmp::Ordering::Equal if e.v == last.v => e.labels.hash64() >= last.labels.hash64(),
        std::cmp::Ordering::Equal => e.v.partial_cmp(&last.v) != Some(std::cmp::Ordering::Less),
        other => other.is_gt(),
    };
    if later { Ok(true) } else { Err(ExemplarReject::OutOfOrder) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e(t: i64, v: f64, id: &str) -> Exemplar {
        Exemplar { labels: Labels::from_pairs([("trace", id)]), t, v }
    }

    fn add(ring: &mut ExemplarRing, id: u64, e: Exemplar) -> Result<bool, ExemplarReject> {
        let taken = ring.check(id, None, &e)?;
        if taken {
            let job = format!("j{}", id % 10);
            ring.push(id, e, || (Slot(0), Labels::from_pairs([("job", job.as_str())])));
        }
        Ok(taken)
    }

    #[test]
    fn order_and_repetitions() {
        let mut ring = ExemplarRing::new(10);
        assert_eq!(add(&mut ring, 1, e(10, 1.0, "a")), Ok(true));
        assert_eq!(add(&mut ring, 1, e(10, 1.0, "a")), Ok(false));
        assert_eq!(add(&mut ring, 1, e(9, 1.0, "b")), Err(ExemplarReject::OutOfOrder));
        assert_eq!(add(&mut ring, 1, e(10, 0.5, "b")), Err(ExemplarReject::OutOfOrder));
        assert_eq!(add(&mut ring, 1, e(10, 2.0, "b")), Ok(true));
        assert_eq!(add(&mut ring, 2, e(1, 2.0, "b")), Ok(true), "series do not disturb each other");
        assert_eq!(add(&mut ring, 1, e(11, 0.0, &"x".repeat(124))), Err(ExemplarReject::LabelsTooLong));
        assert_eq!(add(&mut ExemplarRing::new(0), 1, e(10, 1.0, "a")), Err(ExemplarReject::Disabled));
    }

    #[test]
    fn the_ring_forgets_the_oldest_of_all() {
        let mut ring = ExemplarRing::new(5);
        for i in 0..12i64 {
            assert_eq!(add(&mut ring, (i % 4) as u64, e(i, 0.0, "x")), Ok(true));
        }
        let all = ring.select(&[vec![]], i64::MIN, i64::MAX);
        let mut times: Vec<i64> = all.iter().flat_map(|s| s.exemplars.iter().map(|e| e.t)).collect();
        times.sort_unstable();
        assert_eq!(times, [7, 8, 9, 10, 11]);
        assert_eq!((ring.stats().stored, ring.stats().series, ring.stats().newest), (5, 4, 11));
        for i in 0..5 {
            add(&mut ring, 9, e(100 + i, 0.0, "x")).unwrap();
        }
        assert_eq!(ring.stats().series, 1);
        let sets = [vec![Matcher::equal("job", "no")], vec![Matcher::equal("job", "j9")]];
        assert_eq!(ring.select(&sets, 101, 102)[0].exemplars.len(), 2);
        assert!(ring.select(&sets[..1], 0, 200).is_empty() && ring.select(&[], 0, 200).is_empty());
    }

    #[test]
    fn two_references_of_one_series_are_one_answer() {
        let mut ring = ExemplarRing::new(5);
        add(&mut ring, 11, e(5, 0.0, "x")).unwrap();
        add(&mut ring, 1, e(3, 0.0, "x")).unwrap();
        let all = ring.select(&[vec![]], 0, 9);
        assert_eq!((all.len(), all[0].exemplars.iter().map(|e| e.t).collect::<Vec<_>>()), (1, vec![3, 5]));
        let mut seen = Vec::new();
        ring.pieces(1, &mut |series, exemplars| seen.push((series[0].0, exemplars[0].1.t)));
        assert_eq!(seen, [(11, 5), (1, 3)]);
    }
}
