//! A bucket and the few operations Koios builds on.
//!
//! Create-if-absent is the only conditional write (design 8): every store has it and one algorithm serves
//! them all. Bounds: 64 MiB for an object read whole.

use std::collections::BTreeSet;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use koios_model::{BlockId, failpoint};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::config::BucketConfig;
use crate::error::ObjstoreError;

/// Largest object that is read whole.
pub const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// Folder of everything that is Koios' own.
pub const OWN: &str = "_koios";
/// The bucket's own name, below `OWN`.
const IDENTITY: &str = "bucket-id";

/// An open bucket. Clones share it.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    local_root: Option<PathBuf>,
    id: Arc<str>,
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
        let BucketConfig::Filesystem { directory, prefix } = config;
        std::fs::create_dir_all(directory).map_err(|e| ObjstoreError::local("create", directory, e))?;
        let root = directory.canonicalize().map_err(|e| ObjstoreError::local("open", directory, e))?;
        let local = LocalFileSystem::new_with_prefix(&root)
            .map_err(|e| ObjstoreError::store("open", &Path::default(), e))?
            .with_fsync(true);
        let prefix = prefix.trim_matches('/').to_owned();
        let (store, local_root): (Arc<dyn ObjectStore>, _) = if prefix.is_empty() {
            (Arc::new(local), root)
        } else {
            (Arc::new(PrefixStore::new(local, Path::from(prefix.as_str()))), root.join(&prefix))
        };
        let mut bucket = Self { store, local_root: Some(local_root), id: Arc::from("") };
        bucket.id = bucket.identity(fresh_id).await?.into();
        Ok(bucket)
    }

    async fn identity(&self, fresh: BlockId) -> Result<String, ObjstoreError> {
        let path = format!("{OWN}/{IDENTITY}");
        match self.create(&path, fresh.to_string().into_bytes()).await {
            // A lost reply also looks like "exists": whatever is there is the truth.
            Ok(()) | Err(ObjstoreError::Exists(_)) => {}
            Err(e) => return Err(e),
        }
        let bytes = self.get(&path).await?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
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

    /// Blocks that have a file of this name at their top. Asks for one list of the whole bucket, not for each block.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn blocks_with(&self, file: &str) -> Result<BTreeSet<BlockId>, ObjstoreError> {
        self.present()?;
        let failed = |e| ObjstoreError::store("list", &Path::default(), e);
        let (mut all, mut ids) = (self.store.list(None), BTreeSet::new());
        while let Some(object) = all.try_next().await.map_err(failed)? {
            let mut parts = object.location.parts();
            if let (Some(id), Some(name), None) = (parts.next(), parts.next(), parts.next())
                && name.as_ref() == file
            {
                ids.extend(id.as_ref().parse::<BlockId>());
            }
        }
        Ok(ids)
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
        found.bytes().await.map_err(|e| ObjstoreError::store("get", &path, e))
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

    /// Writes an object only if there is none.
    ///
    /// # Errors
    /// `Exists` when somebody was first, else what the store says.
    pub async fn create(&self, path: &str, bytes: Vec<u8>) -> Result<(), ObjstoreError> {
        self.present()?;
        let path = Path::from(path);
        failpoint::pass("bucket create");
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
