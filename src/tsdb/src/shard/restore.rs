//! Series of a checkpoint on their way into an empty shard.
//!
//! The quick way: pairs are looked up once each, labels are not put together, and the hash stands in the file. It
//! is compared with a computed one now and then, so a file of a version that hashes otherwise is only slower.

use bytes::Bytes;
use koios_model::Slot;

use super::Shard;
use super::table::series_hash;
use crate::head::closed::Windows;
use crate::head::index::PairId;
use crate::wal::owners::{OwnerRecord, get_owner, get_pairs};
use crate::wal::record::BadRecord;

/// How far numbers of pairs may run ahead of those met: records between were damaged.
const GAP_MAX: u64 = 1 << 20;
/// One hash in so many is checked.
const CHECK_EVERY: u64 = 4096;

/// What the records of a checkpoint read so far say.
pub(super) struct Restoring {
    /// The file, for chunks to stay in.
    pub(super) file: Windows,
    pairs: Vec<Option<PairId>>,
    owner: OwnerRecord,
    seen: u64,
    hashes_differ: bool,
}

impl Restoring {
    /// Of a mapped checkpoint.
    pub(super) fn new(file: Bytes) -> Self {
        let owner = OwnerRecord { id: 0, slot: Slot(0), hash: 0, pairs: Vec::new() };
        Self { file: Windows::new(file), pairs: Vec::new(), owner, seen: 0, hashes_differ: false }
    }

    pub(super) fn pairs(&mut self, shard: &Shard, body: &[u8]) -> Result<(), BadRecord> {
        let (first, pairs) = get_pairs(body)?;
        let known = self.pairs.len() as u64;
        if first > known + GAP_MAX {
            return Err(BadRecord("label pairs are numbered too far ahead"));
        }
        let first = first as usize;
        if self.pairs.get(first).is_some_and(Option::is_some) {
            return Ok(());
        }
        self.pairs.resize(self.pairs.len().max(first + pairs.len()), None);
        let mut index = shard.view.index.write();
        for (place, (name, value)) in self.pairs[first..].iter_mut().zip(pairs) {
            *place = Some(index.intern(name, value));
        }
        Ok(())
    }

    pub(super) fn series(&mut self, shard: &mut Shard, body: &[u8]) -> Result<(), BadRecord> {
        get_owner(body, &mut self.owner)?;
        let OwnerRecord { id, slot, .. } = self.owner;
        let numbers = self.owner.pairs.iter().map(|n| self.pairs.get(*n as usize).copied().flatten());
        let pairs: Option<Vec<PairId>> = numbers.collect();
        let pairs = pairs.ok_or(BadRecord("series with a label pair that is lost"))?;
        {
            let index = shard.view.index.read();
            if id == 0 || index.series.last().is_some_and(|last| last.id >= id) {
                return Err(BadRecord("series of a checkpoint do not ascend"));
            }
            if !index.is_label_order(&pairs) {
                return Err(BadRecord("labels of a series are not sorted"));
            }
            if self.hashes_differ || self.seen.is_multiple_of(CHECK_EVERY) {
                let hash = series_hash(slot, &index.labels_of(&pairs));
                self.hashes_differ |= hash != self.owner.hash;
                self.owner.hash = hash;
            }
        }
        self.seen += 1;
        shard.next_id = shard.next_id.max(id.saturating_add(1));
        let cell = shard.table.claim(id, self.owner.hash);
        shard.table.register_pairs(&mut shard.view.index.write(), cell, slot, &pairs);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use koios_chunk::encode_xor;
    use koios_model::{Columns, Labels, ManualClock};

    use super::*;
    use crate::options::ShardOptions;
    use crate::types::{AppendBatch, Entry, SeriesKey, SeriesRef};
    use crate::wal::owners::{put_owner, put_pairs};
    use crate::wal::record::{CHUNKS, ChunksRecord, HeadRecord, put_chunks, put_end, put_head, put_series};
    use crate::wal::segment::{Kind, checkpoint_path, header, put_frame};

    fn labels() -> Labels {
        Labels::from_pairs([("a", "x"), ("b", "y")])
    }

    /// A checkpoint of one series with one sample, its owner written by `owner`.
    fn write(dir: &Path, owner: impl FnOnce(&mut Vec<u8>)) {
        let mut out = header(Kind::Checkpoint, 3).to_vec();
        let head = HeadRecord { next_id: 9, min_valid: i64::MIN, series: u64::MAX };
        put_frame(&mut out, |out| put_head(out, head));
        owner(&mut out);
        let mut sample = Columns::default();
        sample.push(1000, 1.5);
        let record = ChunksRecord { id: 7, next_at: 7_200_000, chunks: encode_xor(&sample, 120) };
        put_frame(&mut out, |out| put_chunks(out, CHUNKS, &record));
        put_frame(&mut out, |out| put_end(out, 1));
        std::fs::create_dir_all(dir.join("wal")).unwrap();
        std::fs::write(checkpoint_path(&dir.join("wal"), 3), out).unwrap();
    }

    fn opens(dir: &Path) {
        let (mut shard, report) = Shard::open(ShardOptions::new(dir, 0), ManualClock::at(2_000_000)).unwrap();
        assert!(!report.lost_data() && report.checkpoint_series == 1, "{report:?}");
        // Found by labels, so the hash is right.
        let entry = Entry { series: SeriesKey::New(Slot(1), labels()), t: 2000, v: 2.0.into() };
        let done = shard.append(&AppendBatch { entries: vec![entry] }).unwrap();
        assert_eq!(done.refs, [SeriesRef(7)]);
        let all = shard.view().select(&[], i64::MIN, i64::MAX).unwrap();
        assert_eq!((all[0].labels.clone(), all[0].read(0, 9999).unwrap().values), (labels(), vec![1.5, 2.0]));
    }

    fn pairs(out: &mut Vec<u8>, hash: u64) {
        put_frame(out, |out| put_pairs(out, 0, [("b", "y"), ("a", "x")].into_iter()));
        put_frame(out, |out| put_owner(out, 7, Slot(1), hash, [1, 0].into_iter()));
    }

    #[test]
    fn new_and_old_series_and_other_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old, other) = (dir.path().join("new"), dir.path().join("old"), dir.path().join("other"));
        write(&new, |out| pairs(out, series_hash(Slot(1), &labels())));
        opens(&new);
        write(&old, |out| {
            put_frame(out, |out| put_series(out, [(7, Slot(1), &labels())].into_iter()));
        });
        opens(&old);
        write(&other, |out| pairs(out, 12345));
        opens(&other);
    }

    #[test]
    fn series_that_make_no_sense_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        type Put<'a> = &'a dyn Fn(&mut Vec<u8>);
        let owners: [Put<'_>; 4] = [
            &|out| put_owner(out, 7, Slot(1), 0, [0, 1].into_iter()),
            &|out| put_owner(out, 7, Slot(1), 0, [1, 5].into_iter()),
            &|out| put_owner(out, 0, Slot(1), 0, [1, 0].into_iter()),
            &|out| put_pairs(out, GAP_MAX * 2, [("c", "z")].into_iter()),
        ];
        for (i, owner) in owners.iter().enumerate() {
            let dir = dir.path().join(i.to_string());
            write(&dir, |out| {
                put_frame(out, |out| put_pairs(out, 0, [("b", "y"), ("a", "x")].into_iter()));
                put_frame(out, |out| owner(out));
            });
            let (shard, report) = Shard::open(ShardOptions::new(&dir, 0), ManualClock::at(0)).unwrap();
            assert!(report.lost_data() && report.series == 0, "{i}: {report:?}");
            assert!(shard.view().label_names(&[]).is_empty(), "{i}: labels of nothing");
        }
    }
}
