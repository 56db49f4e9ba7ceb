//! What this node had and lost: with its disk, or with a part of its log.
//!
//! For those stretches it answers and counts as absent. Which of them had no second copy is noted when the loss is
//! noticed, apart from what the node holds alone since: a claim reaches back to the moment before a peer was lost, which
//! may lie before the birth of a new disk, and says nothing of the old one. Both lists are kept on disk, and may say too
//! much, never too little.

use std::path::Path;

use crate::error::ClusterError;
use crate::keys::SoleRange;
use crate::sole::SoleTracker;

/// The lists.
#[derive(Debug)]
pub struct Losses {
    holes: SoleTracker,
    alone: SoleTracker,
}

impl Losses {
    /// Opens what was kept in `dir`. A damaged file claims everything until `now_ms`. Without the second list, as versions
    /// before it left the directory, anything of the holes that `sole` names may be nowhere.
    pub fn open(dir: &Path, sole: &[SoleRange], now_ms: i64) -> Self {
        let holes = SoleTracker::open_until(&dir.join("holes.json"), now_ms);
        let path = dir.join("lost-alone.json");
        let alone = if path.exists() || holes.ranges().is_empty() {
            SoleTracker::open_until(&path, now_ms)
        } else {
            SoleTracker::resume(path, sole.to_vec())
        };
        Self { holes, alone }
    }

    /// Notes a loss, and what of it was nowhere else, on disk before it returns.
    ///
    /// # Errors
    /// When a file cannot be written; the loss is known to this process all the same.
    pub fn add(&mut self, lost: &[SoleRange], alone: &[SoleRange]) -> Result<(), ClusterError> {
        // The second list first: without it a hole would say less than was lost.
        for (tracker, ranges) in [(&mut self.alone, alone), (&mut self.holes, lost)] {
            let before = tracker.ranges().to_vec();
            ranges.iter().for_each(|r| {
                tracker.ensure(r.from, r.until);
            });
            if before != tracker.ranges() || tracker.ranges().is_empty() {
                tracker.save()?;
            }
        }
        Ok(())
    }

    /// Forgets what ended before `oldest`.
    pub fn prune(&mut self, oldest: i64) {
        self.holes.prune(oldest);
        self.alone.prune(oldest);
    }

    /// What was lost.
    pub fn holes(&self) -> &[SoleRange] {
        self.holes.ranges()
    }

    /// What of it had no copy elsewhere.
    pub fn alone(&self) -> &[SoleRange] {
        self.alone.ranges()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(from: i64, until: i64) -> SoleRange {
        SoleRange { from, until }
    }

    #[test]
    fn a_loss_survives_and_is_apart_from_later_claims() {
        let dir = tempfile::tempdir().unwrap();
        let mut losses = Losses::open(dir.path(), &[stretch(90, 200)], 1_000);
        assert!(losses.holes().is_empty() && losses.alone().is_empty());
        losses.add(&[stretch(0, 100)], &[stretch(10, 20)]).unwrap();
        let mut again = Losses::open(dir.path(), &[stretch(90, 200)], 1_000);
        assert_eq!((again.holes(), again.alone()), (&[stretch(0, 100)][..], &[stretch(10, 20)][..]));
        again.prune(50);
        assert_eq!((again.holes().len(), again.alone().len()), (1, 0));
    }

    #[test]
    fn what_is_not_known_counts_as_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut losses = Losses::open(dir.path(), &[], 7);
        losses.add(&[stretch(0, 100)], &[]).unwrap();
        assert!(Losses::open(dir.path(), &[stretch(1, 2)], 7).alone().is_empty(), "nothing is an answer");
        std::fs::remove_file(dir.path().join("lost-alone.json")).unwrap();
        let older = Losses::open(dir.path(), &[stretch(1, 2)], 7);
        assert_eq!(older.alone(), [stretch(1, 2)]);
        std::fs::write(dir.path().join("holes.json"), "{").unwrap();
        std::fs::write(dir.path().join("lost-alone.json"), "{").unwrap();
        let damaged = Losses::open(dir.path(), &[], 7);
        assert_eq!((damaged.holes(), damaged.alone()), (&[stretch(0, 7)][..], &[stretch(0, 7)][..]));
    }
}
