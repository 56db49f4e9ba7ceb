//! Which blocks the head's samples went into lately.
//!
//! A head forgets what a served block holds. A coordinator that was paused, or cut off from the bucket, may not know that
//! block yet; so every answer of the head names the blocks of the last hour, and who misses one of them reads it by
//! its id. Noted on disk before the head forgets, because the same coordinator may ask after a restart. Bound: 64 blocks.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use koios_cluster::identity::replace_file;
use koios_model::{BlockId, Clock};
use parking_lot::Mutex;

/// How long a block is named, milliseconds: longer than a node sleeps that is still believed.
const NAMED_MS: i64 = 3_600_000;
const BLOCKS_MAX: usize = 64;

/// The list. One for the life of the node.
pub struct Moved {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    list: Mutex<VecDeque<(i64, BlockId)>>,
}

impl Moved {
    /// With what was kept at `path`; a list that cannot be read is empty.
    pub fn open(path: PathBuf, clock: Arc<dyn Clock>) -> Self {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let line = |l: &str| {
            let (ms, id) = l.split_once(' ')?;
            Some((ms.parse().ok()?, id.parse().ok()?))
        };
        let list = text.lines().filter_map(line).take(BLOCKS_MAX).collect();
        Self { path, clock, list: Mutex::new(list) }
    }

    /// Notes blocks that the head is about to forget into.
    ///
    /// # Errors
    /// When they cannot be noted; the head must not forget then.
    pub fn note(&self, ids: &[BlockId]) -> Result<(), String> {
        let mut list = self.list.lock();
        let now = self.clock.now_ms();
        list.retain(|(ms, id)| now - ms < NAMED_MS && !ids.contains(id));
        list.extend(ids.iter().map(|id| (now, *id)));
        while list.len() > BLOCKS_MAX {
            list.pop_front();
        }
        let text: String = list.iter().map(|(ms, id)| format!("{ms} {id}\n")).collect();
        replace_file(&self.path, &text).map_err(|e| e.to_string())
    }

    /// Blocks of the last hour.
    pub fn recent(&self) -> Vec<BlockId> {
        let now = self.clock.now_ms();
        self.list.lock().iter().filter(|(ms, _)| now - ms < NAMED_MS).map(|(_, id)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use koios_model::ManualClock;

    use super::*;

    #[test]
    fn named_for_an_hour_over_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let (path, clock) = (dir.path().join("moved"), ManualClock::at(5_000_000));
        let id = |n| BlockId::from_parts(n, 0);
        let moved = Moved::open(path.clone(), clock.clone());
        moved.note(&[id(1), id(2)]).unwrap();
        clock.advance_ms(NAMED_MS as u64 - 1);
        moved.note(&[id(3)]).unwrap();
        let again = Moved::open(path.clone(), clock.clone());
        assert_eq!((again.recent(), moved.recent()), (vec![id(1), id(2), id(3)], vec![id(1), id(2), id(3)]));
        clock.advance_ms(1);
        assert_eq!(again.recent(), [id(3)]);
        again.note(&(10..200).map(id).collect::<Vec<_>>()).unwrap();
        assert_eq!(again.recent().len(), BLOCKS_MAX);
        std::fs::write(&path, "rubbish\n1 x\n").unwrap();
        assert!(Moved::open(path.clone(), clock.clone()).recent().is_empty());
        assert!(Moved::open(path.join("under/a/file"), clock).note(&[id(1)]).is_err());
    }
}
