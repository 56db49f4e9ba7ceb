//! The shelf: blocks this node has opened.
//!
//! A block of a local bucket is opened where it lies; any other is fetched into the cache directory first.
//! Opening verifies. A block that does not verify is refused with its reason each time it is asked for and noted as
//! damaged; nothing else suffers. Bounds: 4,096 open blocks; the one unused longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use koios_block::{Block, BlockError};
use koios_model::{BlockId, Labels};
use koios_objstore::{Bucket, transfer};
use parking_lot::Mutex;

use crate::error::StoreError;
use crate::served::{ServedBlock, SharedBlock};

/// Most blocks open at a time.
pub const OPEN_MAX: usize = 4096;
/// Most blocks whose damage is remembered.
const DAMAGED_MAX: usize = 10_000;

struct Slot {
    block: SharedBlock,
    used: u64,
}

/// Opened blocks of one bucket.
pub struct Shelf {
    bucket: Bucket,
    cache_dir: PathBuf,
    own_labels: Labels,
    open: Mutex<HashMap<BlockId, Slot>>,
    damaged: Mutex<BTreeMap<BlockId, String>>,
    fetching: tokio::sync::Mutex<()>,
    tick: AtomicU64,
}

impl Shelf {
    /// An empty shelf. `own_labels` are the external labels of this cluster.
    pub fn new(bucket: Bucket, cache_dir: PathBuf, own_labels: Labels) -> Self {
        Self {
            bucket,
            cache_dir,
            own_labels,
            open: Mutex::default(),
            damaged: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            tick: AtomicU64::new(0),
        }
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
        // One at a time: two queries that want the same block must not both fetch it.
        let _turn = self.fetching.lock().await;
        if let Some(b) = self.peek(id) {
            return Ok(b);
        }
        let dir = match self.bucket.local_block_dir(id) {
            Some(dir) => dir,
            None => self.fetched(id).await?,
        };
        let opened = tokio::task::spawn_blocking(move || Block::open(&dir))
            .await
            .map_err(|e| StoreError::Damaged { id, detail: e.to_string() })?;
        let block = opened.map_err(|e| self.refuse(id, e))?;
        self.damaged.lock().remove(&id);
        let slot = block.meta().slot();
        let served = Arc::new(ServedBlock::new(block.with_slot(slot), &self.own_labels));
        self.insert(id, served.clone());
        Ok(served)
    }

    /// What the block's files are to blame for is remembered; what the system refused (no such file, too many open)
    /// is not.
    fn refuse(&self, id: BlockId, e: BlockError) -> StoreError {
        if matches!(e, BlockError::Io { .. }) {
            return StoreError::Block(e);
        }
        let detail = e.to_string();
        self.mark_damaged(id, detail.clone());
        StoreError::Damaged { id, detail }
    }

    /// Notes that a block is damaged, as whoever read in it found out. It is noted until it opens again.
    pub fn mark_damaged(&self, id: BlockId, detail: String) {
        self.open.lock().remove(&id);
        let mut damaged = self.damaged.lock();
        if damaged.len() < DAMAGED_MAX || damaged.contains_key(&id) {
            damaged.insert(id, detail);
        }
    }

    /// Blocks found damaged and why.
    pub fn damaged(&self) -> BTreeMap<BlockId, String> {
        self.damaged.lock().clone()
    }

    /// Closes a block, so that it is opened again for whoever asks next: its tombstones changed. Answers that are
    /// under way go on with what they have.
    pub fn reload(&self, id: BlockId) {
        self.open.lock().remove(&id);
    }

    /// The block if it is open.
    pub fn peek(&self, id: BlockId) -> Option<SharedBlock> {
        let mut open = self.open.lock();
        let slot = open.get_mut(&id)?;
        slot.used = self.tick.fetch_add(1, Ordering::Relaxed);
        Some(slot.block.clone())
    }

    /// Closes blocks that the bucket no longer has.
    pub fn retain(&self, keep: impl Fn(BlockId) -> bool) {
        self.open.lock().retain(|id, _| keep(*id));
        self.damaged.lock().retain(|id, _| keep(*id));
    }

    /// Number of open blocks.
    pub fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Whether no block is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn insert(&self, id: BlockId, block: SharedBlock) {
        let mut open = self.open.lock();
        if open.len() >= OPEN_MAX {
            let oldest = open.iter().min_by_key(|(_, s)| s.used).map(|(id, _)| *id);
            oldest.map(|id| open.remove(&id));
        }
        open.insert(id, Slot { block, used: self.tick.fetch_add(1, Ordering::Relaxed) });
    }

    async fn fetched(&self, id: BlockId) -> Result<PathBuf, StoreError> {
        let dir = self.cache_dir.join(id.to_string());
        if dir.join(transfer::META).exists() {
            return Ok(dir);
        }
        std::fs::create_dir_all(&self.cache_dir).map_err(|e| koios_objstore::ObjstoreError::Local {
            op: "create",
            path: self.cache_dir.display().to_string(),
            detail: e.to_string(),
        })?;
        Ok(transfer::fetch_block(&self.bucket, &self.cache_dir, id).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::served::Dress;
    use koios_block::{BlockMetaExtras, BlockWriter};
    use koios_chunk::encode_xor;
    use koios_model::{Columns, MatchType, Matcher};
    use koios_objstore::BucketConfig;

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
