//! The shelf: blocks this node has opened.
//!
//! A block of a local bucket is opened where it lies; of any other only what questions need is fetched, into the cache
//! directory (`crate::sparse`, `crate::prepare`). What does not verify is fetched once more. A block that does not verify is
//! refused with its reason and noted as damaged; nothing else suffers. No lock is held for one block while another is
//! fetched, and a caller who goes away holds nothing. Bounds: 4,096 open blocks, the one unused longest goes first; 16
//! requests at a time.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use koios_block::{Block, BlockError};
use koios_model::{BlockId, Clock, Labels, SystemClock};
use koios_objstore::{Bucket, ObjstoreError};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::cache::Cache;
use crate::counts::StoreCounts;
use crate::error::StoreError;
use crate::prepare::{self, Prepared, Question};
use crate::served::{ServedBlock, SharedBlock};
use crate::sparse::{REQUESTS_MAX, Sparse, Way};

/// Most blocks open at a time.
pub const OPEN_MAX: usize = 4096;
/// Bytes of fetched blocks that are kept, unless told otherwise.
pub const CACHE_BYTES: u64 = 20 << 30;
/// Most blocks whose damage is remembered.
const DAMAGED_MAX: usize = 10_000;
/// Tries of one opening: a body that came short or changed may come whole the next time.
const FETCH_TRIES: usize = 2;
/// How long a block whose copy in the bucket is damaged is not fetched again.
const QUARANTINE_NS: u64 = 60_000_000_000;

struct Slot {
    block: SharedBlock,
    used: u64,
}

struct Damage {
    why: String,
    /// Not fetched again before, monotonic.
    until_ns: u64,
}

/// Opened blocks of one bucket.
pub struct Shelf {
    way: Way,
    cache: Cache,
    own_labels: Labels,
    open: Mutex<HashMap<BlockId, Slot>>,
    damaged: Mutex<BTreeMap<BlockId, Damage>>,
    /// Blocks that somebody is opening.
    turns: Mutex<HashMap<BlockId, Weak<tokio::sync::Mutex<()>>>>,
    tick: AtomicU64,
    opened: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl Shelf {
    /// An empty shelf. `own_labels` are the external labels of this cluster.
    pub fn new(bucket: Bucket, cache_dir: PathBuf, own_labels: Labels) -> Self {
        let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
        Self {
            way: Way { bucket, requests, counts: Arc::default() },
            cache: Cache::new(cache_dir, CACHE_BYTES),
            own_labels,
            open: Mutex::default(),
            damaged: Mutex::default(),
            turns: Mutex::default(),
            tick: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            clock: SystemClock::shared(),
        }
    }

    /// The same shelf with another bound on the bytes of fetched blocks.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes_max: u64) -> Self {
        self.cache.bytes_max = bytes_max;
        self
    }

    /// The same shelf with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// External labels of this cluster.
    pub fn own_labels(&self) -> &Labels {
        &self.own_labels
    }

    /// The block, opened and verified.
    ///
    /// # Errors
    /// `Damaged` with the reason, or what the bucket says.
    pub async fn get(&self, id: BlockId) -> Result<SharedBlock, StoreError> {
        if let Some(b) = self.peek(id) {
            return Ok(b);
        }
        // Two queries that want the same block must not both fetch it.
        let turn = self.turn(id);
        let _mine = turn.lock().await;
        if let Some(b) = self.peek(id) {
            return Ok(b);
        }
        let (block, sparse) = match self.way.bucket.local_block_dir(id) {
            Some(dir) => {
                let block = work(id, move || Block::open(&dir)).await?;
                (block.map_err(|e| self.refuse(id, e, 0))?, None)
            }
            None => self.cached(id).await.map(|(block, sparse)| (block, Some(sparse)))?,
        };
        self.damaged.lock().remove(&id);
        let slot = block.meta().slot();
        let served = ServedBlock::new(block.with_slot(slot), &self.own_labels).with_sparse(sparse);
        let served = Arc::new(served);
        self.insert(id, served.clone());
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(served)
    }

    /// Makes what a question reads of a block for times in the inclusive `range` be here. Of a block that lies here
    /// nothing is looked at.
    ///
    /// # Errors
    /// `Damaged` with the reason, or what the bucket says.
    pub async fn prepare(
        &self,
        block: &SharedBlock,
        question: &Question,
        range: (i64, i64),
    ) -> Result<Prepared, StoreError> {
        let (Some(sparse), id) = (block.sparse(), block.id()) else { return Ok(Prepared::default()) };
        let done = prepare::prepare(block, sparse, question, range).await;
        if matches!(done, Ok((_, true)) | Err(_)) && self.is_open(block) {
            // What came stays here over a restart; where it is not written down, it is fetched again.
            let saved = block.clone();
            let save = move || saved.sparse().map_or(Ok(()), Sparse::save);
            if let Err(e) = tokio::task::spawn_blocking(save).await.unwrap_or(Ok(())) {
                tracing::warn!(block = %id, error = %e, "what is here of a block is not written down");
            }
            self.came(id);
        }
        match done {
            Ok((prepared, _)) => Ok(prepared),
            Err(StoreError::Block(e)) => {
                let refused = self.refuse(id, e, self.clock.mono_ns() + QUARANTINE_NS);
                if matches!(refused, StoreError::Damaged { .. }) {
                    self.cache.remove(id);
                }
                Err(refused)
            }
            Err(e) => Err(e),
        }
    }

    /// Counts of what was asked of the bucket.
    pub fn counts(&self) -> &StoreCounts {
        &self.way.counts
    }

    /// Whether this is what the shelf has of the block.
    fn is_open(&self, block: &SharedBlock) -> bool {
        self.open.lock().get(&block.id()).is_some_and(|s| Arc::ptr_eq(&s.block, block))
    }

    /// A block takes more room than before.
    fn came(&self, id: BlockId) {
        let tick = self.tick.fetch_add(1, Ordering::Relaxed);
        self.cache.add(id, tick, |id| self.last_use(id), |id| self.let_go(id));
    }

    fn turn(&self, id: BlockId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(&id).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(id, Arc::downgrade(&turn));
        turn
    }

    /// What the block's files are to blame for is remembered; what the system refused (no such file, too many open)
    /// is not.
    fn refuse(&self, id: BlockId, e: BlockError, until_ns: u64) -> StoreError {
        if matches!(e, BlockError::Io { .. } | BlockError::Absent { .. }) {
            return StoreError::Block(e);
        }
        let detail = e.to_string();
        self.note(id, detail.clone(), until_ns);
        StoreError::Damaged { id, detail }
    }

    fn note(&self, id: BlockId, why: String, until_ns: u64) {
        self.open.lock().remove(&id);
        let mut damaged = self.damaged.lock();
        if damaged.len() < DAMAGED_MAX || damaged.contains_key(&id) {
            damaged.insert(id, Damage { why, until_ns });
        }
    }

    /// Notes that a block is damaged, as whoever read in it found out. It is noted until it opens again; a fetched copy
    /// is removed.
    pub fn mark_damaged(&self, id: BlockId, detail: String) {
        self.note(id, detail, 0);
        if self.way.bucket.local_root().is_none() {
            self.cache.remove(id);
        }
    }

    /// Blocks found damaged and why.
    pub fn damaged(&self) -> BTreeMap<BlockId, String> {
        self.damaged.lock().iter().map(|(id, d)| (*id, d.why.clone())).collect()
    }

    /// Closes a block, so that it is opened again for whoever asks next: its tombstones changed. Answers that are
    /// under way go on with what they have.
    pub fn reload(&self, id: BlockId) {
        self.open.lock().remove(&id);
    }

    /// Whether the block is open, which is no use of it.
    pub fn holds(&self, id: BlockId) -> bool {
        self.open.lock().contains_key(&id)
    }

    /// The block if it is open.
    pub fn peek(&self, id: BlockId) -> Option<SharedBlock> {
        let mut open = self.open.lock();
        let slot = open.get_mut(&id)?;
        slot.used = self.tick.fetch_add(1, Ordering::Relaxed);
        Some(slot.block.clone())
    }

    /// Closes blocks that the bucket no longer has, and removes what was fetched of them.
    pub fn retain(&self, keep: impl Fn(BlockId) -> bool) {
        self.open.lock().retain(|id, _| keep(*id));
        self.damaged.lock().retain(|id, _| keep(*id));
        if self.way.bucket.local_root().is_none() {
            self.cache.retain(|id| keep(id) || self.is_opening(id));
        }
    }

    /// Number of open blocks.
    pub fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Whether no block is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Blocks opened since the start, each time anew.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Bytes of fetched blocks on disk.
    pub fn cached_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    fn insert(&self, id: BlockId, block: SharedBlock) {
        let mut open = self.open.lock();
        if open.len() >= OPEN_MAX {
            let oldest = open.iter().min_by_key(|(_, s)| s.used).map(|(id, _)| *id);
            oldest.map(|id| open.remove(&id));
        }
        open.insert(id, Slot { block, used: self.tick.fetch_add(1, Ordering::Relaxed) });
    }

    fn is_opening(&self, id: BlockId) -> bool {
        self.turns.lock().get(&id).is_some_and(|turn| turn.strong_count() > 0)
    }

    /// Closes a block unless an answer reads it or somebody is opening it; whether it is closed.
    fn let_go(&self, id: BlockId) -> bool {
        let mut open = self.open.lock();
        let is_read = open.get(&id).is_some_and(|s| Arc::strong_count(&s.block) > 1);
        if is_read || self.is_opening(id) {
            return false;
        }
        open.remove(&id);
        true
    }

    fn last_use(&self, id: BlockId) -> Option<u64> {
        self.open.lock().get(&id).map(|s| s.used)
    }

    /// The block from the cache directory, or from the bucket.
    async fn cached(&self, id: BlockId) -> Result<(Block, Sparse), StoreError> {
        if let Some(d) = self.damaged.lock().get(&id).filter(|d| self.clock.mono_ns() < d.until_ns) {
            return Err(StoreError::Damaged { id, detail: d.why.clone() });
        }
        if let Some(dir) = self.cache.holds(id, self.tick.fetch_add(1, Ordering::Relaxed)) {
            let way = self.way.clone();
            let found = work(id, move || Sparse::resume(way, &dir, id).map(opened)).await?;
            match found {
                Some(Ok(found)) => return Ok(found),
                Some(Err(e)) => {
                    tracing::warn!(block = %id, error = %e, "what is here does not open and is fetched again");
                }
                None => tracing::debug!(block = %id, "what is here is not known"),
            }
            self.cache.remove(id);
        }
        let mut tries = 1;
        loop {
            match self.begun(id).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(e)) if tries == FETCH_TRIES => {
                    return Err(self.refuse(id, e, self.clock.mono_ns() + QUARANTINE_NS));
                }
                Err(e)
                    if tries == FETCH_TRIES
                        || !matches!(e, StoreError::Bucket(ObjstoreError::Store { .. })) =>
                {
                    return Err(e);
                }
                Ok(Err(e)) => tracing::warn!(block = %id, error = %e, "what was fetched does not verify"),
                Err(e) => tracing::debug!(block = %id, error = %e, "not fetched"),
            }
            tries += 1;
        }
    }

    /// Begun and opened; what does not verify is not kept.
    async fn begun(&self, id: BlockId) -> Result<Result<(Block, Sparse), BlockError>, StoreError> {
        self.cache.make_dir()?;
        let sparse = match Sparse::begin(self.way.clone(), self.cache.dir(), id).await? {
            Ok(sparse) => sparse,
            Err(e) => return Ok(Err(e)),
        };
        let found = work(id, move || opened(sparse)).await?;
        match found.is_ok() {
            true => self.came(id),
            false => self.cache.remove(id),
        }
        Ok(found)
    }
}

fn opened(sparse: Sparse) -> Result<(Block, Sparse), BlockError> {
    sparse.open().map(|block| (block, sparse))
}

/// Work where files may be waited for.
async fn work<T: Send + 'static>(
    id: BlockId,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Damaged { id, detail: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::served::Dress;
    use koios_block::{BlockMetaExtras, BlockWriter};
    use koios_chunk::encode_xor;
    use koios_model::{Columns, MatchType, Matcher};
    use koios_objstore::{BucketConfig, transfer};

    fn id(n: u64) -> BlockId {
        BlockId::from_parts(n, 0)
    }

    async fn bucket_with_block(dir: &std::path::Path, labels: &[(&str, &str)]) -> Bucket {
        let bucket = Bucket::open(&BucketConfig::directory(dir.join("bucket")), id(99)).await.unwrap();
        let mut samples = Columns::default();
        (0..10).for_each(|i| samples.push(i * 1000, i as f64));
        let mut w = BlockWriter::create(&dir.join("out"), id(1)).unwrap();
        w.add_series(&Labels::from_pairs([("__name__", "m"), ("x", "1")]), &encode_xor(&samples, 120))
            .unwrap();
        let thanos = koios_block::meta::ThanosMeta {
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            ..koios_block::meta::ThanosMeta::default()
        };
        let extras = BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() };
        w.finish(0, 10_000, extras).unwrap();
        transfer::upload_block(&bucket, &dir.join("out").join(id(1).to_string()), id(1)).await.unwrap();
        bucket
    }

    fn matcher(name: &str, value: &str) -> Matcher {
        Matcher::new(MatchType::Equal, name, value).unwrap()
    }

    #[tokio::test]
    async fn external_labels_show_except_slot_and_own() {
        let dir = tempfile::tempdir().unwrap();
        let bucket =
            bucket_with_block(dir.path(), &[("cluster", "eu1"), ("region", "r"), ("replica", "1")]).await;
        let own = Labels::from_pairs([("cluster", "eu1")]);
        let shelf = Shelf::new(bucket, dir.path().join("cache"), own);
        let block = shelf.get(id(1)).await.unwrap();
        let found = block.select(&[matcher("__name__", "m"), matcher("region", "r")], 0, 9999).unwrap();
        assert_eq!(found[0].labels.to_string(), "m{region=\"r\", x=\"1\"}");
        assert_eq!(found[0].slot.0, 1);
        assert!(block.select(&[matcher("region", "other")], 0, 9999).unwrap().is_empty());
        assert_eq!(block.label_values("region", &[], Dress::Home).unwrap(), ["r"]);
        assert!(block.label_names(&[], (0, 9999), Dress::Home).unwrap().contains(&"region".to_owned()));
        assert_eq!(block.external(Dress::Full).to_string(), "{cluster=\"eu1\", region=\"r\"}");
        assert_eq!(shelf.len(), 1);
        shelf.retain(|_| false);
        assert!(shelf.is_empty());
    }

    #[tokio::test]
    async fn damaged_and_missing_blocks_are_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = bucket_with_block(dir.path(), &[]).await;
        let index = bucket.local_block_dir(id(1)).unwrap().join("index");
        let mut bytes = std::fs::read(&index).unwrap();
        let end = bytes.len();
        bytes[end - 10] ^= 0xff;
        std::fs::write(&index, bytes).unwrap();
        let shelf = Shelf::new(bucket, dir.path().join("cache"), Labels::empty());
        assert!(matches!(shelf.get(id(1)).await, Err(StoreError::Damaged { .. })));
        assert!(matches!(shelf.get(id(2)).await, Err(StoreError::Block(_))), "missing is not damaged");
        assert!(shelf.is_empty());
        assert_eq!(shelf.damaged().keys().copied().collect::<Vec<_>>(), [id(1)]);
        let mut bytes = std::fs::read(&index).unwrap();
        bytes[end - 10] ^= 0xff;
        std::fs::write(&index, bytes).unwrap();
        shelf.get(id(1)).await.unwrap();
        assert!(shelf.damaged().is_empty(), "it opens again");
        shelf.mark_damaged(id(1), "a chunk does not decode".to_owned());
        assert!(shelf.is_empty() && shelf.damaged().len() == 1);
    }

    #[tokio::test]
    async fn a_flipped_bit_in_a_chunk_is_an_error_of_its_block_alone() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = bucket_with_block(dir.path(), &[]).await;
        let (one, two) = (bucket.local_block_dir(id(1)).unwrap(), bucket.local_block_dir(id(2)).unwrap());
        let entry = koios_block::BlockEntry { id: id(1), path: one.clone() };
        std::fs::rename(koios_block::link_block(&entry, dir.path()).unwrap(), &two).unwrap();
        let path = two.join("chunks/000001");
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 6] ^= 0x20;
        // Another file of the same name: the sound block's is linked to it.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        let shelf = Shelf::new(bucket, dir.path().join("cache"), Labels::empty());
        let damaged = shelf.get(id(2)).await.unwrap();
        let why = damaged.select(&[matcher("__name__", "m")], 0, 9999).unwrap_err().to_string();
        assert!(why.contains("chunks/000001 is damaged at byte 8: checksum"), "{why}");
        assert_eq!(shelf.get(id(1)).await.unwrap().select(&[], 0, 9999).unwrap().len(), 1);
        assert!(
            damaged.select(&[matcher("__name__", "other")], 0, 9999).unwrap().is_empty(),
            "not read, not met"
        );
    }
}
