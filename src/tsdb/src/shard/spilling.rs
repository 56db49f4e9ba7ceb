//! Moving closed chunks out of memory, many at a time.
//!
//! Done after a batch can be read and between two holds of a series' lock, so that no reader waits for the disk. The
//! shard is the only one that changes chunks, so what is copied is what is replaced.

use std::sync::Arc;

use super::Shard;
use crate::head::series::{PAGE, Page};
use crate::head::spill::Spill;

/// Series whose chunks are written at once.
pub(super) const PIECE: usize = 1024;

impl Shard {
    /// Spills the closed chunks of these cells that are in memory.
    pub(super) fn spill_cells(&mut self, cells: &mut Vec<u32>) {
        spill(&mut self.spill, &self.table.pages, cells);
    }
}

/// As `Shard::spill_cells`. Empties `cells`.
fn spill(to: &mut Spill, pages: &[Arc<Page>], cells: &mut Vec<u32>) {
    if !to.is_on() {
        return cells.clear();
    }
    cells.sort_unstable();
    cells.dedup();
    let cell = |c: &u32| pages[*c as usize / PAGE].cell(*c as usize);
    let mut bytes = Vec::new();
    for piece in cells.chunks(PIECE) {
        bytes.clear();
        piece.iter().for_each(|c| cell(c).lock().put_unspilled(&mut bytes));
        if bytes.is_empty() {
            continue;
        }
        let Some(mut there) = to.write(&bytes) else { break };
        let end = there.at as usize + bytes.len();
        piece.iter().for_each(|c| cell(c).lock().take_spilled(&mut there));
        assert!(there.at as usize == end, "BUG: chunks changed while they were spilled");
    }
    cells.clear();
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use koios_model::{Columns, Labels, ManualClock, Matcher, Slot};

    use crate::{AppendBatch, Entry, SeriesKey, Shard, ShardOptions};

    const SERIES: i64 = 50;

    fn open(dir: &Path, spill: bool) -> Shard {
        let opts = ShardOptions { spill, ..ShardOptions::new(dir, 0) };
        Shard::open(opts, ManualClock::at(1 << 40)).unwrap().0
    }

    fn filled(dir: &Path, spill: bool) -> Shard {
        let mut shard = open(dir, spill);
        for scrape in 0..700i64 {
            let entries = (0..SERIES).map(|n| Entry {
                series: SeriesKey::New(Slot(0), Labels::from_pairs([("n", n.to_string().as_str())])),
                t: scrape * 1000,
                v: ((scrape * 7919 * (n + 1) % 1013) as f64 / 10.0).into(),
            });
            assert!(shard.append(&AppendBatch { entries: entries.collect() }).unwrap().rejected.is_empty());
        }
        shard
    }

    fn samples(shard: &Shard) -> Vec<(String, Vec<i64>, Vec<u64>)> {
        let mut out = Vec::new();
        for s in shard.view().select(&[], i64::MIN, i64::MAX).unwrap() {
            let mut columns = Columns::default();
            s.chunks.iter().for_each(|c| c.read(i64::MIN, i64::MAX, &mut columns).unwrap());
            let values = columns.values.iter().map(|v| v.to_bits()).collect();
            out.push((s.labels.to_string(), columns.times.to_vec(), values));
        }
        out.sort();
        out
    }

    #[test]
    fn what_is_spilled_reads_the_same_and_is_not_in_memory() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (mut on, mut off) = (filled(dirs[0].path(), true), filled(dirs[1].path(), false));
        let same = |on: &Shard, off: &Shard| {
            assert_eq!(samples(on), samples(off));
            assert_eq!(samples(on).len(), SERIES as usize);
            let bytes = (on.view().sample_bytes(), off.view().sample_bytes());
            assert!(bytes.0 * 2 < bytes.1, "{bytes:?}");
        };
        same(&on, &off);
        let some = [vec![Matcher::equal("n", "7")]];
        for shard in [&mut on, &mut off] {
            shard.delete(&some, 130_000, 140_000).unwrap();
        }
        same(&on, &off);
        let reopened = |checkpoint: bool, mut on: Shard, mut off: Shard| {
            if checkpoint {
                on.begin_checkpoint().unwrap().run().unwrap();
                off.begin_checkpoint().unwrap().run().unwrap();
            }
            drop((on, off));
            (open(dirs[0].path(), true), open(dirs[1].path(), false))
        };
        for checkpoint in [false, true] {
            (on, off) = reopened(checkpoint, on, off);
            same(&on, &off);
        }
        for shard in [&mut on, &mut off] {
            shard.truncate(333_000).unwrap();
        }
        same(&on, &off);
    }

    #[test]
    fn what_the_disk_refuses_stays_in_memory() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(dir.path().join("spill.tmp")).unwrap();
        let (refused, off) = (filled(dir.path(), true), filled(other.path(), false));
        assert_eq!(samples(&refused), samples(&off));
        assert_eq!(refused.view().sample_bytes(), off.view().sample_bytes());
    }
}
