//! Merging on the compute pool: sources in, a verified output in the bucket and in the view, sources on their way out.
//!
//! The order is what keeps samples: the output gets its name only when it is whole and was read back; then the view
//! has it, and from that moment no question counts its sources; only then do the sources leave. A crash anywhere
//! leaves either the sources alone or both, and lineage says which count.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use koios_block::{Block, BlockEntry, remove_block};
use koios_compact::{CompactError, Merge, Plan, merge_blocks};
use koios_model::BlockId;

use super::local::{LocalBlocks, Waiting};
use super::uploader::made_id;

/// What a merge came to.
pub(super) enum Merged {
    /// The output is in the view.
    Into(BlockId),
    /// Everything was deleted; there is no output.
    Nothing,
    /// Somebody waits for the turn, or the node stops.
    Interrupted,
    /// It cannot be done; why is in the log.
    Failed,
}

impl LocalBlocks {
    /// Carries a plan out. The turn is the caller's.
    pub(super) async fn merge(self: &Arc<Self>, plan: &Plan, may_stop: bool) -> Result<Merged, String> {
        let id = output_id(self.setup.clock.now_ms(), &plan.blocks);
        let (me, blocks) = (self.clone(), plan.blocks.clone());
        let done = self.run(move || me.merge_now(&blocks, id, may_stop)).await?;
        let output = match done {
            Ok(output) => output,
            Err(CompactError::Stopped) => return Ok(Merged::Interrupted),
            Err(e) => {
                self.stats.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(error = %e, blocks = ?plan.blocks, "merge failed; its sources stay as they are");
                let Some(culprit) = e.culprit() else { return Ok(Merged::Failed) };
                self.failed.lock().insert(culprit);
                if !matches!(e, CompactError::Source { source: koios_block::BlockError::Io { .. }, .. }) {
                    self.setup.shelf.mark_damaged(culprit, e.to_string());
                }
                return Ok(Merged::Failed);
            }
        };
        self.stats.compactions.fetch_add(1, Ordering::Relaxed);
        let Some(output) = output else {
            self.leave(&plan.blocks).await?;
            return Ok(Merged::Nothing);
        };
        let view = self.look().await?;
        if !view.blocks().contains_key(&output) {
            return Err(format!("merged block {output} does not appear in the bucket"));
        }
        self.setup.shelf.get(output).await.map_err(|e| format!("merged block cannot be served: {e}"))?;
        let stands = |id: &BlockId| !view.blocks().contains_key(id) || view.superseded(*id);
        if !plan.blocks.iter().all(stands) {
            return Err(format!("merged block {output} does not stand for all of its sources"));
        }
        self.leave_superseded(&view);
        Ok(Merged::Into(output))
    }

    fn merge_now(
        &self,
        ids: &[BlockId],
        id: BlockId,
        may_stop: bool,
    ) -> Result<Option<BlockId>, CompactError> {
        let mut sources = Vec::with_capacity(ids.len());
        for &id in ids {
            let opened = Block::open(&self.setup.root.join(id.to_string()));
            sources.push(opened.map_err(|source| CompactError::Source { id, source })?);
        }
        // Written beside the bucket's blocks under a temporary name, so giving the name is one rename.
        let stop = || may_stop && self.interrupted();
        let merge = Merge::new(&self.setup.root, id, &stop);
        let Some(meta) = merge_blocks(&sources, &merge)?.pop() else { return Ok(None) };
        if let Err(e) = verified(&self.setup.root, meta.ulid) {
            remove_block(&self.setup.root, meta.ulid)?;
            return Err(e);
        }
        tracing::info!(
            block = %meta.ulid, sources = ids.len(), level = meta.compaction.level,
            series = meta.stats.num_series, samples = meta.stats.num_samples, "blocks merged"
        );
        Ok(Some(meta.ulid))
    }

    /// Links all blocks that count into `dir`, which is made.
    pub(super) async fn snapshot(self: &Arc<Self>, dir: std::path::PathBuf) -> Result<Vec<BlockId>, String> {
        let announced = Waiting::announce(self);
        let _turn = self.turn.lock().await;
        drop(announced);
        let view = self.look().await?;
        let sound = view.counting().filter(|m| !view.damaged().contains_key(&m.ulid));
        let ids: Vec<BlockId> = sound.map(|m| m.ulid).collect();
        let (root, linked) = (self.setup.root.clone(), ids.clone());
        self.run(move || {
            std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            for id in linked {
                let entry = BlockEntry { id, path: root.join(id.to_string()) };
                koios_block::link_block(&entry, &dir).map_err(|e| e.to_string())?;
            }
            Ok::<(), String>(())
        })
        .await??;
        Ok(ids)
    }
}

fn verified(root: &Path, id: BlockId) -> Result<(), CompactError> {
    Block::open(&root.join(id.to_string()))
        .and_then(|b| b.verify_samples())
        .map(drop)
        .map_err(CompactError::Output)
}

/// The time says when it was made, the rest is made of the sources, so that two attempts do not look like two blocks.
fn output_id(now_ms: i64, sources: &[BlockId]) -> BlockId {
    let text: Vec<String> = sources.iter().map(ToString::to_string).collect();
    made_id(now_ms, "merged", &text.join("\n"))
}
