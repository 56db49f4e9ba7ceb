//! The node's own bucket directory, and the rules of changing it: one at a time, and nothing is taken away from a
//! question that is under way.
//!
//! Owns what leaves: a block that is to go is withdrawn from the catalogue's view first, unless another one stands for
//! it there, and its files are removed only `keep` later, longer than any query lasts. A crash in
//! between forgets that and the next round finds the same blocks again. Only the default bucket of a node is handled
//! here: a configured one may be shared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use koios_block::{BlockMeta, remove_block, remove_leftovers};
use koios_compact::retention::Retention;
use koios_model::{BlockId, Clock};
use koios_store::{CatalogueView, Shelf};
use parking_lot::Mutex;

use super::catalogue::{CatalogueHandle, Withdraw};
use crate::kit::ComputePool;

/// Thanos' mark of a block that must not be compacted; such a block counts as one that cannot be.
const NO_COMPACT_MARK: &str = "no-compact-mark.json";
const PATIENCE: Duration = Duration::from_secs(60);

/// What the local bucket is worked on with.
pub struct LocalSetup {
    /// The bucket's directory.
    pub root: PathBuf,
    /// What is published of it.
    pub catalogue: CatalogueHandle,
    /// What is open of it.
    pub shelf: Arc<Shelf>,
    /// Where merging happens.
    pub pool: ComputePool,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Lengths of the levels, ascending, from `koios_compact::level_ranges`.
    pub ranges_ms: Vec<i64>,
    /// How much is kept.
    pub retention: Retention,
    /// Bytes beside the blocks that count for the size and stay: logs.
    pub other_bytes: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// How long a block that left the view keeps its files.
    pub keep: Duration,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct LocalStats {
    /// Merges done.
    pub compactions: AtomicU64,
    /// Merges that failed.
    pub failed: AtomicU64,
    /// Blocks that left because of their age.
    pub expired_by_time: AtomicU64,
    /// Blocks that left because of the size.
    pub expired_by_size: AtomicU64,
    /// Blocks whose files were removed.
    pub removed: AtomicU64,
    /// Bytes of all blocks at the last look.
    pub bytes: AtomicU64,
}

/// A block on its way out.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    /// Since when, monotonic ns.
    since: u64,
    /// Nothing stands for it: it was taken out of the view instead.
    withdrawn: bool,
}

/// The local bucket under work. One for the life of the node, whoever asks.
pub struct LocalBlocks {
    pub(super) setup: LocalSetup,
    /// Counters.
    pub stats: LocalStats,
    /// One change at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Changes that wait for the turn: a merge makes room for them.
    waiting: AtomicUsize,
    stopped: AtomicBool,
    leaving: Mutex<BTreeMap<BlockId, Leaving>>,
    /// Blocks that a merge tripped over since the start.
    pub(super) failed: Mutex<BTreeSet<BlockId>>,
    cleaned: AtomicBool,
}

impl LocalBlocks {
    /// Nothing is touched yet.
    pub fn new(setup: LocalSetup) -> Arc<Self> {
        Arc::new(Self {
            setup,
            stats: LocalStats::default(),
            turn: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            leaving: Mutex::default(),
            failed: Mutex::default(),
            cleaned: AtomicBool::new(false),
        })
    }

    /// Ends the merge that runs and begins no other.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether a merge should end now.
    pub(super) fn interrupted(&self) -> bool {
        self.stopped.load(Ordering::Acquire) || self.waiting.load(Ordering::Acquire) > 0
    }

    /// The published picture after reading the bucket again.
    pub(super) async fn look(&self) -> Result<Arc<CatalogueView>, String> {
        self.setup.catalogue.fresh().await
    }

    /// Once: removes what writers and removers left behind that died, and opens every block, so that damage shows.
    pub(super) async fn first_look(&self, view: &CatalogueView) -> Result<(), String> {
        if self.cleaned.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let root = self.setup.root.clone();
        let removed = self.run(move || remove_leftovers(&root).map_err(|e| e.to_string())).await??;
        if removed > 0 {
            tracing::info!(directories = removed, "unfinished blocks of an earlier run removed");
        }
        for id in view.blocks().keys() {
            // What is wrong is noted by the shelf.
            let _ = self.setup.shelf.get(*id).await;
        }
        Ok(())
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        self.setup.pool.run(job).await.map_err(|e| e.to_string())
    }

    /// Descriptions of the blocks that count, damaged ones too, as they are on disk now: counts of deletions change.
    pub(super) async fn metas(&self, view: &CatalogueView) -> Result<Vec<BlockMeta>, String> {
        let counting: Vec<BlockId> = view.counting().map(|m| m.ulid).collect();
        let root = self.setup.root.clone();
        self.run(move || {
            let read = |id: &BlockId| {
                let dir = root.join(id.to_string());
                let mut meta = BlockMeta::read(&dir).ok()?;
                meta.compaction.failed |= dir.join(NO_COMPACT_MARK).exists();
                Some(meta)
            };
            counting.iter().filter_map(read).collect()
        })
        .await
    }

    /// Puts blocks on their way out for which another one stands in the view.
    pub(super) fn leave_superseded(&self, view: &CatalogueView) {
        let since = self.setup.clock.mono_ns();
        let mut leaving = self.leaving.lock();
        for id in view.blocks().keys().filter(|id| view.superseded(**id)) {
            leaving.entry(*id).or_insert(Leaving { since, withdrawn: false });
        }
    }

    /// Puts blocks on their way out for which nothing stands: no question that begins after this counts them.
    pub(super) async fn leave(&self, ids: &[BlockId]) -> Result<(), String> {
        let since = self.setup.clock.mono_ns();
        let withdrawn: Vec<BlockId> = {
            let mut leaving = self.leaving.lock();
            leaving.extend(ids.iter().map(|id| (*id, Leaving { since, withdrawn: true })));
            leaving.iter().filter(|(_, l)| l.withdrawn).map(|(id, _)| *id).collect()
        };
        if withdrawn.is_empty() {
            return Ok(());
        }
        // All of them, every time: a catalogue that was started again has forgotten.
        self.setup.catalogue.room.ask(Withdraw(withdrawn), PATIENCE).await.map_err(|e| e.to_string())
    }

    /// Removes the files of blocks that left long enough ago. Answers how many.
    pub(super) async fn sweep(&self, view: &CatalogueView) -> Result<usize, String> {
        let (now, keep) = (self.setup.clock.mono_ns(), self.setup.keep.as_nanos() as u64);
        let due: Vec<BlockId> = {
            let mut leaving = self.leaving.lock();
            // What stood for a block may have turned out damaged meanwhile.
            let needed = |id: &BlockId| view.blocks().contains_key(id) && !view.superseded(*id);
            leaving.retain(|id, l| l.withdrawn || !needed(id));
            leaving.iter().filter(|(_, l)| now - l.since >= keep).map(|(id, _)| *id).collect()
        };
        for id in &due {
            let (root, id) = (self.setup.root.clone(), *id);
            self.run(move || remove_block(&root, id).map_err(|e| e.to_string())).await??;
            self.leaving.lock().remove(&id);
            self.stats.removed.fetch_add(1, Ordering::Relaxed);
            tracing::info!(block = %id, "block removed");
        }
        Ok(due.len())
    }

    /// Whether a block is on its way out.
    pub(super) fn is_leaving(&self, id: BlockId) -> bool {
        self.leaving.lock().contains_key(&id)
    }
}

/// Makes a running merge give up the turn for as long as it lives.
pub(super) struct Waiting<'a>(&'a LocalBlocks);

impl<'a> Waiting<'a> {
    pub(super) fn announce(blocks: &'a LocalBlocks) -> Self {
        blocks.waiting.fetch_add(1, Ordering::AcqRel);
        Self(blocks)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
