//! Descriptions of blocks that were read.
//!
//! Owns which of them are read when, and a file that holds them over a restart, so that a node with many blocks does not
//! read as many objects to be ready. Meta files never change once a block exists; where the bucket is a directory their
//! time and length are compared all the same, as people edit files. Refuses to trust one list: a block that it lacks is
//! there until the store says of its meta.json too that it is gone, and a second list agrees. What was read stays read
//! when something else could not be. A damaged file is no file. Bounds: 100,000 blocks; 1 GiB of file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use futures::{StreamExt, stream};
use koios_block::BlockMeta;
use koios_model::BlockId;
use koios_objstore::transfer::META;
use koios_objstore::{Bucket, ObjstoreError};
use xxhash_rust::xxh3::xxh3_64;

use crate::catalogue::BLOCKS_MAX;
use crate::error::StoreError;

const READS_IN_FLIGHT: usize = 32;
/// A refresh ends when so many more reads failed than succeeded: the store is away.
const FAILURES_MAX: usize = 32;
/// The file is written when more than this part of it is new.
const UNSAVED_SHARE: usize = 50;
const FILE_BYTES_MAX: u64 = 1 << 30;
const MAGIC: &[u8; 8] = b"KOCATAL1";

/// Sound blocks, and damaged ones with the reason.
pub(crate) type Picture = (BTreeMap<BlockId, Arc<BlockMeta>>, BTreeMap<BlockId, String>);

/// What a description says, and the state of its file where that is on this machine.
struct Entry {
    meta: Arc<BlockMeta>,
    stamp: u64,
}

/// The descriptions.
#[derive(Default)]
pub(crate) struct Known {
    entries: BTreeMap<BlockId, Entry>,
    /// Where they are held over a restart.
    file: Option<PathBuf>,
    unsaved: usize,
}

enum Read {
    Sound(Entry),
    Damaged(String),
    Gone,
}

impl Known {
    /// As `file` has it, of the same bucket; nothing when there is none, or a damaged one.
    pub(crate) fn kept_in(file: PathBuf, bucket: &Bucket) -> Self {
        let entries = load(&file, bucket).unwrap_or_default();
        Self { entries, file: Some(file), unsaved: 0 }
    }

    /// What is in the bucket now.
    ///
    /// # Errors
    /// When the bucket cannot be listed or read; what could be read is not read again.
    pub(crate) async fn picture(&mut self, bucket: &Bucket) -> Result<Picture, StoreError> {
        let mut ids = bucket.list_blocks().await?;
        let listed: BTreeSet<BlockId> = ids.iter().copied().collect();
        if ids.len() > BLOCKS_MAX {
            tracing::error!(
                blocks = ids.len(),
                max = BLOCKS_MAX,
                "too many blocks in the bucket, the oldest are left out"
            );
            ids.drain(..ids.len() - BLOCKS_MAX);
        }
        let unlisted = self.entries.keys().copied().filter(|id| !listed.contains(id));
        let unread =
            ids.iter().copied().filter(|id| !self.entries.contains_key(id)).chain(unlisted).collect();
        let (damaged, gone) = self.read(bucket, unread).await?;
        if !gone.is_empty() {
            let again: BTreeSet<BlockId> = bucket.list_blocks().await?.into_iter().collect();
            for id in gone.difference(&again) {
                self.unsaved += usize::from(self.entries.remove(id).is_some());
            }
        }
        if let Some(first) = ids.first().filter(|_| listed.len() > BLOCKS_MAX) {
            self.entries = self.entries.split_off(first);
        }
        self.save(bucket).await;
        Ok((self.entries.iter().map(|(id, e)| (*id, e.meta.clone())).collect(), damaged))
    }

    /// Which of these are damaged, and which have no meta.json: somebody is uploading, or it is being deleted.
    async fn read(
        &mut self,
        bucket: &Bucket,
        ids: Vec<BlockId>,
    ) -> Result<(BTreeMap<BlockId, String>, BTreeSet<BlockId>), StoreError> {
        let (mut damaged, mut gone) = (BTreeMap::new(), BTreeSet::new());
        let (mut sound, mut failures, mut why) = (0, 0, None);
        let mut reads = stream::iter(ids)
            .map(|id| async move { (id, read(bucket, id).await) })
            .buffer_unordered(READS_IN_FLIGHT);
        while let Some((id, read)) = reads.next().await {
            match read {
                Ok(Read::Sound(entry)) => {
                    sound += 1;
                    self.unsaved += usize::from(self.entries.insert(id, entry).is_none());
                }
                Ok(Read::Damaged(why)) => drop(damaged.insert(id, why)),
                Ok(Read::Gone) => drop(gone.insert(id)),
                Err(e) => {
                    failures += 1;
                    why.get_or_insert(e);
                    if failures > sound + FAILURES_MAX {
                        break;
                    }
                }
            }
        }
        why.map_or(Ok((damaged, gone)), |e| Err(e.into()))
    }

    /// Not written is no harm: the next start reads more.
    async fn save(&mut self, bucket: &Bucket) {
        let Some(file) = self.file.clone().filter(|_| self.unsaved * UNSAVED_SHARE > self.entries.len())
        else {
            return;
        };
        let mut bytes = MAGIC.to_vec();
        push(&mut bytes, bucket.id().as_bytes());
        for entry in self.entries.values() {
            bytes.extend(entry.stamp.to_le_bytes());
            push(&mut bytes, &entry.meta.to_json());
        }
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let write = move || {
            let tmp = file.with_extension("tmp");
            std::fs::write(&tmp, bytes).and_then(|()| std::fs::rename(&tmp, &file))
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => self.unsaved = 0,
            Ok(Err(e)) => tracing::warn!(error = %e, "the list of known blocks is not written"),
            Err(e) => tracing::error!(error = %e, "the list of known blocks is not written"),
        }
    }
}

fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

async fn read(bucket: &Bucket, id: BlockId) -> Result<Read, ObjstoreError> {
    let stamp = bucket.local_block_dir(id).map_or(0, |dir| stamp(&dir));
    let bytes = match bucket.get(&format!("{id}/{META}")).await {
        Ok(bytes) => bytes,
        Err(ObjstoreError::NotFound(_)) => return Ok(Read::Gone),
        Err(e @ ObjstoreError::TooLarge { .. }) => return Ok(Read::Damaged(e.to_string())),
        Err(e) => return Err(e),
    };
    Ok(match BlockMeta::parse(&bytes) {
        Ok(meta) if meta.ulid == id => Read::Sound(Entry { meta: Arc::new(meta), stamp }),
        Ok(meta) => Read::Damaged(format!("meta.json belongs to block {}", meta.ulid)),
        Err(why) => Read::Damaged(format!("meta.json: {why}")),
    })
}

/// Digest of the time and length of a block's meta.json; 0 when there is none.
fn stamp(dir: &Path) -> u64 {
    let Ok(file) = std::fs::metadata(dir.join(META)) else { return 0 };
    let time = file.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    let nanos = time.map_or(0, |t| t.as_nanos());
    xxh3_64(&[nanos.to_le_bytes().as_slice(), &file.len().to_le_bytes()].concat()).max(1)
}

/// `None` when it is not there, damaged, or of another bucket.
fn load(file: &Path, bucket: &Bucket) -> Option<BTreeMap<BlockId, Entry>> {
    if std::fs::metadata(file).ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    let bytes = std::fs::read(file).ok()?;
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    if pull(&mut rest)? != bucket.id().as_bytes() {
        return None;
    }
    let mut entries = BTreeMap::new();
    while let Some((read, after)) = rest.split_first_chunk::<8>() {
        rest = after;
        let (stamp_then, meta) = (u64::from_le_bytes(*read), BlockMeta::parse(pull(&mut rest)?).ok()?);
        if bucket.local_block_dir(meta.ulid).is_none_or(|dir| stamp(&dir) == stamp_then) {
            entries.insert(meta.ulid, Entry { meta: Arc::new(meta), stamp: stamp_then });
        }
    }
    Some(entries)
}

fn pull<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    let (bytes, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *rest = after;
    Some(bytes)
}
