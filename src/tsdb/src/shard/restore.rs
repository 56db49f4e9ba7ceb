//! Series of a checkpoint on their way into an empty shard.
//!
//! The quick way: pairs are looked up once each, labels are not put together, and the hash stands in the file. It
//! is compared with a computed one now and then, so a file of a version that hashes otherwise is only slower.

use koios_model::Slot;

use super::Shard;
use super::table::series_hash;
use crate::head::index::PairId;
use crate::wal::owners::{OwnerRecord, get_owner, get_pairs};
use crate::wal::record::BadRecord;

/// How far numbers of pairs may run ahead of those met: records between were damaged.
const GAP_MAX: u64 = 1 << 20;
/// One hash in so many is checked.
const CHECK_EVERY: u64 = 4096;

/// What the records of a checkpoint read so far say.
pub(super) struct Restoring {
    pairs: Vec<Option<PairId>>,
    owner: OwnerRecord,
    seen: u64,
    hashes_differ: bool,
}

impl Default for Restoring {
    fn default() -> Self {
        let owner = OwnerRecord { id: 0, slot: Slot(0), hash: 0, pairs: Vec::new() };
        Self { pairs: Vec::new(), owner, seen: 0, hashes_differ: false }
    }
}

impl Restoring {
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
        let pairs: Option<Box<[PairId]>> = numbers.collect();
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
                let hash = series_hash(slot, &index.labels(&pairs));
                self.hashes_differ |= hash != self.owner.hash;
                self.owner.hash = hash;
            }
        }
        self.seen += 1;
        shard.next_id = shard.next_id.max(id.saturating_add(1));
        let cell = shard.table.claim(id, self.owner.hash);
        shard.table.register_pairs(&mut shard.view.index.write(), cell, slot, pairs);
        Ok(())
    }
}
