//! Chunk segments: `chunks/000001` and so on.
//!
//! Layout (Prometheus `tsdb/docs/format/chunks.md`): magic, version 1, three zero bytes, then entries of
//! uvarint length, encoding byte, data, CRC32C over encoding and data. A chunk's reference is the segment's
//! index from 0 in the upper 32 bits and the entry's byte offset in the lower. Invariant: a chunk handed out
//! has passed its checksum.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use koios_chunk::{Chunk, ChunkError, Encoding, varint};
use koios_model::failpoint::{self, Watched};

use crate::crc::{Crc, crc32c};
use crate::dec::{Dec, damaged};
use crate::error::BlockError;
use crate::extents::Present;
use crate::index::ChunkRef;
use crate::meta::FileEntry;
use crate::mmap::map_file;

const MAGIC: u32 = 0x85bd_40dd;
const VERSION: u8 = 1;
/// Magic, version, padding.
pub(crate) const HEADER_BYTES: usize = 8;
/// A segment is closed before it would grow past this.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 512 << 20;
/// Most segments of one block that are opened.
const SEGMENTS_MAX: usize = 100_000;

/// The mapped segments of one block.
#[derive(Debug)]
pub struct SegmentReader {
    segments: Vec<(String, Bytes)>,
    /// What is here of each; empty means everything of all.
    present: Vec<Arc<Present>>,
}

impl SegmentReader {
    /// Maps all segments below `<block>/chunks`.
    ///
    /// # Errors
    /// `BlockError::Io`, `Damaged` when a header is wrong or a number in the sequence is missing.
    pub fn open(block: &Path) -> Result<Self, BlockError> {
        let found = Self::map(block)?;
        found.segments.iter().try_for_each(|(file, bytes)| check_header(bytes, file))?;
        Ok(found)
    }

    /// As `open`, of segments of which only `present` is here; headers may be holes.
    pub(crate) fn open_sparse(block: &Path, present: Vec<Arc<Present>>) -> Result<Self, BlockError> {
        Ok(Self { present, ..Self::map(block)? })
    }

    fn map(block: &Path) -> Result<Self, BlockError> {
        let dir = block.join("chunks");
        let mut names: Vec<String> = Vec::new();
        for entry in fs::read_dir(&dir).map_err(BlockError::io("list", &dir))? {
            let entry = entry.map_err(BlockError::io("list", &dir))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
                names.push(name);
            }
        }
        names.sort();
        names.truncate(SEGMENTS_MAX);
        let mut segments = Vec::with_capacity(names.len());
        for (i, name) in names.into_iter().enumerate() {
            let file = format!("chunks/{name}");
            if name.parse() != Ok(i + 1) {
                return Err(damaged(&file, 0, "a segment before this one is missing"));
            }
            segments.push((file, map_file(&dir.join(&name))?));
        }
        Ok(Self { segments, present: Vec::new() })
    }

    /// Segments over bytes that are already at hand.
    ///
    /// # Errors
    /// `BlockError::Damaged`, `Version` when a header is wrong.
    pub fn from_bytes(segments: Vec<Bytes>) -> Result<Self, BlockError> {
        let named = segments.into_iter().enumerate();
        let segments: Vec<_> = named.map(|(i, b)| (format!("chunks/{:06}", i + 1), b)).collect();
        segments.iter().try_for_each(|(file, bytes)| check_header(bytes, file))?;
        Ok(Self { segments, present: Vec::new() })
    }

    /// Reads one chunk; the data is a slice of the mapping, not a copy.
    ///
    /// # Errors
    /// `BlockError::Damaged` for a bad reference or checksum, `Chunk` for an unknown encoding.
    pub fn chunk(&self, at: &ChunkRef) -> Result<Chunk, BlockError> {
        let (encoding, bytes, data) = self.locate(at.reference)?;
        Ok(Chunk { min_time: at.min_time, max_time: at.max_time, encoding, data: bytes.slice(data) })
    }

    /// Encoding and data of a chunk, for whoever is through with it before the next.
    pub(crate) fn data(&self, at: &ChunkRef) -> Result<(Encoding, &[u8]), BlockError> {
        let (encoding, bytes, data) = self.locate(at.reference)?;
        Ok((encoding, &bytes[data]))
    }

    /// Number of bytes of a chunk's data, without looking at them.
    pub(crate) fn data_len(&self, at: &ChunkRef) -> Result<u64, BlockError> {
        let (file, bytes, offset) = self.segment(at.reference)?;
        self.here(at.reference, Dec::at(bytes, file, offset)?.uvarint(), 1)
    }

    /// Where a chunk lies in its segment, as its first bytes say.
    pub(crate) fn range(&self, reference: u64) -> Result<Range<u64>, BlockError> {
        let (file, bytes, offset) = self.segment(reference)?;
        let mut d = Dec::at(bytes, file, offset)?;
        let len = d.uvarint()?;
        // Encoding and checksum.
        let end = d.offset().saturating_add(len).saturating_add(5);
        if end > bytes.len() as u64 {
            return Err(damaged(file, offset, "ends too early"));
        }
        Ok(offset..end)
    }

    /// Checks a chunk as reading it does.
    pub(crate) fn check(&self, reference: u64) -> Result<(), BlockError> {
        self.locate(reference).map(drop)
    }

    /// Bytes of a segment, counted from 0; 0 when there is none.
    pub(crate) fn segment_bytes(&self, segment: usize) -> u64 {
        self.segments.get(segment).map_or(0, |(_, b)| b.len() as u64)
    }

    /// What was read, or that the first `len` bytes of the chunk are not here.
    fn here<T>(&self, reference: u64, read: Result<T, BlockError>, len: u64) -> Result<T, BlockError> {
        let offset = reference & 0xffff_ffff;
        let Some(present) = self.present.get((reference >> 32) as usize) else { return read };
        match present.covers(offset..offset.saturating_add(len)) {
            true => read,
            false => {
                let (file, ..) = self.segment(reference)?;
                Err(BlockError::Absent { file: file.to_owned(), offset })
            }
        }
    }

    fn segment(&self, reference: u64) -> Result<(&str, &Bytes, u64), BlockError> {
        let segment = (reference >> 32) as usize;
        match self.segments.get(segment) {
            Some((file, bytes)) => Ok((file, bytes, reference & 0xffff_ffff)),
            None => Err(damaged("chunks", reference, "reference names a segment that does not exist")),
        }
    }

    /// Encoding of a chunk, and where its data lies in which segment; its checksum is right.
    fn locate(&self, reference: u64) -> Result<(Encoding, &Bytes, Range<usize>), BlockError> {
        let found = self.checked(reference);
        match found {
            Err(e) if !self.present.is_empty() => {
                let len = self.range(reference).map_or(1, |r| r.end - r.start);
                self.here(reference, Err(e), len)
            }
            found => found,
        }
    }

    fn checked(&self, reference: u64) -> Result<(Encoding, &Bytes, Range<usize>), BlockError> {
        let (file, bytes, offset) = self.segment(reference)?;
        let mut d = Dec::at(bytes, file, offset)?;
        let len = usize::try_from(d.uvarint()?).map_err(|_| d.damaged("length does not fit"))?;
        let start = d.offset() as usize;
        let body = d.take(len.saturating_add(1))?;
        if d.be32()? != crc32c(body) {
            return Err(damaged(file, offset, "checksum of a chunk does not match"));
        }
        let encoding = Encoding::from_u8(body[0])
            .ok_or(BlockError::Chunk { reference, source: ChunkError::UnknownEncoding(body[0]) })?;
        Ok((encoding, bytes, start + 1..start + 1 + len))
    }

    /// Bytes of all segments.
    pub fn total_bytes(&self) -> u64 {
        self.segments.iter().map(|(_, b)| b.len() as u64).sum()
    }
}

fn check_header(bytes: &[u8], file: &str) -> Result<(), BlockError> {
    let mut d = Dec::at(bytes, file, 0)?;
    if d.be32()? != MAGIC {
        return Err(damaged(file, 0, "magic number is not that of a chunk segment"));
    }
    let version = d.u8()?;
    if version != VERSION {
        return Err(BlockError::Version { file: "chunk segment", version });
    }
    Ok(())
}

/// Writes segments in order.
pub struct SegmentWriter {
    dir: PathBuf,
    limit: u64,
    current: Option<BufWriter<Watched<File>>>,
    at: u64,
    finished: Vec<FileEntry>,
    head: Vec<u8>,
}

impl SegmentWriter {
    /// Starts in `<block>/chunks`, which must exist; segments stay below `limit` bytes (512 MiB in Prometheus).
    pub fn new(block: &Path, limit: Option<u64>) -> Self {
        let limit = limit.unwrap_or(SEGMENT_BYTES_MAX).min(u64::from(u32::MAX));
        let dir = block.join("chunks");
        Self { dir, limit, current: None, at: 0, finished: Vec::new(), head: Vec::new() }
    }

    /// Appends a chunk and answers its reference.
    ///
    /// # Errors
    /// `BlockError::Io`.
    pub fn add(&mut self, chunk: &Chunk) -> Result<ChunkRef, BlockError> {
        self.head.clear();
        varint::put_uvarint(&mut self.head, chunk.data.len() as u64);
        self.head.push(chunk.encoding as u8);
        let mut crc = Crc::new();
        crc.update(&self.head[self.head.len() - 1..]);
        crc.update(&chunk.data);
        let size = (self.head.len() + chunk.data.len() + 4) as u64;
        if self.current.is_none() || self.at + size > self.limit && self.at > HEADER_BYTES as u64 {
            self.next_segment()?;
        }
        let offset = self.at;
        let path = self.path(self.finished.len());
        let Some(file) = &mut self.current else { unreachable!("BUG: a segment was just opened") };
        let crc = crc.finish().to_be_bytes();
        [&self.head[..], &chunk.data, &crc]
            .iter()
            .try_for_each(|part| file.write_all(part))
            .map_err(BlockError::io("write", &path))?;
        self.at += size;
        let reference = ((self.finished.len() as u64) << 32) | offset;
        Ok(ChunkRef { min_time: chunk.min_time, max_time: chunk.max_time, reference })
    }

    /// Syncs everything and answers the files with their sizes, relative to the block.
    ///
    /// # Errors
    /// `BlockError::Io`.
    pub fn finish(mut self) -> Result<Vec<FileEntry>, BlockError> {
        self.close()?;
        crate::dir::sync_dir(&self.dir)?;
        Ok(self.finished)
    }

    fn path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("{:06}", index + 1))
    }

    fn next_segment(&mut self) -> Result<(), BlockError> {
        self.close()?;
        let path = self.path(self.finished.len());
        let file = File::create_new(&path).map_err(BlockError::io("create", &path))?;
        let mut file = BufWriter::with_capacity(1 << 20, Watched::new("chunks write", file));
        let mut header = MAGIC.to_be_bytes().to_vec();
        header.extend([VERSION, 0, 0, 0]);
        file.write_all(&header).map_err(BlockError::io("write", &path))?;
        self.current = Some(file);
        self.at = HEADER_BYTES as u64;
        Ok(())
    }

    fn close(&mut self) -> Result<(), BlockError> {
        let Some(file) = self.current.take() else { return Ok(()) };
        let path = self.path(self.finished.len());
        let file =
            file.into_inner().map_err(|e| BlockError::io("write", &path)(e.into_error()))?.into_inner();
        failpoint::pass("chunks sync");
        file.sync_all().map_err(BlockError::io("sync", &path))?;
        let rel_path = format!("chunks/{:06}", self.finished.len() + 1);
        self.finished.push(FileEntry { rel_path, size_bytes: self.at, ..FileEntry::default() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: u8, len: usize) -> Chunk {
        Chunk { min_time: 1, max_time: 2, encoding: Encoding::Xor, data: vec![n; len].into() }
    }

    #[test]
    fn golden_bytes_and_round_trip_over_segments() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("chunks")).unwrap();
        let mut w = SegmentWriter::new(dir.path(), Some(64));
        let refs: Vec<_> = (0..9).map(|i| w.add(&chunk(i, 10 + usize::from(i))).unwrap()).collect();
        let files = w.finish().unwrap();
        assert!(files.len() > 2);
        assert_eq!(refs[0].reference, 8);
        let first = fs::read(dir.path().join("chunks/000001")).unwrap();
        assert_eq!(first[..10], [0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0, 10, 1]);
        assert_eq!(first.len() as u64, files[0].size_bytes);

        let r = SegmentReader::open(dir.path()).unwrap();
        for (i, at) in refs.iter().enumerate() {
            assert_eq!(r.chunk(at).unwrap(), chunk(i as u8, 10 + i));
        }
        let off = ChunkRef { reference: refs[0].reference + 1, ..refs[0] };
        assert!(r.chunk(&off).is_err());
        assert!(r.chunk(&ChunkRef { reference: 99 << 32, ..refs[0] }).is_err());
        fs::remove_file(dir.path().join("chunks/000001")).unwrap();
        assert!(SegmentReader::open(dir.path()).unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn a_flipped_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("chunks")).unwrap();
        let mut w = SegmentWriter::new(dir.path(), None);
        let at = w.add(&chunk(7, 20)).unwrap();
        w.finish().unwrap();
        let good = fs::read(dir.path().join("chunks/000001")).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            let read = SegmentReader::from_bytes(vec![bad.into()]).and_then(|r| r.chunk(&at));
            let padding = (5..8).contains(&i);
            assert_eq!(read.is_ok(), padding, "flip at {i}");
        }
    }
}
