//! What an operator may ask of this node's storage: deleting series, cleaning up after that, snapshots.
//!
//! Owns the order of steps. Nothing is cut while something is deleted, so that no block is made of what was there
//! before and appears after. Refuses all of it when the flag is not given, whoever asks, and deletions where blocks
//! lie in a configured object store, which may be shared.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use koios_actors::blocks::uploader::{block_id, extras};
use koios_actors::blocks::{CleanTombstones, DeleteSeries, SnapshotBlocks};
use koios_model::Matcher;
use koios_model::timestamp::rfc3339;
use serde_json::Value;

use crate::wire::Foundation;

/// Longest wait for the head or the bucket to do its part.
const PATIENCE: Duration = Duration::from_secs(120);

/// The node's storage as an operator changes it.
pub struct Admin {
    pub enabled: bool,
    pub node: String,
    pub storage: PathBuf,
    pub foundation: Arc<Foundation>,
}

impl Admin {
    /// Does what a peer, or this node's own API, asks for as JSON.
    ///
    /// # Errors
    /// A text for the operator.
    pub async fn act(&self, body: &[u8]) -> Result<(), String> {
        if !self.enabled {
            return Err(format!(
                "admin APIs disabled on node {}: start it with --web.enable-admin-api",
                self.node
            ));
        }
        let ask: Value = serde_json::from_slice(body).map_err(|e| format!("not understood: {e}"))?;
        if let Some(delete) = ask.get("delete") {
            return self.delete(delete).await;
        }
        match ask.get("clean_tombstones") {
            Some(_) => self.clean().await,
            None => Err(format!("node {} does not know how to do this: {ask}", self.node)),
        }
    }

    async fn delete(&self, ask: &Value) -> Result<(), String> {
        let sets: Vec<Vec<Matcher>> = crate::reports::matcher_sets(ask)?;
        let time = |key: &str| ask[key].as_i64().ok_or_else(|| format!("{key} is missing"));
        let (mint, maxt) = (time("mint")?, time("maxt")?);
        let f = &self.foundation;
        let Some((compactor, _)) = f.compactor.get() else {
            return Err("series cannot be deleted from a configured object store".to_owned());
        };
        let _nothing_is_cut = f.cutting.lock().await;
        let series =
            f.distributor.delete(sets.clone().into(), mint, maxt).await.map_err(|e| e.to_string())?;
        let blocks = DeleteSeries { sets, mint, maxt };
        let in_blocks = compactor.ask(blocks, PATIENCE).await.map_err(|e| e.to_string())??;
        tracing::info!(series, in_blocks, from = rfc3339(mint), until = rfc3339(maxt), "series deleted");
        Ok(())
    }

    async fn clean(&self) -> Result<(), String> {
        let Some((compactor, _)) = self.foundation.compactor.get() else { return Ok(()) };
        let replaced = compactor.ask(CleanTombstones, PATIENCE).await.map_err(|e| e.to_string())??;
        tracing::info!(blocks = replaced.len(), "deleted samples removed from blocks");
        Ok(())
    }

    /// Links all blocks of the node's own bucket and, with `head`, writes what is in no block yet as blocks, into a
    /// new directory below `snapshots`; answers its name.
    ///
    /// # Errors
    /// A text for the operator; a directory that was begun is removed.
    pub async fn snapshot(&self, head: bool) -> Result<String, String> {
        let now = self.foundation.clock.now_ms();
        let unique = self.foundation.clock.mono_ns() ^ u64::from(std::process::id()).rotate_left(40);
        let name = format!("{}-{unique:016x}", compact_time(now));
        let dir = self.storage.join("snapshots").join(&name);
        std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let done = self.fill(&dir, head).await;
        if done.is_err() {
            let _ = std::fs::remove_dir_all(&dir);
        }
        done.map(|()| name)
    }

    /// The head first: what it forgets meanwhile is in a block that is linked afterwards.
    async fn fill(&self, dir: &Path, head: bool) -> Result<(), String> {
        let f = &self.foundation;
        if head {
            let views = f.heads.all()?;
            let stats = f.heads.stats().ok_or("the head is not open yet")?;
            let (mint, maxt) = (stats.min_time, stats.max_time.saturating_add(1));
            for slot in f.heads.slots() {
                let id = block_id(&dir.display().to_string(), slot, mint, maxt);
                let (views, dir, extras) = (views.clone(), dir.to_path_buf(), extras(&f.external, slot));
                let cut = f
                    .pool
                    .run(move || koios_tsdb::cut_block(&views, slot, mint, maxt, &dir, id, extras))
                    .await;
                cut.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            }
        }
        let Some((compactor, _)) = f.compactor.get() else { return Ok(()) };
        compactor.ask(SnapshotBlocks(dir.to_path_buf()), PATIENCE).await.map_err(|e| e.to_string())??;
        Ok(())
    }
}

/// `20261123T053000Z`, as Prometheus names snapshots.
fn compact_time(ms: i64) -> String {
    let text = rfc3339(ms);
    let digits: String = text.chars().filter(char::is_ascii_digit).take(14).collect();
    let (day, time) = digits.split_at(digits.len().min(8));
    format!("{day}T{time}Z")
}

#[cfg(test)]
mod tests {
    #[test]
    fn snapshots_are_named_after_their_moment() {
        assert_eq!(super::compact_time(1_795_406_048_239), "20261123T035408Z");
    }
}
