//! A bucket and the few operations Koios builds on.
//!
//! Create-if-absent is the only conditional write (design 8): every store has it and one algorithm serves
//! them all. Whether a store really has it is tried out when it is opened; one that takes the condition and ignores it is
//! used all the same, and says so (`is_conditional`). Bounds: 64 MiB for an object read whole.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use koios_model::{BlockId, SystemClock, failpoint};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::config::{BucketConfig, Provider};
use crate::error::ObjstoreError;
use crate::hedged::Hedged;
use crate::provider;

/// Largest object that is read whole.
pub const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// Folder of everything that is Koios' own.
pub const OWN: &str = "_koios";
/// The bucket's own name, below `OWN`.
const IDENTITY: &str = "bucket-id";
/// The name of the cluster that the bucket belongs to, below `OWN`.
const CLUSTER: &str = "cluster";
/// Most characters that are shown of it.
const CLUSTER_NAME_MAX: usize = 200;
/// Tries of a create that a store refuses although nothing is there.
const CREATES: usize = 3;

/// An open bucket. Clones share it.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    local_root: Option<PathBuf>,
    id: Arc<str>,
    conditional: bool,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.id)
    }
}

impl Bucket {
    /// Opens the bucket, makes the directory of a local one, and reads or creates its identity: nodes whose
    /// buckets have the same identity share a bucket, whatever their paths say.
    ///
    /// # Errors
    /// When the store cannot be reached or written.
    pub async fn open(config: &BucketConfig, fresh_id: BlockId) -> Result<Self, ObjstoreError> {
        let mut store = provider::open(&config.provider)?;
        if let Some(hedging) = config.hedging {
            store = Arc::new(Hedged::new(store, hedging, SystemClock::shared()));
        }
        let root = match &config.provider {
            Provider::Filesystem(dir) => Some(
                dir.canonicalize().map_err(|e| ObjstoreError::local("open", dir, e))?.join(&config.prefix),
            ),
            _ => None,
        };
        if !config.prefix.is_empty() {
            store = Arc::new(PrefixStore::new(store, Path::from(config.prefix.as_str())));
        }
        Self::over(store, root, fresh_id).await
    }

    /// A bucket over an open store; `local_root` is its directory where it has one.
    ///
    /// # Errors
    /// As `open`.
    pub async fn over(
        store: Arc<dyn ObjectStore>,
        local_root: Option<PathBuf>,
        fresh_id: BlockId,
    ) -> Result<Self, ObjstoreError> {
        let mut bucket = Self { store, local_root, id: Arc::from(""), conditional: true };
        let path = format!("{OWN}/{IDENTITY}");
        // A lost reply also looks like "exists", and an empty id lets `create` alone: whatever is there is the truth.
        let there = match bucket.get(&path).await {
            Err(ObjstoreError::NotFound(_)) => {
                match bucket.put_new(&path, fresh_id.to_string().into_bytes()).await {
                    Ok(()) | Err(ObjstoreError::Exists(_)) => bucket.get(&path).await?,
                    Err(e) => return Err(e),
                }
            }
            other => other?,
        };
        // Harmless where the condition is ignored: the same words in the same place.
        bucket.conditional = match bucket.put_new(&path, there.to_vec()).await {
            Err(ObjstoreError::Exists(_)) => true,
            Ok(()) => false,
            Err(e) => return Err(e),
        };
        if !bucket.conditional {
            tracing::warn!(
                "this object store ignores the condition of a conditional write: no work is shared over it that needs one winner"
            );
        }
        bucket.id = String::from_utf8_lossy(&there).trim().into();
        Ok(bucket)
    }

    /// Makes the bucket this cluster's, unless it is one's already: two that share a bucket would merge and delete each
    /// other's blocks. Who comes first has it.
    ///
    /// # Errors
    /// `OtherCluster`, or what the store says.
    pub async fn claim(&self, cluster: &str) -> Result<(), ObjstoreError> {
        let path = format!("{OWN}/{CLUSTER}");
        let there = match self.get(&path).await {
            Err(ObjstoreError::NotFound(_)) => match self.create(&path, cluster.as_bytes().to_vec()).await {
                Ok(()) | Err(ObjstoreError::Exists(_)) => self.get(&path).await?,
                Err(e) => return Err(e),
            },
            other => other?,
        };
        let found = String::from_utf8_lossy(&there);
        match found.trim() {
            found if found == cluster => Ok(()),
            found => Err(ObjstoreError::OtherCluster {
                path,
                found: found.chars().take(CLUSTER_NAME_MAX).collect(),
                own: cluster.to_owned(),
            }),
        }
    }

    /// Whether of several who create an object exactly one wins here.
    pub fn is_conditional(&self) -> bool {
        self.conditional
    }

    /// A directory that is gone, or another in its place (a volume that is not mounted), would look like an empty bucket,
    /// and take writes that nobody ever finds again.
    fn present(&self) -> Result<(), ObjstoreError> {
        let Some(root) = self.local_root.as_ref().filter(|_| !self.id.is_empty()) else { return Ok(()) };
        let file = root.join(OWN).join(IDENTITY);
        match std::fs::read_to_string(&file) {
            Ok(id) if id.trim() == &*self.id => Ok(()),
            Ok(id) => {
                Err(ObjstoreError::Replaced { path: root.display().to_string(), found: id.trim().to_owned() })
            }
            Err(e) => Err(ObjstoreError::local("the bucket is away: read", &file, e)),
        }
    }

    /// Identity shared by all who open this bucket.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the block's files lie, when the bucket is a directory of this machine.
    pub fn local_block_dir(&self, id: BlockId) -> Option<PathBuf> {
        self.local_root.as_ref().map(|r| r.join(id.to_string()))
    }

    /// Root of a local bucket.
    pub fn local_root(&self) -> Option<&FsPath> {
        self.local_root.as_deref()
    }

    /// Ids of everything that looks like a block, complete or not, ascending.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list_blocks(&self) -> Result<Vec<BlockId>, ObjstoreError> {
        self.present()?;
        let root = Path::default();
        let list =
            self.store.list_with_delimiter(None).await.map_err(|e| ObjstoreError::store("list", &root, e))?;
        let mut ids: Vec<BlockId> =
            list.common_prefixes.iter().filter_map(|p| p.filename()?.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// Which of some files blocks have at their top, by block. Asks for one list of the whole bucket, not for each block.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn blocks_with(
        &self,
        files: &[&'static str],
    ) -> Result<BTreeMap<BlockId, Vec<&'static str>>, ObjstoreError> {
        self.present()?;
        let failed = |e| ObjstoreError::store("list", &Path::default(), e);
        let (mut all, mut found) = (self.store.list(None), BTreeMap::<_, Vec<_>>::new());
        while let Some(object) = all.try_next().await.map_err(failed)? {
            let mut parts = object.location.parts();
            if let (Some(id), Some(name), None) = (parts.next(), parts.next(), parts.next())
                && let Some(file) = files.iter().find(|f| **f == name.as_ref())
                && let Ok(id) = id.as_ref().parse::<BlockId>()
            {
                found.entry(id).or_default().push(*file);
            }
        }
        Ok(found)
    }

    /// Paths of all objects under `prefix` and their sizes in bytes.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, ObjstoreError> {
        self.present()?;
        let path = Path::from(prefix);
        let all: Vec<_> = self
            .store
            .list(Some(&path))
            .try_collect()
            .await
            .map_err(|e| ObjstoreError::store("list", &path, e))?;
        Ok(all.into_iter().map(|m| (m.location.to_string(), m.size)).collect())
    }

    /// Paths of all objects under `prefix` and when each was last changed, milliseconds.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list_modified(&self, prefix: &str) -> Result<Vec<(String, i64)>, ObjstoreError> {
        self.present()?;
        let path = Path::from(prefix);
        let all: Vec<_> = self
            .store
            .list(Some(&path))
            .try_collect()
            .await
            .map_err(|e| ObjstoreError::store("list", &path, e))?;
        Ok(all.into_iter().map(|m| (m.location.to_string(), m.last_modified.timestamp_millis())).collect())
    }

    /// A whole object.
    ///
    /// # Errors
    /// `NotFound`, `TooLarge`, or what the store says.
    pub async fn get(&self, path: &str) -> Result<Bytes, ObjstoreError> {
        let path = Path::from(path);
        let found = self.store.get(&path).await.map_err(|e| ObjstoreError::store("get", &path, e))?;
        if found.meta.size > WHOLE_BYTES_MAX {
            let (bytes, bytes_max) = (found.meta.size, WHOLE_BYTES_MAX);
            return Err(ObjstoreError::TooLarge { path: path.to_string(), bytes, bytes_max });
        }
        let size = found.meta.size;
        let bytes = found.bytes().await.map_err(|e| ObjstoreError::store("get", &path, e))?;
        whole(&path, bytes, size)
    }

    /// Writes an object, whatever was there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn put(&self, path: &str, bytes: impl Into<PutPayload>) -> Result<(), ObjstoreError> {
        self.present()?;
        let path = Path::from(path);
        failpoint::pass("bucket put");
        self.store.put(&path, bytes.into()).await.map(drop).map_err(|e| ObjstoreError::store("put", &path, e))
    }

    /// Bytes `[range.start, range.end)` of an object.
    ///
    /// # Errors
    /// `NotFound`, or what the store says; fewer bytes than asked for are an error.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, ObjstoreError> {
        let path = Path::from(path);
        let found = self.store.get_range(&path, range.clone()).await;
        let bytes = found.map_err(|e| ObjstoreError::store("get", &path, e))?;
        whole(&path, bytes, range.end - range.start)
    }

    /// Writes an object only if there is none. One that is there with the same bytes counts as written: the answer
    /// to an earlier try was lost. Who must know that it was the one to write puts something of its own into the bytes.
    ///
    /// # Errors
    /// `Exists` when somebody was first, else what the store says; then it is not known whether it was written.
    pub async fn create(&self, path: &str, bytes: Vec<u8>) -> Result<(), ObjstoreError> {
        self.present()?;
        failpoint::pass("bucket create");
        for _ in 0..CREATES {
            let Err(e) = self.put_new(path, bytes.clone()).await else { return Ok(()) };
            match self.get(path).await {
                Ok(there) if there == bytes => return Ok(()),
                Ok(_) => return Err(ObjstoreError::Exists(path.to_owned())),
                // S3 answers two writers at once with a conflict although neither has written.
                Err(ObjstoreError::NotFound(_)) if matches!(e, ObjstoreError::Exists(_)) => {}
                Err(_) => return Err(e),
            }
        }
        let detail = "the store says that it exists and does not show it".to_owned();
        Err(ObjstoreError::Store { op: "create", path: path.to_owned(), detail })
    }

    async fn put_new(&self, path: &str, bytes: Vec<u8>) -> Result<(), ObjstoreError> {
        let path = Path::from(path);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.store.put_opts(&path, bytes.into(), options).await;
        put.map(drop).map_err(|e| ObjstoreError::store("create", &path, e))
    }

    /// Removes an object; a missing one is fine.
    ///
    /// # Errors
    /// What the store says.
    pub async fn delete(&self, path: &str) -> Result<(), ObjstoreError> {
        let path = Path::from(path);
        failpoint::pass("bucket removal");
        match self.store.delete(&path).await.map_err(|e| ObjstoreError::store("delete", &path, e)) {
            Err(ObjstoreError::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    /// The store itself, where there is one.
    ///
    /// # Errors
    /// When a local bucket is away.
    pub(crate) fn store(&self) -> Result<&Arc<dyn ObjectStore>, ObjstoreError> {
        self.present().map(|()| &self.store)
    }
}

/// A body that ended early is no body.
fn whole(path: &Path, bytes: Bytes, wanted: u64) -> Result<Bytes, ObjstoreError> {
    if bytes.len() as u64 == wanted {
        return Ok(bytes);
    }
    let detail = format!("{} bytes came of {wanted}", bytes.len());
    Err(ObjstoreError::Store { op: "get", path: path.to_string(), detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> BlockId {
        BlockId::from_parts(n, 1)
    }

    #[tokio::test]
    async fn identity_is_made_once_and_shared() {
        let dir = tempfile::tempdir().unwrap();
        let config = BucketConfig::directory(dir.path().join("b"));
        let first = Bucket::open(&config, id(1)).await.unwrap();
        let second = Bucket::open(&config, id(2)).await.unwrap();
        assert_eq!(first.id(), second.id());
        let other = Bucket::open(&BucketConfig::directory(dir.path().join("c")), id(3)).await.unwrap();
        assert_ne!(first.id(), other.id());
    }

    #[tokio::test]
    async fn a_bucket_is_one_clusters() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(&BucketConfig::directory(dir.path()), id(1)).await.unwrap();
        bucket.claim("eu").await.unwrap();
        bucket.claim("eu").await.unwrap();
        let why = bucket.claim("us").await.unwrap_err().to_string();
        assert!(why.contains("\"eu\"") && why.contains("\"us\"") && why.contains("fix: "), "{why}");
        bucket.put("_koios/cluster", b"us\n".to_vec()).await.unwrap();
        bucket.claim("us").await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_is_away_is_no_empty_bucket() {
        let dir = tempfile::tempdir().unwrap();
        let (here, away) = (dir.path().join("here"), dir.path().join("away"));
        let bucket = Bucket::open(&BucketConfig::directory(&here), id(1)).await.unwrap();
        bucket.put(&format!("{}/meta.json", id(9)), b"{}".to_vec()).await.unwrap();
        std::fs::rename(&here, &away).unwrap();
        assert!(bucket.list_blocks().await.unwrap_err().to_string().contains("away"));
        assert!(
            bucket.put("x", b"".to_vec()).await.is_err() && bucket.create("x", Vec::new()).await.is_err()
        );
        assert!(bucket.list("").await.is_err() && !here.exists(), "nothing was begun in its place");
        drop(Bucket::open(&BucketConfig::directory(&here), id(2)).await.unwrap());
        assert!(matches!(bucket.list_blocks().await, Err(ObjstoreError::Replaced { .. })));
        std::fs::remove_dir_all(&here).unwrap();
        std::fs::rename(&away, &here).unwrap();
        assert_eq!(bucket.list_blocks().await.unwrap(), [id(9)]);
    }

    #[tokio::test]
    async fn create_has_one_winner() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(&BucketConfig::directory(dir.path()), id(1)).await.unwrap();
        let tries = (0..8u8).map(|i| {
            let bucket = bucket.clone();
            tokio::spawn(async move { bucket.create("_koios/x", vec![i]).await.is_ok() })
        });
        let won: Vec<bool> = futures::future::try_join_all(tries).await.unwrap();
        assert_eq!(won.iter().filter(|w| **w).count(), 1);
        let winner = won.iter().position(|w| *w).unwrap() as u8;
        assert_eq!(bucket.get("_koios/x").await.unwrap(), vec![winner]);
        bucket.delete("_koios/x").await.unwrap();
        bucket.delete("_koios/x").await.unwrap();
        assert!(matches!(bucket.get("_koios/x").await, Err(ObjstoreError::NotFound(_))));
    }

    #[tokio::test]
    async fn only_ulids_are_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::open(&BucketConfig::directory(dir.path()), id(1)).await.unwrap();
        for path in [format!("{}/meta.json", id(9)), format!("{}/meta.json", id(5)), "notes/meta.json".into()]
        {
            bucket.put(&path, b"{}".to_vec()).await.unwrap();
        }
        assert_eq!(bucket.list_blocks().await.unwrap(), [id(5), id(9)]);
    }
}
