//! Which blocks are too old or too many: pure, from ranges and sizes.
//!
//! Prometheus' rules: by time a block goes when it ends at least the retention before the newest block's end; by size
//! the blocks that end first go until the rest fits together with what cannot be deleted (logs). A share of the file
//! system is a size too and counts instead of one that is given. Whole blocks only; 0 means no limit.

use koios_model::BlockId;

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Retention {
    /// Milliseconds before the newest block's end; 0 keeps everything.
    pub time_ms: i64,
    /// Bytes of blocks and logs together; 0 for no limit.
    pub bytes: u64,
    /// Share of the file system in percent, instead of `bytes` when above 0.
    pub percentage: f64,
}

impl Retention {
    /// The limit in bytes on a file system of this size; 0 for none.
    pub fn bytes_max(&self, file_system: u64) -> u64 {
        if self.percentage > 0.0 {
            // A tiny share is a limit all the same.
            ((file_system as f64 * self.percentage / 100.0) as u64).max(1)
        } else {
            self.bytes
        }
    }
}

/// A block as retention sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which.
    pub id: BlockId,
    /// Its end, exclusive, milliseconds.
    pub max_time: i64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Why a block goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It is too old.
    Time,
    /// There is too much.
    Size,
}

/// The blocks to delete, oldest first. `bytes_max` is 0 for no limit by size; `other_bytes` count but stay.
pub fn expired(blocks: &[Extent], time_ms: i64, bytes_max: u64, other_bytes: u64) -> Vec<(BlockId, Expiry)> {
    let Some(newest) = blocks.iter().map(|b| b.max_time).max() else { return Vec::new() };
    let mut ordered: Vec<&Extent> = blocks.iter().collect();
    ordered.sort_by_key(|b| (b.max_time, b.id));
    let too_old = |b: &Extent| time_ms > 0 && newest.saturating_sub(b.max_time) >= time_ms;
    let kept = ordered.iter().filter(|b| !too_old(b)).map(|b| b.bytes);
    let mut total = kept.fold(other_bytes, u64::saturating_add);
    let mut gone = Vec::new();
    for block in ordered {
        if too_old(block) {
            gone.push((block.id, Expiry::Time));
        } else if bytes_max > 0 && total > bytes_max {
            total -= block.bytes;
            gone.push((block.id, Expiry::Size));
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(n: u64, max_time: i64, bytes: u64) -> Extent {
        Extent { id: BlockId::from_parts(n, 0), max_time, bytes }
    }

    fn gone(blocks: &[Extent], time_ms: i64, bytes_max: u64, other: u64) -> Vec<(u64, Expiry)> {
        expired(blocks, time_ms, bytes_max, other).into_iter().map(|(id, e)| (id.timestamp_ms(), e)).collect()
    }

    #[test]
    fn oldest_go_first_by_time_then_by_size() {
        use Expiry::{Size, Time};
        let blocks = [extent(3, 300, 30), extent(1, 100, 10), extent(2, 200, 20), extent(4, 400, 40)];
        assert_eq!(gone(&blocks, 0, 0, 1 << 40), []);
        assert_eq!(gone(&blocks, 301, 0, 0), []);
        assert_eq!(gone(&blocks, 300, 0, 0), [(1, Time)], "exactly the retention is too old");
        assert_eq!(gone(&blocks, 200, 0, 0), [(1, Time), (2, Time)]);
        assert_eq!(gone(&blocks, 0, 100, 0), []);
        assert_eq!(gone(&blocks, 0, 99, 0), [(1, Size)]);
        assert_eq!(gone(&blocks, 0, 100, 31), [(1, Size), (2, Size), (3, Size)], "logs count and stay");
        assert_eq!(gone(&blocks, 0, 1, 0).len(), 4);
        assert_eq!(
            gone(&blocks, 300, 69, 0),
            [(1, Time), (2, Size), (3, Size)],
            "what is too old no longer counts"
        );
        assert_eq!(gone(&blocks, i64::MAX, 0, 0), []);
        assert_eq!(gone(&[], 1, 1, 1), []);
    }

    #[test]
    fn a_share_of_the_disk_counts_instead_of_a_size() {
        let r = Retention { bytes: 5, percentage: 80.0, ..Retention::default() };
        assert_eq!(r.bytes_max(1000), 800);
        assert_eq!(Retention { percentage: 0.0, ..r }.bytes_max(1000), 5);
        assert_eq!(Retention { percentage: 1e-9, ..r }.bytes_max(1000), 1, "not unlimited by rounding");
    }
}
