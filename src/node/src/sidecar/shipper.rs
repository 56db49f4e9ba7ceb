//! Blocks of the Prometheus beside this node on their way into the bucket, as Thanos' shipper brings them.
//!
//! Every `EVERY` its data directory is looked at. A block that is not in the bucket is linked into `thanos/upload/<ULID>` first, so that
//! the Prometheus may delete it meanwhile, gets its `thanos` section with the external labels, and is uploaded with meta.json last. What
//! is done is written into `thanos.shipper.json`. Nothing depends on that file: what is in the bucket is asked of the bucket, and an upload
//! that broke off is done again. Left out are blocks without samples, compacted ones unless asked for, and blocks that do not open.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use koios_block::meta::ThanosMeta;
use koios_block::{Block, BlockEntry, BlockMeta, list_blocks};
use koios_model::timestamp::rfc3339;
use koios_model::{BlockId, Clock, Labels};
use koios_objstore::{Bucket, transfer};
use koios_tsdb::foreign::adopt_block;
use serde::{Deserialize, Serialize};

use super::SidecarArgs;
use super::watch::Watch;

/// How often the directory is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// Where blocks are linked, below the data directory.
const STAGING: &str = "thanos/upload";
/// What `source` says in them.
const MADE_BY: &str = "sidecar";

/// `thanos.shipper.json`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ledger {
    version: u32,
    uploaded: Vec<String>,
}

/// The shipper.
pub struct Shipper {
    dir: PathBuf,
    ledger: PathBuf,
    compacted: bool,
    bucket: Bucket,
    watch: Arc<Watch>,
    clock: Arc<dyn Clock>,
    /// In the bucket, as far as is known.
    done: BTreeSet<BlockId>,
    /// Blocks that do not open; said once.
    damaged: BTreeSet<BlockId>,
}

impl Shipper {
    /// Nothing is done yet.
    ///
    /// # Errors
    /// A directory that is none, or a name of the file that leads elsewhere.
    pub fn new(
        dir: PathBuf,
        args: &SidecarArgs,
        bucket: Bucket,
        watch: Arc<Watch>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let name = &args.shipper_meta_file_name;
        if name.is_empty() || Path::new(name).components().count() != 1 || name.contains("..") {
            return Err(format!(
                "--shipper.meta-file-name: {name:?} is no name of a file; fix: leave it out"
            ));
        }
        if !dir.is_dir() {
            let shown = dir.display();
            return Err(format!(
                "--prometheus.data-dir: {shown} is no directory; fix: name the data directory of the Prometheus"
            ));
        }
        let (ledger, compacted) = (dir.join(name), args.shipper_upload_compacted);
        Ok(Self {
            dir,
            ledger,
            compacted,
            bucket,
            watch,
            clock,
            done: BTreeSet::new(),
            damaged: BTreeSet::new(),
        })
    }

    /// Uploads as long as the runtime lives.
    pub async fn run(mut self) {
        loop {
            let known = self.watch.known();
            if let (Some(external), None) = (known.external, known.no_upload) {
                match self.round(&external).await {
                    Ok(0) => {}
                    Ok(blocks) => {
                        tracing::info!(blocks, "blocks of the Prometheus beside this node uploaded")
                    }
                    Err(why) => tracing::warn!(why, "blocks not uploaded; they are tried again"),
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Uploads what is not uploaded; gives how many blocks that were.
    async fn round(&mut self, external: &Labels) -> Result<usize, String> {
        let found = list_blocks(&self.dir).map_err(|e| e.to_string())?;
        let ids: BTreeSet<BlockId> = found.iter().map(|b| b.id).collect();
        self.done.retain(|id| ids.contains(id));
        let (mut uploaded, mut failed) = (0, None);
        for block in found {
            if self.done.contains(&block.id) {
                continue;
            }
            // One that fails keeps none of the others back.
            match self.bring(&block, external).await {
                Ok(brought) => uploaded += usize::from(brought),
                Err(why) => failed = Some(format!("block {}: {why}", block.id)),
            }
        }
        self.write_ledger()?;
        failed.map_or(Ok(uploaded), Err)
    }

    async fn bring(&mut self, block: &BlockEntry, external: &Labels) -> Result<bool, String> {
        let Ok(meta) = BlockMeta::read(&block.path) else {
            return Ok(false); // It is being written, or deleted.
        };
        if meta.stats.num_samples == 0 || (meta.compaction.level > 1 && !self.compacted) {
            return Ok(false);
        }
        if self.bucket.get(&format!("{}/{}", block.id, transfer::META)).await.is_ok() {
            self.done.insert(block.id);
            return Ok(false);
        }
        let (thanos, staging) = (self.section(external), self.dir.join(STAGING));
        let linked = block.clone();
        let prepared = tokio::task::spawn_blocking(move || prepare(&linked, &staging, &thanos));
        let dir = match prepared.await.map_err(|e| e.to_string())? {
            Ok(dir) => dir,
            Err(_) if !block.path.exists() => return Ok(false),
            Err(why) => {
                if self.damaged.insert(block.id) {
                    tracing::error!(block = %block.id, why, "block of the Prometheus is damaged and not uploaded");
                }
                return Ok(false);
            }
        };
        let put = transfer::upload_block(&self.bucket, &dir, block.id).await.map_err(|e| e.to_string());
        let removed = std::fs::remove_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()));
        put?;
        self.done.insert(block.id);
        removed?;
        Ok(true)
    }

    fn section(&self, external: &Labels) -> ThanosMeta {
        let labels = external.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let mut thanos =
            ThanosMeta { version: 1, labels, source: MADE_BY.to_owned(), ..ThanosMeta::default() };
        thanos.other.insert("upload_time".to_owned(), rfc3339(self.clock.now_ms()).into());
        thanos
    }

    /// Says in the data directory what of it is in the bucket.
    fn write_ledger(&self) -> Result<(), String> {
        let ledger = Ledger { version: 1, uploaded: self.done.iter().map(BlockId::to_string).collect() };
        let mut bytes = serde_json::to_vec_pretty(&ledger).expect("BUG: a ledger is always valid JSON");
        bytes.push(b'\n');
        if std::fs::read(&self.ledger).is_ok_and(|now| now == bytes) {
            return Ok(());
        }
        let tmp = self.ledger.with_extension("tmp");
        let write = || -> std::io::Result<()> {
            std::fs::write(&tmp, &bytes)?;
            std::fs::File::open(&tmp)?.sync_all()?;
            std::fs::rename(&tmp, &self.ledger)
        };
        write().map_err(|e| format!("{}: {e}", self.ledger.display()))
    }
}

/// Links a block that opens, with the section in its meta.json.
fn prepare(block: &BlockEntry, staging: &Path, thanos: &ThanosMeta) -> Result<PathBuf, String> {
    Block::open(&block.path).map_err(|e| e.to_string())?;
    std::fs::create_dir_all(staging).map_err(|e| format!("{}: {e}", staging.display()))?;
    adopt_block(block, staging, thanos).map_err(|e| e.to_string())
}
