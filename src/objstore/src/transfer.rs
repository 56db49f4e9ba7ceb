//! Blocks between a directory and the bucket.
//!
//! A block exists in the bucket when its meta.json does; so uploading writes it last and fetching reads it
//! first. Files are streamed in parts of 8 MiB. An upload that died is simply done again: the same files
//! under the same id.

use std::path::{Path as FsPath, PathBuf};

use futures::StreamExt;
use koios_model::{BlockId, failpoint};
use object_store::path::Path;
use object_store::{ObjectStoreExt, WriteMultipart};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bucket::Bucket;
use crate::error::ObjstoreError;

/// The file that makes a block exist.
pub const META: &str = "meta.json";
const PART_BYTES: usize = 8 << 20;
const PARTS_IN_FLIGHT: usize = 4;

/// Uploads the block directory `dir` as `id`: all files, meta.json last.
///
/// # Errors
/// The first file that could not be read or written; nothing is visible then.
pub async fn upload_block(bucket: &Bucket, dir: &FsPath, id: BlockId) -> Result<u64, ObjstoreError> {
    let bytes = upload_data(bucket, dir, id).await?;
    Ok(bytes + upload_file(bucket, &dir.join(META), &format!("{id}/{META}")).await?)
}

/// Uploads all files but meta.json: the block does not exist before somebody writes that one.
///
/// # Errors
/// The first file that could not be read or written.
pub async fn upload_data(bucket: &Bucket, dir: &FsPath, id: BlockId) -> Result<u64, ObjstoreError> {
    let mut bytes = 0;
    for file in block_files(dir)? {
        if file != FsPath::new(META) {
            bytes += upload_file(bucket, &dir.join(&file), &format!("{id}/{}", slashes(&file))).await?;
        }
    }
    Ok(bytes)
}

/// Fetches a whole block into `dir/<id>`; a half-fetched one is never left under that name.
///
/// # Errors
/// `NotFound` when the block has no meta.json, else what the store or the disk says.
pub async fn fetch_block(bucket: &Bucket, dir: &FsPath, id: BlockId) -> Result<PathBuf, ObjstoreError> {
    let target = dir.join(id.to_string());
    let tmp = dir.join(format!("{id}.fetch.tmp"));
    let _ = std::fs::remove_dir_all(&tmp);
    bucket.get(&format!("{id}/{META}")).await?;
    for (path, _) in bucket.list(&id.to_string()).await? {
        let Some(rest) = path.strip_prefix(&format!("{id}/")) else { continue };
        fetch_file(bucket, &path, &tmp.join(rest)).await?;
    }
    let _ = std::fs::remove_dir_all(&target);
    failpoint::pass("fetched block rename");
    std::fs::rename(&tmp, &target).map_err(|e| ObjstoreError::local("rename", &tmp, e))?;
    Ok(target)
}

/// Deletes a block: meta.json first, so that it stops existing before it falls apart.
///
/// # Errors
/// What the store says; doing it again resumes.
pub async fn delete_block(bucket: &Bucket, id: BlockId) -> Result<(), ObjstoreError> {
    bucket.delete(&format!("{id}/{META}")).await?;
    for (path, _) in bucket.list(&id.to_string()).await? {
        bucket.delete(&path).await?;
    }
    Ok(())
}

fn block_files(dir: &FsPath) -> Result<Vec<PathBuf>, ObjstoreError> {
    let mut files = Vec::new();
    let read = |d: &FsPath| std::fs::read_dir(d).map_err(|e| ObjstoreError::local("read", d, e));
    for entry in read(dir)? {
        let entry = entry.map_err(|e| ObjstoreError::local("read", dir, e))?;
        let name = PathBuf::from(entry.file_name());
        if entry.path().is_dir() {
            for inner in read(&entry.path())? {
                let inner = inner.map_err(|e| ObjstoreError::local("read", dir, e))?;
                files.push(name.join(inner.file_name()));
            }
        } else {
            files.push(name);
        }
    }
    files.sort();
    Ok(files)
}

fn slashes(path: &FsPath) -> String {
    path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

async fn upload_file(bucket: &Bucket, file: &FsPath, object: &str) -> Result<u64, ObjstoreError> {
    let local = |e| ObjstoreError::local("read", file, e);
    let mut source = tokio::fs::File::open(file).await.map_err(local)?;
    let size = source.metadata().await.map_err(local)?.len();
    if size <= PART_BYTES as u64 {
        let mut bytes = Vec::with_capacity(size as usize);
        source.read_to_end(&mut bytes).await.map_err(local)?;
        bucket.put(object, bytes).await?;
        return Ok(size);
    }
    let path = Path::from(object);
    let failed = |e| ObjstoreError::store("upload", &path, e);
    let upload = bucket.store()?.put_multipart(&path).await.map_err(failed)?;
    let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    let mut buf = vec![0u8; 1 << 20];
    loop {
        let n = source.read(&mut buf).await.map_err(local)?;
        if n == 0 {
            break;
        }
        writer.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(failed)?;
        writer.write(&buf[..n]);
    }
    failpoint::pass("bucket upload end");
    writer.finish().await.map_err(failed)?;
    Ok(size)
}

async fn fetch_file(bucket: &Bucket, object: &str, file: &FsPath) -> Result<(), ObjstoreError> {
    let path = Path::from(object);
    let failed = |e| ObjstoreError::store("get", &path, e);
    let local = |e| ObjstoreError::local("write", file, e);
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent).map_err(local)?;
    }
    let found = bucket.store()?.get(&path).await.map_err(failed)?;
    let (size, mut came, mut stream) = (found.meta.size, 0, found.into_stream());
    let mut out = tokio::fs::File::create(file).await.map_err(local)?;
    while let Some(part) = stream.next().await {
        let part = part.map_err(failed)?;
        came += part.len() as u64;
        out.write_all(&part).await.map_err(local)?;
    }
    if came != size {
        let detail = format!("{came} bytes came of {size}");
        return Err(ObjstoreError::Store { op: "get", path: path.to_string(), detail });
    }
    out.sync_all().await.map_err(local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BucketConfig;

    #[tokio::test]
    async fn a_block_goes_up_comes_back_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let id = BlockId::from_parts(7, 7);
        let block = dir.path().join("block");
        std::fs::create_dir_all(block.join("chunks")).unwrap();
        let big: Vec<u8> = (0..9_500_000u32).map(|i| (i * 31) as u8).collect();
        std::fs::write(block.join("chunks/000001"), &big).unwrap();
        std::fs::write(block.join("index"), b"index").unwrap();
        std::fs::write(block.join("meta.json"), b"{}").unwrap();

        let bucket = Bucket::open(&BucketConfig::directory(dir.path().join("bucket")), id).await.unwrap();
        upload_block(&bucket, &block, id).await.unwrap();
        let back = fetch_block(&bucket, dir.path(), id).await.unwrap();
        assert_eq!(std::fs::read(back.join("chunks/000001")).unwrap(), big);
        assert_eq!(std::fs::read(back.join("index")).unwrap(), b"index");

        delete_block(&bucket, id).await.unwrap();
        assert!(matches!(fetch_block(&bucket, dir.path(), id).await, Err(ObjstoreError::NotFound(_))));
    }

    #[tokio::test]
    async fn an_upload_without_meta_stays_invisible() {
        let dir = tempfile::tempdir().unwrap();
        let id = BlockId::from_parts(7, 8);
        let block = dir.path().join("block");
        std::fs::create_dir_all(&block).unwrap();
        std::fs::write(block.join("index"), b"index").unwrap();
        let bucket = Bucket::open(&BucketConfig::directory(dir.path().join("bucket")), id).await.unwrap();
        assert!(upload_block(&bucket, &block, id).await.is_err());
        assert!(matches!(bucket.get(&format!("{id}/meta.json")).await, Err(ObjstoreError::NotFound(_))));
    }
}
