//! Moving in: `--storage.path` may be the data directory of a Prometheus, which is taken over once.
//!
//! Happens before anything is served: blocks get our meta file and go into the bucket, the log goes into the head
//! shards, late samples into blocks. Nothing of Prometheus' is changed; a marker file says that it was done. A
//! crash in the middle is harmless: on the next start a head that this began is thrown away and made again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use koios_block::meta::{MADE_BY, ThanosMeta};
use koios_block::{BlockEntry, BlockMetaExtras, sync_dir};
use koios_model::{Labels, Slot};
use koios_objstore::transfer;
use koios_store::served::REPLICA;
use koios_tsdb::Shard;
use koios_tsdb::foreign::{Log, Moving, adopt_block, blocks_to_adopt, is_prometheus_dir};

use crate::settings::Settings;
use crate::wire::{Foundation, shard_options};

/// Says how far moving in came.
const MARKER: &str = "moved-in";
const BEGUN: &str = "begun\n";
const DONE: &str = "done\n";

/// Takes the directory over if it is a Prometheus' and was not taken over before.
///
/// # Errors
/// What could not be read or written; starting again tries again.
pub async fn run(settings: &Settings, foundation: &Arc<Foundation>) -> Result<(), String> {
    let root = settings.args.storage_path.clone();
    let state = std::fs::read_to_string(root.join(MARKER)).unwrap_or_default();
    if state == DONE || !is_prometheus_dir(&root) {
        return Ok(());
    }
    tracing::info!(path = %root.display(), "data of a Prometheus found: moving in");
    let head = root.join("head");
    if state == BEGUN && head.exists() {
        std::fs::remove_dir_all(&head).map_err(|e| format!("{}: {e}", head.display()))?;
    }
    if head.exists() {
        return Err(format!(
            "step moving in: {} holds both a Prometheus' data and samples of this node; \
             fix: move wal, wbl, chunks_head and the block directories elsewhere, or start on an empty --storage.path",
            root.display()
        ));
    }
    mark(&root, BEGUN)?;
    let staging = root.join("cut");
    std::fs::create_dir_all(&staging).map_err(|e| format!("{}: {e}", staging.display()))?;
    let thanos = own_section(&foundation.external);
    let (sound, damaged) = blocks_to_adopt(&root).map_err(|e| e.to_string())?;
    for (block, why) in damaged {
        tracing::error!(block = %block.id, error = %why, "block cannot be read and stays where it is");
    }
    let adopted = sound.len();
    for block in &sound {
        take(foundation, block, &staging, &thanos).await?;
    }
    let late = move_log(settings, foundation, &staging, &thanos).await?;
    for block in &late {
        put(foundation, block).await?;
    }
    mark(&root, DONE)?;
    tracing::info!(blocks = adopted, late_blocks = late.len(), "moved in; the old data is as it was");
    Ok(())
}

fn own_section(external: &Labels) -> ThanosMeta {
    let mut labels: BTreeMap<String, String> =
        external.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    labels.insert(REPLICA.to_owned(), Slot(0).to_string());
    ThanosMeta { labels, source: MADE_BY.to_owned(), ..ThanosMeta::default() }
}

/// Puts a foreign block into the bucket, by link where the bucket is a directory.
async fn take(f: &Foundation, block: &BlockEntry, staging: &Path, thanos: &ThanosMeta) -> Result<(), String> {
    if let Some(root) = f.bucket.local_root() {
        return adopt_block(block, root, thanos).map(|_| ()).map_err(|e| e.to_string());
    }
    let path = adopt_block(block, staging, thanos).map_err(|e| e.to_string())?;
    put(f, &BlockEntry { id: block.id, path }).await
}

/// Uploads a block of ours and removes it here.
async fn put(f: &Foundation, block: &BlockEntry) -> Result<(), String> {
    let (bucket, block) = (f.bucket.clone(), block.clone());
    let uploaded = f.net.spawn(async move {
        transfer::upload_block(&bucket, &block.path, block.id).await.map_err(|e| e.to_string())?;
        std::fs::remove_dir_all(&block.path).map_err(|e| format!("{}: {e}", block.path.display()))
    });
    uploaded.await.map_err(|e| e.to_string())?
}

/// The log into the shards; answers the blocks of late samples.
async fn move_log(
    settings: &Settings,
    f: &Arc<Foundation>,
    staging: &Path,
    thanos: &ThanosMeta,
) -> Result<Vec<BlockEntry>, String> {
    let (root, out_dir): (PathBuf, PathBuf) = (settings.args.storage_path.clone(), staging.to_path_buf());
    let options: Vec<_> = (0..f.heads.shards()).map(|n| shard_options(settings, n)).collect();
    let extras = BlockMetaExtras {
        thanos: Some(thanos.clone()),
        hints: vec!["from-out-of-order".to_owned()],
        ..BlockMetaExtras::default()
    };
    let (clock, distributor) = (f.clock.clone(), f.distributor.clone());
    let range_ms = settings.config.koios.storage.block_range_ms;
    let work = move || -> Result<Vec<BlockEntry>, String> {
        let mut log = Log::open(&root).map_err(|e| e.to_string())?;
        let open = |o| Shard::open(o, clock.clone()).map(|(s, _)| s).map_err(|e| e.to_string());
        let mut shards = options.into_iter().map(open).collect::<Result<Vec<Shard>, String>>()?;
        let report = Moving {
            shards: &mut shards,
            route: &|slot, labels| distributor.shard_of(slot, labels),
            out_dir: &out_dir,
            range_ms,
            extras,
        }
        .run(&mut log)
        .map_err(|e| e.to_string())?;
        for shard in &mut shards {
            shard.begin_checkpoint().and_then(|job| job.run()).map_err(|e| e.to_string())?;
        }
        let found = &log.report;
        tracing::info!(
            samples = report.into_head,
            late = report.into_blocks,
            contradictions = report.contradictions,
            deleted = found.deleted,
            exemplars = report.exemplars,
            exemplars_left = found.exemplars - report.exemplars.min(found.exemplars),
            unknown_samples = found.unknown_samples,
            torn = found.torn,
            "log of Prometheus moved into the head"
        );
        for d in &found.damaged {
            tracing::error!(
                file = d.file,
                offset = d.offset,
                what = d.what,
                "part of the old log is damaged"
            );
        }
        Ok(report.blocks.iter().map(|&id| BlockEntry { id, path: out_dir.join(id.to_string()) }).collect())
    };
    f.pool.run(work).await.map_err(|e| e.to_string())?
}

/// Writes the marker durably.
fn mark(root: &Path, state: &str) -> Result<(), String> {
    let tmp = root.join("moved-in.tmp");
    let write = || -> std::io::Result<()> {
        std::fs::write(&tmp, state)?;
        std::fs::File::open(&tmp)?.sync_all()?;
        std::fs::rename(&tmp, root.join(MARKER))
    };
    write().map_err(|e| format!("{}: {e}", tmp.display()))?;
    sync_dir(root).map_err(|e| e.to_string())
}
