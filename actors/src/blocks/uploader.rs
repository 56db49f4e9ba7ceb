//! Uploader: owns what is cut from the head and not yet served from the bucket.
//!
//! Takes `CutAll` (for the drain) and looks every few seconds whether a range is complete. The order of steps
//! is what keeps samples: stop taking samples for the range, cut a block per slot, upload it with meta.json
//! last, see it in the catalogue and open it, wait until the peers on the bucket see it too, and only then
//! let the head forget. A crash anywhere before the last step leaves the data in the head; the block's id is
//! derived from node, log, slot and range, so doing it again makes the same block and not a second one.
//! Bound: 4 messages. On death: the warden starts it again and the next look resumes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture};
use koios_block::BlockMetaExtras;
use koios_block::meta::{MADE_BY, ThanosMeta};
use koios_model::{BlockId, Labels, Slot};
use koios_objstore::{Bucket, transfer};
use koios_store::Shelf;
use koios_store::served::REPLICA;
use koios_tsdb::{HeadView, cut_block, next_cut_range};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::catalogue::CatalogueHandle;
use super::moved::Moved;
use crate::ingest::{Distributor, HeadViews, RefuseBefore, Truncate};
use crate::kit::{ComputePool, Flare, Letter};

/// Most messages.
pub const BOUND: usize = 4;
/// Longest time between looks whether a range is complete; a short range is looked at twenty times.
const LOOK_MAX: Duration = Duration::from_secs(5);
const LOOK_MIN: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the head waits for peers to see a new block before it forgets all the same: they refresh every
/// 10 s, and a peer that is gone must not hold the head for ever.
const PEERS_PATIENCE: Duration = Duration::from_secs(45);

/// What an uploader works with.
pub struct UploaderSetup {
    /// Counts cuts that failed.
    pub failures: Arc<AtomicU64>,
    /// Views to cut from.
    pub heads: Arc<HeadViews>,
    /// Shards to truncate.
    pub distributor: Distributor,
    /// Where blocks go.
    pub bucket: Bucket,
    /// To see them there.
    pub catalogue: CatalogueHandle,
    /// To open them.
    pub shelf: Arc<Shelf>,
    /// Where cutting happens.
    pub pool: ComputePool,
    /// Where uploading happens.
    pub net: Handle,
    /// This node's name and its log's, part of block ids: a node that lost its disk cuts other blocks, not the same.
    pub node: String,
    /// External labels of this cluster.
    pub external: Labels,
    /// Length of a block, milliseconds.
    pub block_range_ms: i64,
    /// Where blocks are written before the upload.
    pub out_dir: PathBuf,
    /// Whether all peers on the bucket see the same blocks as this node.
    pub peers_see: Arc<dyn Fn() -> bool + Send + Sync>,
    /// What the head's answers say about where its samples went.
    pub moved: Arc<Moved>,
    /// One cut at a time, whoever asks.
    pub turn: Arc<Mutex<()>>,
}

/// What a cut did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutReport {
    /// Blocks that are in the bucket now.
    pub blocks: Vec<BlockId>,
    /// Samples in them.
    pub samples: u64,
}

/// The actor.
pub struct Uploader {
    setup: Arc<UploaderSetup>,
    _flare: Flare,
}

impl Uploader {
    /// With what it works.
    pub fn new(setup: Arc<UploaderSetup>, flare: Flare) -> Self {
        Self { setup, _flare: flare }
    }
}

impl Actor for Uploader {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        look(self, ctx);
    }
}

fn look(me: &Uploader, ctx: &mut Context<Uploader>) {
    let every = Duration::from_millis((me.setup.block_range_ms / 20).max(0) as u64);
    ctx.run_later(every.clamp(LOOK_MIN, LOOK_MAX), |me, ctx| {
        let setup = me.setup.clone();
        let work = me.setup.net.clone().spawn(async move { setup.cut_complete_ranges().await });
        let done = work.into_actor(me).map(|joined, me, ctx| {
            match joined {
                Ok(Ok(report)) if !report.blocks.is_empty() => {
                    tracing::info!(
                        blocks = report.blocks.len(),
                        samples = report.samples,
                        "head cut and uploaded"
                    );
                }
                Ok(Ok(_)) => {}
                Ok(Err(why)) => {
                    me.setup.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(why, "head not cut; it keeps its samples and is tried again");
                }
                Err(e) => tracing::error!(error = %e, "cut failed inside"),
            }
            look(me, ctx);
        });
        ctx.spawn(done);
    });
}

/// Cuts and uploads everything in the head. Writes must have been stopped.
pub struct CutAll;

impl Message for CutAll {
    type Result = Result<CutReport, String>;
}

impl Handler<Letter<CutAll>> for Uploader {
    type Result = ResponseFuture<Result<CutReport, String>>;

    fn handle(&mut self, m: Letter<CutAll>, _: &mut Context<Self>) -> Self::Result {
        let setup = self.setup.clone();
        let work = self.setup.net.spawn(async move { setup.cut_everything().await });
        Box::pin(async move {
            let _held = m.permit;
            work.await.map_err(|e| e.to_string())?
        })
    }
}

impl UploaderSetup {
    async fn cut_complete_ranges(&self) -> Result<CutReport, String> {
        let _turn = self.turn.lock().await;
        let mut report = CutReport::default();
        while let Some((mint, maxt)) = self.next_range() {
            self.cut(mint, maxt, &mut report).await?;
        }
        Ok(report)
    }

    fn next_range(&self) -> Option<(i64, i64)> {
        let stats = self.heads.stats()?;
        next_cut_range(stats.min_time, stats.max_time, self.block_range_ms, stats.out_of_order_window_ms)
    }

    async fn cut_everything(&self) -> Result<CutReport, String> {
        let _turn = self.turn.lock().await;
        let mut report = CutReport::default();
        while let Some(stats) = self.heads.stats().filter(|s| s.min_time <= s.max_time) {
            let start = stats.min_time.div_euclid(self.block_range_ms) * self.block_range_ms;
            let end = start.saturating_add(self.block_range_ms).min(stats.max_time.saturating_add(1));
            self.cut(start, end, &mut report).await?;
        }
        Ok(report)
    }

    async fn cut(&self, mint: i64, maxt: i64, report: &mut CutReport) -> Result<(), String> {
        for shard in self.distributor.shards() {
            shard
                .ask(RefuseBefore(maxt), PATIENCE)
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| e.to_string())?;
        }
        let views = self.heads.all()?;
        let mut made = Vec::new();
        for slot in self.heads.slots() {
            if let Some((id, samples)) = self.cut_slot(&views, slot, mint, maxt).await? {
                made.push(id);
                report.samples += samples;
            }
        }
        self.see(&made).await?;
        self.wait_for_peers().await;
        self.moved.note(&made)?;
        for shard in self.distributor.shards() {
            let truncated = shard.ask(Truncate(maxt), PATIENCE).await.map_err(|e| e.to_string())?;
            let (_, checkpoint) = truncated.map_err(|e| e.to_string())?;
            let written = self.pool.run(move || checkpoint.run()).await.map_err(|e| e.to_string())?;
            if let Err(e) = written {
                tracing::warn!(error = %e, "log not shortened; it is after the next cut");
            }
        }
        report.blocks.extend(made);
        Ok(())
    }

    async fn cut_slot(
        &self,
        views: &[Arc<HeadView>],
        slot: Slot,
        mint: i64,
        maxt: i64,
    ) -> Result<Option<(BlockId, u64)>, String> {
        let id = block_id(&self.node, slot, mint, maxt);
        // Cut before a crash; it may have been compacted since.
        if self.catalogue.view.load().holds(id) {
            return Ok(Some((id, 0)));
        }
        let dir = self.out_dir.join(id.to_string());
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&self.out_dir).map_err(|e| format!("{}: {e}", self.out_dir.display()))?;
        let (views, out_dir, extras) = (views.to_vec(), self.out_dir.clone(), extras(&self.external, slot));
        let cut = self.pool.run(move || cut_block(&views, slot, mint, maxt, &out_dir, id, extras)).await;
        let Some(meta) = cut.map_err(|e| e.to_string())?.map_err(|e| e.to_string())? else { return Ok(None) };
        transfer::upload_block(&self.bucket, &dir, id).await.map_err(|e| e.to_string())?;
        let _ = std::fs::remove_dir_all(&dir);
        Ok(Some((id, meta.stats.num_samples)))
    }

    /// Waits until this node itself would serve the blocks.
    async fn see(&self, ids: &[BlockId]) -> Result<(), String> {
        let mut view = self.catalogue.view.load_full();
        if !ids.iter().all(|id| view.holds(*id)) {
            view = self.catalogue.fresh().await?;
        }
        for id in ids {
            if view.blocks().contains_key(id) {
                self.shelf.get(*id).await.map_err(|e| format!("uploaded block cannot be served: {e}"))?;
            } else if !view.holds(*id) {
                return Err(format!("uploaded block {id} does not appear in the bucket"));
            }
        }
        Ok(())
    }

    async fn wait_for_peers(&self) {
        let waited = tokio::time::timeout(PEERS_PATIENCE, async {
            while !(self.peers_see)() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        if waited.await.is_err() {
            tracing::warn!("some peers do not see the new blocks yet; the head forgets them all the same");
        }
    }
}

/// What meta.json says beyond the samples: the cluster's external labels and the slot.
pub fn extras(external: &Labels, slot: Slot) -> BlockMetaExtras {
    let mut labels: std::collections::BTreeMap<String, String> =
        external.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    labels.insert(REPLICA.to_owned(), slot.to_string());
    let thanos = ThanosMeta { labels, source: MADE_BY.to_owned(), ..ThanosMeta::default() };
    BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() }
}

/// The same cut always gets the same id.
pub fn block_id(node: &str, slot: Slot, mint: i64, maxt: i64) -> BlockId {
    let text = format!("{node}\n{slot}\n{mint}\n{maxt}");
    made_id(maxt, "cut", &text)
}

/// An id of a time and of what a block is made from: the same for the same.
pub(super) fn made_id(ms: i64, what: &str, text: &str) -> BlockId {
    let hash = |name| u128::from(Labels::from_pairs([(name, text)]).hash64());
    BlockId::from_parts(ms.max(0) as u64, hash(what) << 64 | hash("again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_all_that_makes_a_cut() {
        let id = block_id("a", Slot(0), 0, 7_200_000);
        assert_eq!(id, block_id("a", Slot(0), 0, 7_200_000));
        assert_eq!(id.timestamp_ms(), 7_200_000);
        for other in [
            block_id("b", Slot(0), 0, 7_200_000),
            block_id("a", Slot(1), 0, 7_200_000),
            block_id("a", Slot(0), 1, 7_200_000),
            block_id("a", Slot(0), 0, 7_200_001),
        ] {
            assert_ne!(id, other);
        }
    }
}
