//! Retention of the local bucket: whole blocks that are too old or too many leave, the oldest first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use koios_compact::disk::{dir_bytes, file_system_bytes};
use koios_compact::retention::{Expiry, Extent, expired};
use koios_model::BlockId;
use koios_store::CatalogueView;

use super::local::LocalBlocks;

impl LocalBlocks {
    /// Sends blocks on their way out that the retention does not keep. Answers how many.
    pub(super) async fn retain(self: &Arc<Self>, view: &CatalogueView) -> Result<usize, String> {
        let counting: Vec<(BlockId, i64)> =
            view.counting().filter(|m| !self.is_leaving(m.ulid)).map(|m| (m.ulid, m.max_time)).collect();
        let me = self.clone();
        let gone = self
            .run(move || {
                let root = &me.setup.root;
                let extent = |&(id, max_time): &(BlockId, i64)| Extent {
                    id,
                    max_time,
                    bytes: dir_bytes(&root.join(id.to_string())),
                };
                let extents: Vec<Extent> = counting.iter().map(extent).collect();
                me.stats.bytes.store(extents.iter().map(|e| e.bytes).sum(), Ordering::Relaxed);
                let limits = me.setup.retention;
                let bytes_max = match limits.percentage > 0.0 {
                    true => limits.bytes_max(file_system_bytes(root).map_err(|e| e.to_string())?),
                    false => limits.bytes_max(0),
                };
                Ok::<_, String>(expired(&extents, limits.time_ms, bytes_max, (me.setup.other_bytes)()))
            })
            .await??;
        for (id, why) in &gone {
            let counter = match why {
                Expiry::Time => &self.stats.expired_by_time,
                Expiry::Size => &self.stats.expired_by_size,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            tracing::info!(block = %id, reason = ?why, "block is past the retention");
        }
        self.leave(&gone.iter().map(|(id, _)| *id).collect::<Vec<_>>()).await?;
        Ok(gone.len())
    }
}
