//! A block of an object store, of which only what was asked for is here.
//!
//! Its files lie in the cache directory with their full length and full of holes; `extents` beside them says what is here, so
//! that a restart finds it again. Opening asks for the description, the list of files and, of the index, for symbols and the
//! table of postings lists; everything else is filled in by ranges as questions need it. Owns filling. Refuses to decide what
//! is needed (`prepare`) or what goes (`cache`). Invariants: a range counts as here only after it was written; what is here is
//! still checked by every reader, so a damaged disk or a body cut wrongly gives an error and never an answer. Bounds: 16
//! requests at a time of at most 4 MiB each, two tries of each.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use koios_block::{Block, BlockError, Extents, Present, index_parts};
use koios_model::BlockId;
use koios_objstore::{Bucket, ObjstoreError, ranges, transfer};
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::xxh3_64;

use crate::counts::{Data, StoreCounts};
use crate::error::StoreError;

/// Requests for ranges that are under way at a time.
pub(crate) const REQUESTS_MAX: usize = 16;
/// Tries of one request.
const TRIES: usize = 2;
/// Bytes at the end of an index that are asked for first: the table of contents, and all of a small index.
const TAIL_BYTES: u64 = 2048;
const INDEX: &str = "index";
const TOMBSTONES: &str = "tombstones";
const EXTENTS: &str = "extents";
const MAGIC: &[u8; 8] = b"KOEXTEN1";
/// Largest file of extents that is read.
const EXTENTS_BYTES_MAX: u64 = 256 << 20;

/// One file of the block.
#[derive(Debug)]
struct SparseFile {
    /// Below the block.
    name: String,
    bytes: u64,
    present: Arc<Present>,
}

/// The way to the bucket that all blocks share.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) bucket: Bucket,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) counts: Arc<StoreCounts>,
}

impl Way {
    async fn range(&self, path: &str, range: Range<u64>, data: Data) -> Result<Bytes, ObjstoreError> {
        let _one = self.requests.acquire().await.expect("BUG: nobody closes it");
        let mut tries = 1;
        loop {
            match self.bucket.get_range(path, range.clone()).await {
                Err(ObjstoreError::Store { .. }) if tries < TRIES => tries += 1,
                got => {
                    self.counts.fetched(data, got.as_ref().map_or(0, |b| b.len() as u64));
                    return got;
                }
            }
        }
    }
}

/// What is here of a block.
#[derive(Debug)]
pub(crate) struct Sparse {
    way: Way,
    id: BlockId,
    dir: PathBuf,
    /// The index, then the segments in order.
    files: Vec<SparseFile>,
    /// Whoever fills: two that want the same must not both fetch it.
    pub(crate) filling: tokio::sync::Mutex<()>,
}

impl Sparse {
    /// Fetches what opening needs into `cache/<id>`, whatever was there.
    pub(crate) async fn begin(
        way: Way,
        cache: &Path,
        id: BlockId,
    ) -> Result<Result<Self, BlockError>, StoreError> {
        let meta = way.bucket.get(&format!("{id}/{}", transfer::META)).await?;
        let mut files = vec![];
        let mut tombstones = None;
        for (path, bytes) in way.bucket.list(&id.to_string()).await? {
            match path.strip_prefix(&format!("{id}/")) {
                Some(TOMBSTONES) => tombstones = Some(way.bucket.get(&path).await?),
                Some(name) if name == INDEX || name.starts_with("chunks/") => {
                    files.push(SparseFile { name: name.to_owned(), bytes, present: Arc::default() });
                }
                _ => {}
            }
        }
        files.sort_by(|a, b| (a.name != INDEX, &a.name).cmp(&(b.name != INDEX, &b.name)));
        if files.first().is_none_or(|f| f.name != INDEX) {
            return Err(ObjstoreError::NotFound(format!("{id}/{INDEX}")).into());
        }
        let (tmp, dir) = (cache.join(format!("{id}.fetch.tmp")), cache.join(id.to_string()));
        let sparse = Self { way, id, dir: tmp.clone(), files, filling: tokio::sync::Mutex::default() };
        sparse.lay_out(&meta, tombstones.as_deref()).map_err(|e| local("create", &tmp, e))?;
        if let Err(e) = sparse.fill_header().await? {
            return Ok(Err(e));
        }
        sparse.save().map_err(|e| local("write", &tmp, e))?;
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::rename(&tmp, &dir).map_err(|e| local("rename", &tmp, e))?;
        Ok(Ok(Self { dir, ..sparse }))
    }

    /// What an earlier run left in `dir`; `None` when that says nothing.
    pub(crate) fn resume(way: Way, dir: &Path, id: BlockId) -> Option<Self> {
        let path = dir.join(EXTENTS);
        if std::fs::metadata(&path).ok()?.len() > EXTENTS_BYTES_MAX {
            return None;
        }
        let files = decode(&std::fs::read(&path).ok()?)?;
        let whole = |f: &SparseFile| std::fs::metadata(dir.join(&f.name)).is_ok_and(|m| m.len() == f.bytes);
        if files.first().is_none_or(|f| f.name != INDEX) || !files.iter().all(whole) {
            return None;
        }
        Some(Self { way, id, dir: dir.to_path_buf(), files, filling: tokio::sync::Mutex::default() })
    }

    /// Opens it. Reads files.
    pub(crate) fn open(&self) -> Result<Block, BlockError> {
        let mut present = self.files.iter().map(|f| f.present.clone());
        let index = present.next().unwrap_or_default();
        Block::open_sparse(&self.dir, index, present.collect())
    }

    fn lay_out(&self, meta: &[u8], tombstones: Option<&[u8]>) -> std::io::Result<()> {
        let _ = std::fs::remove_dir_all(&self.dir);
        std::fs::create_dir_all(self.dir.join("chunks"))?;
        std::fs::write(self.dir.join(transfer::META), meta)?;
        if let Some(bytes) = tombstones {
            std::fs::write(self.dir.join(TOMBSTONES), bytes)?;
        }
        self.files.iter().try_for_each(|f| File::create(self.dir.join(&f.name))?.set_len(f.bytes))
    }

    async fn fill_header(&self) -> Result<Result<(), BlockError>, StoreError> {
        let index = &self.files[0];
        let from = index.bytes.saturating_sub(TAIL_BYTES);
        let path = format!("{}/{INDEX}", self.id);
        let tail = self.way.range(&path, from..index.bytes, Data::Header).await?;
        let parts = match index_parts(&tail, index.bytes) {
            Ok(parts) => parts,
            Err(e) => return Ok(Err(e)),
        };
        self.write(index, from, tail).await?;
        let needed = parts.iter().map(|p| p.end - p.start).sum();
        self.fill(None, parts.to_vec(), Data::Header).await?;
        self.way.counts.touched(Data::Header, parts.len() as u64, needed);
        Ok(Ok(()))
    }

    fn file(&self, segment: Option<usize>) -> Option<&SparseFile> {
        self.files.get(segment.map_or(0, |s| s + 1))
    }

    /// What is here of the index (`None`) or a segment.
    pub(crate) fn present(&self, segment: Option<usize>) -> Option<&Present> {
        self.file(segment).map(|f| &*f.present)
    }

    /// Counts of the bucket's requests.
    pub(crate) fn counts(&self) -> &StoreCounts {
        &self.way.counts
    }

    /// Fetches what is not here of some ranges of the index (`None`) or a segment.
    ///
    /// # Errors
    /// What the bucket or the disk says; what came before stays.
    pub(crate) async fn fill(
        &self,
        segment: Option<usize>,
        wanted: Vec<Range<u64>>,
        data: Data,
    ) -> Result<(), StoreError> {
        let Some(file) = self.file(segment) else { return Ok(()) };
        let missing = file.present.missing(wanted.into_iter().map(|r| r.start..r.end.min(file.bytes)));
        let path = format!("{}/{}", self.id, file.name);
        let one = |part: Range<u64>| {
            let path = &path;
            async move {
                let bytes = self.way.range(path, part.clone(), data).await?;
                self.write(file, part.start, bytes).await
            }
        };
        stream::iter(ranges::joined(missing)).map(one).buffer_unordered(REQUESTS_MAX).try_collect().await
    }

    async fn write(&self, file: &SparseFile, at: u64, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.dir.join(&file.name);
        let end = at + bytes.len() as u64;
        let work = move || {
            let written = OpenOptions::new().write(true).open(&path).and_then(|f| f.write_all_at(&bytes, at));
            written.map_err(|e| local("write", &path, e))
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| self.lost(&e))??;
        file.present.add(at..end);
        Ok(())
    }

    fn lost(&self, e: &tokio::task::JoinError) -> StoreError {
        StoreError::Damaged { id: self.id, detail: e.to_string() }
    }

    /// Writes down what is here. After it was written: a crash between leaves holes that are no holes, which are fetched again.
    pub(crate) fn save(&self) -> std::io::Result<()> {
        let mut out = MAGIC.to_vec();
        for file in &self.files {
            let extents: Vec<Range<u64>> = file.present.extents().iter().collect();
            out.extend((file.name.len() as u32).to_le_bytes());
            out.extend(file.name.as_bytes());
            out.extend(file.bytes.to_le_bytes());
            out.extend((extents.len() as u64).to_le_bytes());
            for r in extents {
                out.extend(r.start.to_le_bytes());
                out.extend(r.end.to_le_bytes());
            }
        }
        out.extend(xxh3_64(&out).to_le_bytes());
        let (tmp, path) = (self.dir.join("extents.tmp"), self.dir.join(EXTENTS));
        std::fs::write(&tmp, out)?;
        std::fs::rename(&tmp, &path)
    }
}

fn local(op: &'static str, path: &Path, e: std::io::Error) -> StoreError {
    ObjstoreError::Local { op, path: path.display().to_string(), detail: e.to_string() }.into()
}

fn decode(bytes: &[u8]) -> Option<Vec<SparseFile>> {
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    if xxh3_64(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut files = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (name, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = after;
        let bytes = number(&mut rest)?;
        let mut extents = Extents::default();
        for _ in 0..number(&mut rest)? {
            let (start, end) = (number(&mut rest)?, number(&mut rest)?);
            extents.add(start..end);
        }
        let name = String::from_utf8(name.to_vec()).ok()?;
        files.push(SparseFile { name, bytes, present: Arc::new(Present::new(extents)) });
    }
    Some(files)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (read, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*read))
}
