//! Carries one step out, so that a crash anywhere loses no sample: an output is written beside the bucket, read back,
//! uploaded with meta.json last, and only then are its sources marked.
//!
//! What was tripped over is marked against that step, with the reason, and the rest goes on; a store or disk that does not
//! answer ends the run. Scratch: the sources of one step, where they are not on this machine, and its output.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use koios_block::{Block, BlockMeta};
use koios_compact::bucket::{Policy, Seen, Step, Why};
use koios_compact::{CompactError, Merge, downsample_block, merge_blocks};
use koios_model::timestamp::rfc3339;
use koios_model::{BlockId, Clock, Labels};
use koios_objstore::{Bucket, transfer};

use super::partial::remove;
use crate::blocks_tool::{Marker, put_mark};

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Did {
    pub(super) merges: usize,
    pub(super) merged: usize,
    pub(super) samples: u64,
    /// To five minutes, to an hour.
    pub(super) coarse: [usize; 2],
    pub(super) marked: usize,
    pub(super) deleted: usize,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
    pub(super) passed_over: BTreeMap<BlockId, String>,
}

/// The bucket while it is worked on.
pub(super) struct Work {
    pub(super) bucket: Bucket,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) blocks: BTreeMap<BlockId, Seen>,
    pub(super) failed: BTreeSet<BlockId>,
    pub(super) did: Did,
    scratch: PathBuf,
    stop: Arc<AtomicBool>,
    outputs: u64,
}

/// What becomes of the sources in a step.
type Made = Result<Vec<BlockMeta>, CompactError>;

impl Work {
    /// Over a picture of the bucket. What an earlier run left in `scratch` is removed.
    pub(super) fn new(
        bucket: Bucket,
        scratch: PathBuf,
        clock: Arc<dyn Clock>,
        blocks: BTreeMap<BlockId, Seen>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, String> {
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
        let (failed, did) = (BTreeSet::new(), Did::default());
        Ok(Self { bucket, clock, blocks, failed, did, scratch, stop, outputs: 0 })
    }

    /// Takes the scratch directory away.
    pub(super) fn clear_up(&self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }

    /// Takes a step.
    pub(super) async fn take(&mut self, step: &Step, policy: &Policy) -> Result<(), String> {
        if self.stop.load(Ordering::Relaxed) {
            return Err("stopped; what was done is done, run it again for the rest".to_owned());
        }
        match step {
            Step::Merge { blocks, labels, how, .. } => {
                let (labels, how, index_bytes_max) = (labels.clone(), *how, policy.index_bytes_max);
                let id = self.fresh(blocks);
                let made = self.make(blocks, move |sources, parent, stop| {
                    let merge =
                        Merge { labels: Some(labels), how, index_bytes_max, ..Merge::new(parent, id, stop) };
                    merge_blocks(sources, &merge)
                });
                match made.await? {
                    Ok(made) => self.merged(blocks, made).await,
                    Err(e) => self.pass_over(blocks, Marker::NoCompact, &e).await,
                }
            }
            Step::Downsample { block, to } => {
                let (to, id) = (*to, self.fresh(std::slice::from_ref(block)));
                let made = self.make(std::slice::from_ref(block), move |sources, parent, stop| {
                    let one = &sources[0];
                    Ok(downsample_block(one, to, &Merge::new(parent, id, stop))?.into_iter().collect())
                });
                match made.await? {
                    Ok(made) => {
                        self.did.coarse[usize::from(to != koios_compact::downsample::FIVE_MINUTES)] += 1;
                        if made.is_empty() {
                            // Nothing in it counts: asking again would find nothing again.
                            self.failed.insert(*block);
                        }
                        self.publish(made).await
                    }
                    Err(e) => self.pass_over(std::slice::from_ref(block), Marker::NoDownsample, &e).await,
                }
            }
            Step::Leave { block } => {
                let why = ("overlapping downsampled blocks are not merged", "downsample-vertical-compaction");
                put_mark(&self.bucket, Marker::NoCompact, *block, why, self.clock.now_ms()).await?;
                self.seen(*block, |s| s.no_compact = true);
                Ok(())
            }
            Step::Mark { block, why } => {
                let words = match why {
                    Why::Superseded(by) => format!("block {by} has everything that is in it"),
                    Why::Expired => "block is older than the retention of its resolution".to_owned(),
                };
                self.mark(*block, &words).await
            }
            Step::Delete { block } => {
                remove(&self.bucket, *block).await?;
                self.blocks.remove(block);
                self.did.deleted += 1;
                Ok(())
            }
        }
    }

    /// Opens the sources and has `how` write blocks out of them, which are read back.
    async fn make(
        &mut self,
        ids: &[BlockId],
        how: impl FnOnce(&[Block], &Path, &(dyn Fn() -> bool + Sync)) -> Made + Send + 'static,
    ) -> Result<Made, String> {
        let mut dirs = Vec::with_capacity(ids.len());
        for &id in ids {
            dirs.push((
                id,
                match self.bucket.local_block_dir(id) {
                    Some(dir) => dir,
                    None => match transfer::fetch_block(&self.bucket, &self.scratch, id).await {
                        Ok(dir) => dir,
                        Err(e) => return Err(format!("block {id}: {e}")),
                    },
                },
            ));
        }
        let fetched: Vec<PathBuf> =
            dirs.iter().map(|d| d.1.clone()).filter(|d| d.starts_with(&self.scratch)).collect();
        let (parent, stop) = (self.scratch.clone(), self.stop.clone());
        let work = move || {
            let mut sources = Vec::with_capacity(dirs.len());
            for (id, dir) in dirs {
                sources.push(Block::open(&dir).map_err(|source| CompactError::Source { id, source })?);
            }
            let read = sources.iter().map(Block::bytes).sum::<u64>();
            let made = how(&sources, &parent, &|| stop.load(Ordering::Relaxed))?;
            for meta in &made {
                Block::open(&parent.join(meta.ulid.to_string()))?.verify_samples()?;
            }
            Ok((read, made))
        };
        let made = tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?;
        fetched.iter().for_each(|dir| drop(std::fs::remove_dir_all(dir)));
        Ok(made.map(|(read, made)| {
            self.did.bytes_read += read;
            made
        }))
    }

    async fn merged(&mut self, sources: &[BlockId], made: Vec<BlockMeta>) -> Result<(), String> {
        self.did.merges += 1;
        self.did.merged += sources.len();
        self.did.samples += made.iter().map(|m| m.stats.num_samples).sum::<u64>();
        let into: Vec<String> = made.iter().map(|m| m.ulid.to_string()).collect();
        self.publish(made).await?;
        for source in sources {
            self.mark(*source, &format!("source of compacted block {}", into.join(" "))).await?;
        }
        Ok(())
    }

    /// Uploads what lies in the scratch directory.
    async fn publish(&mut self, made: Vec<BlockMeta>) -> Result<(), String> {
        for mut meta in made {
            let dir = self.scratch.join(meta.ulid.to_string());
            // An empty one; Thanos keeps none in a bucket, and every reader can do without.
            let _ = std::fs::remove_file(dir.join("tombstones"));
            if let Some(thanos) = &mut meta.thanos {
                let time = rfc3339(self.clock.now_ms());
                thanos.other.insert("upload_time".to_owned(), time.into());
            }
            meta.write(&dir).map_err(|e| e.to_string())?;
            let bytes = transfer::upload_block(&self.bucket, &dir, meta.ulid).await;
            self.did.bytes_written += bytes.map_err(|e| e.to_string())?;
            let _ = std::fs::remove_dir_all(&dir);
            self.blocks.insert(meta.ulid, Seen::fresh(meta.into()));
        }
        Ok(())
    }

    async fn mark(&mut self, block: BlockId, words: &str) -> Result<(), String> {
        let now_ms = self.clock.now_ms();
        put_mark(&self.bucket, Marker::Deletion, block, (words, ""), now_ms).await?;
        // What the file says: whole seconds.
        self.seen(block, |s| s.deletion_ms = Some(now_ms / 1000 * 1000));
        self.did.marked += 1;
        Ok(())
    }

    /// Marks what a step tripped over, so that it and the next runs go on without it.
    async fn pass_over(
        &mut self,
        blocks: &[BlockId],
        marker: Marker,
        e: &CompactError,
    ) -> Result<(), String> {
        if matches!(e, CompactError::Stopped) {
            return Err("stopped; what was done is done, run it again for the rest".to_owned());
        }
        let Some(culprit) = e.culprit().or(blocks.first().copied().filter(|_| blocks.len() == 1)) else {
            return Err(e.to_string());
        };
        let reason = "block-unreadable";
        put_mark(&self.bucket, marker, culprit, (&e.to_string(), reason), self.clock.now_ms()).await?;
        self.failed.insert(culprit);
        self.seen(culprit, |s| match marker {
            Marker::NoDownsample => s.no_downsample = true,
            _ => s.no_compact = true,
        });
        self.did.passed_over.insert(culprit, e.to_string());
        Ok(())
    }

    fn seen(&mut self, block: BlockId, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.blocks.get_mut(&block) {
            change(seen);
        }
    }

    fn fresh(&mut self, sources: &[BlockId]) -> BlockId {
        self.outputs += 1;
        let text: Vec<String> = sources.iter().map(ToString::to_string).collect();
        let hash = Labels::from_pairs([("sources", text.join(" ").as_str())]).hash64();
        let random = u128::from(hash) << 16 | u128::from(self.outputs & 0xffff);
        BlockId::from_parts(self.clock.now_ms().max(0) as u64, random)
    }
}
