//! Deleting series from the local bucket's blocks, and writing blocks again without what is deleted.

use std::sync::Arc;

use koios_compact::{Plan, Reason, delete_from_block};
use koios_model::{BlockId, Matcher};

use super::local::{LocalBlocks, Waiting};
use super::merging::Merged;

impl LocalBlocks {
    /// Deletes in every block. A damaged block is passed over and named in the error at the end.
    pub(super) async fn delete(
        self: &Arc<Self>,
        sets: Vec<Vec<Matcher>>,
        mint: i64,
        maxt: i64,
    ) -> Result<u64, String> {
        let announced = Waiting::announce(self);
        let _turn = self.turn.lock().await;
        drop(announced);
        let view = self.look().await?;
        let (mut touched, mut refused) = (0, Vec::new());
        for meta in view.blocks().values().filter(|m| m.overlaps(mint, maxt)) {
            let id = meta.ulid;
            // Opened anew: the shelf's may be older than the last deletion.
            self.setup.shelf.reload(id);
            let block = match self.setup.shelf.get(id).await {
                Ok(block) => block,
                Err(e) => {
                    refused.push(format!("block {id}: {e}"));
                    continue;
                }
            };
            let inner: Vec<Vec<Matcher>> = sets.iter().filter_map(|set| block.settle(set)).collect();
            let done = self.run(move || delete_from_block(block.block(), &inner, mint, maxt)).await?;
            self.setup.shelf.reload(id);
            match done {
                Ok(n) => touched += n,
                Err(e) => refused.push(e.to_string()),
            }
        }
        if refused.is_empty() { Ok(touched) } else { Err(refused.join("; ")) }
    }

    /// Writes every block again that has deletions. Answers the blocks that were replaced.
    pub(super) async fn clean_tombstones(self: &Arc<Self>) -> Result<Vec<BlockId>, String> {
        let announced = Waiting::announce(self);
        let _turn = self.turn.lock().await;
        drop(announced);
        let view = self.look().await?;
        let mut replaced = Vec::new();
        for meta in self.metas(&view).await? {
            if meta.stats.num_tombstones == 0 || view.damaged().contains_key(&meta.ulid) {
                continue;
            }
            let plan = Plan { blocks: vec![meta.ulid], reason: Reason::Tombstones };
            match self.merge(&plan, false).await? {
                Merged::Into(_) | Merged::Nothing => replaced.push(meta.ulid),
                Merged::Interrupted | Merged::Failed => {
                    return Err(format!("block {} could not be written again; see the log", meta.ulid));
                }
            }
        }
        let view = self.look().await?;
        self.sweep(&view).await?;
        Ok(replaced)
    }
}
