//! Counts of what queries met: parts that holders did not serve, holders that stayed silent, blocks that the coordinator
//! read itself, and answers that were not whole. Only ever grow; read for `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::scope::{Missing, MissingReason};

/// The counters of one node as a coordinator.
#[derive(Debug, Default)]
pub struct QueryStats {
    missing: [AtomicU64; MissingReason::COUNT],
    /// Questions that a holder did not answer.
    pub unanswered: AtomicU64,
    /// Questions of a later round that the coordinator put to itself: the last resort, or blocks just cut.
    pub self_reads: AtomicU64,
    /// Questions that were asked in parts, because the holder said so.
    pub split: AtomicU64,
    /// Parts of queries that were evaluated where their blocks are.
    pub pushed: AtomicU64,
    /// Parts that could have been, and were not in the end.
    pub push_declined: AtomicU64,
    /// Answers that were given although something may be missing.
    pub partial: AtomicU64,
    /// Answers that were refused because something may be missing.
    pub refused: AtomicU64,
}

impl QueryStats {
    /// Counts what a holder did not serve.
    pub fn missed(&self, missing: &[Missing]) {
        for m in missing {
            self.missing[m.reason.index()].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Parts not served, by the name of the reason.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        MissingReason::all().map(|r| (r.as_str(), self.missing[r.index()].load(Ordering::Relaxed)))
    }
}

/// What was asked of this node, by itself and by others.
#[derive(Debug, Default)]
pub struct ServedStats {
    /// Fragments that were begun.
    pub fragments: AtomicU64,
    /// Fragments whose asker went away, or that failed, before the end.
    pub stopped: AtomicU64,
    /// Fragments that were asked for in parts instead.
    pub split: AtomicU64,
    /// Requests that there was no room for.
    pub full: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Part;

    #[test]
    fn reasons_are_counted_apart() {
        let stats = QueryStats::default();
        let m = |reason| Missing { part: Part::Own, reason, detail: String::new() };
        stats.missed(&[m(MissingReason::Gone), m(MissingReason::Limit), m(MissingReason::Gone)]);
        let counted: Vec<_> = stats.by_reason().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [("gone", 2), ("limit", 1)]);
        assert_eq!(stats.by_reason().count(), MissingReason::COUNT);
    }
}
