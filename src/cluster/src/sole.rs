//! Which stretches of time only this node, or only its zone, may hold.
//!
//! While there is no second ready node, and around the moment when one is lost, what is scraped here may have
//! no replica. Those stretches are declared in gossip and kept on disk, so that peers know what is missing
//! when this node is. A second tracker does the same for zones: its peers are the nodes of other zones. A
//! tracker may claim too much, never too little. Pure but for load and save; at most 64 stretches (the oldest are merged).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ClusterError;
use crate::identity::replace_file;
use crate::keys::SoleRange;

/// Most stretches kept.
pub const RANGES_MAX: usize = 64;
/// How long a peer may have been gone before its loss is seen, milliseconds.
pub const DETECTION_MS: i64 = 20_000;

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Stretch {
    from: i64,
    until: i64,
}

/// Keeps the stretches.
#[derive(Debug)]
pub struct SoleTracker {
    path: PathBuf,
    ranges: Vec<SoleRange>,
    known_peers: usize,
}

impl SoleTracker {
    /// Opens what was kept in `dir`. A stretch that was open when the process ended stays open until
    /// `observe` closes it; a damaged file claims everything.
    pub fn open(dir: &Path) -> Self {
        Self::open_file(dir.join("sole.json"), i64::MAX)
    }

    /// Opens any such list of stretches that have ended. A damaged file claims everything until `until`.
    pub fn open_until(path: &Path, until: i64) -> Self {
        Self::open_file(path.to_owned(), until)
    }

    /// The same for stretches of which all replicas may lie in this node's zone. A node that `holds` data and never kept
    /// the file, being of a version before it, claims everything until `now_ms`.
    pub fn open_zone(dir: &Path, holds: bool, now_ms: i64) -> Self {
        let path = dir.join("zone-sole.json");
        let is_new = !path.exists();
        let mut tracker = Self::open_file(path, i64::MAX);
        if is_new && holds {
            tracker.claim(i64::MIN, now_ms);
        }
        tracker
    }

    fn open_file(path: PathBuf, until: i64) -> Self {
        let ranges = match std::fs::read_to_string(&path) {
            Ok(text) => match serde_json::from_str::<Vec<Stretch>>(&text) {
                Ok(list) => list.into_iter().map(|s| SoleRange { from: s.from, until: s.until }).collect(),
                Err(_) => vec![SoleRange { from: 0, until }],
            },
            Err(_) => Vec::new(),
        };
        Self::resume(path, ranges)
    }

    /// With stretches as they were kept; `path` is where `save` writes.
    pub fn resume(path: PathBuf, ranges: Vec<SoleRange>) -> Self {
        Self { path, ranges, known_peers: 0 }
    }

    /// Takes a look at the cluster: `peers` other ready nodes share the scraping, and a new owner needs
    /// `linger_ms` to take over. Tells whether the stretches changed.
    pub fn observe(&mut self, now_ms: i64, peers: usize, linger_ms: i64) -> bool {
        let before = self.ranges.clone();
        if peers == 0 {
            if !self.ranges.iter().any(|r| r.until == i64::MAX) {
                self.claim(now_ms - DETECTION_MS, i64::MAX);
            }
        } else {
            for r in self.ranges.iter_mut().filter(|r| r.until == i64::MAX) {
                r.until = now_ms + linger_ms;
            }
            if peers < self.known_peers {
                self.claim(now_ms - DETECTION_MS, now_ms + linger_ms);
            }
        }
        self.known_peers = peers;
        self.ranges != before
    }

    /// Forgets stretches that end before `min_time`: no data is that old any more.
    pub fn prune(&mut self, min_time: i64) {
        self.ranges.retain(|r| r.until >= min_time);
    }

    /// The stretches in time order.
    pub fn ranges(&self) -> &[SoleRange] {
        &self.ranges
    }

    /// Makes sure that a stretch is claimed: what was just stored has no copy elsewhere. Tells whether the stretches
    /// changed.
    pub fn ensure(&mut self, from: i64, until: i64) -> bool {
        let covered = self.ranges.iter().any(|r| r.from <= from && until <= r.until);
        if !covered {
            self.claim(from, until);
        }
        !covered
    }

    /// Writes the stretches.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self) -> Result<(), ClusterError> {
        let list: Vec<Stretch> =
            self.ranges.iter().map(|r| Stretch { from: r.from, until: r.until }).collect();
        replace_file(&self.path, &serde_json::to_string(&list).unwrap_or_default())
    }

    fn claim(&mut self, from: i64, until: i64) {
        self.ranges.push(SoleRange { from, until });
        let mut merged = SoleRange::merged(std::mem::take(&mut self.ranges));
        while merged.len() > RANGES_MAX {
            let second = merged.remove(1);
            merged[0].until = merged[0].until.max(second.until);
        }
        self.ranges = merged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_together_and_a_peer_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut t = SoleTracker::open(dir.path());
        assert!(t.observe(100_000, 0, 12_000));
        assert_eq!(t.ranges(), [SoleRange { from: 80_000, until: i64::MAX }]);
        assert!(!t.observe(150_000, 0, 12_000));
        assert!(t.observe(200_000, 2, 12_000));
        assert_eq!(t.ranges(), [SoleRange { from: 80_000, until: 212_000 }]);
        assert!(!t.observe(300_000, 2, 12_000));
        assert!(t.observe(400_000, 1, 12_000), "one of two peers lost");
        assert_eq!(t.ranges()[1], SoleRange { from: 380_000, until: 412_000 });
        t.save().unwrap();
        assert!(t.ensure(10_000, 11_000) && !t.ensure(10_500, 11_000) && !t.ensure(90_000, 95_000));
        assert_eq!(t.ranges()[0], SoleRange { from: 10_000, until: 11_000 });
        t.save().unwrap();
        let mut again = SoleTracker::open(dir.path());
        assert_eq!(again.ranges(), t.ranges());
        let upgraded = SoleTracker::open_zone(dir.path(), true, 9);
        assert_eq!(upgraded.ranges(), [SoleRange { from: i64::MIN, until: 9 }]);
        upgraded.save().unwrap();
        assert_eq!(SoleTracker::open_zone(dir.path(), true, 50).ranges(), upgraded.ranges());
        assert!(SoleTracker::open_zone(&dir.path().join("new"), false, 9).ranges().is_empty());
        again.prune(300_000);
        assert_eq!(again.ranges().len(), 1);
        std::fs::write(dir.path().join("sole.json"), "broken").unwrap();
        assert_eq!(SoleTracker::open(dir.path()).ranges()[0].until, i64::MAX);
    }
}
