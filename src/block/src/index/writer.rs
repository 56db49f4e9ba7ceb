//! Writing the index, series by series in sorted order.
//!
//! Symbols stand before the series in the file but are known only after the last one, so series are first
//! spooled to a file beside the index with provisional symbol numbers and renumbered at the end. Memory is the
//! symbols plus four bytes per label of every series. Refuses unsorted series and unsorted or overlapping chunks.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use koios_chunk::varint::{put_uvarint, put_varint};
use koios_model::Labels;
use koios_model::failpoint::{self, Watched};

use super::{ChunkRef, HEADER_BYTES, INDEX_FILE, MAGIC, SERIES_ALIGN, Toc, VERSION};
use crate::crc::{Crc, crc32c};
use crate::dec::Dec;
use crate::error::BlockError;

/// Largest symbol, postings or table section: their lengths are 32 bits.
const SECTION_BYTES_MAX: u64 = u32::MAX as u64;
/// Most bytes of one spooled series, a bound for reading it back.
const SPOOL_ENTRY_MAX: usize = 1 << 30;

/// Builds an index file.
pub struct IndexWriter {
    dir: PathBuf,
    symbols: HashMap<Box<str>, u32>,
    spool: BufWriter<File>,
    series: u64,
    bytes: u64,
    last: Option<Labels>,
    entry: Vec<u8>,
}

impl IndexWriter {
    /// Starts an index in an existing block directory.
    ///
    /// # Errors
    /// `BlockError::Io`.
    pub fn create(dir: &Path) -> Result<Self, BlockError> {
        let path = spool_path(dir);
        let spool = File::create_new(&path).map_err(BlockError::io("create", &path))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            symbols: HashMap::from([("".into(), 0)]),
            spool: BufWriter::with_capacity(1 << 18, spool),
            series: 0,
            bytes: 0,
            last: None,
            entry: Vec::new(),
        })
    }

    /// Adds the next series with its chunks in time order.
    ///
    /// # Errors
    /// `BlockError::Write` when it does not sort after the previous one or its chunks overlap, `Io`.
    pub fn add_series(&mut self, labels: &Labels, chunks: &[ChunkRef]) -> Result<(), BlockError> {
        check_order(self.last.as_ref(), labels, chunks)?;
        self.entry.clear();
        let mut entry = std::mem::take(&mut self.entry);
        put_uvarint(&mut entry, labels.len() as u64);
        for (name, value) in labels {
            put_uvarint(&mut entry, u64::from(self.symbol(name)?));
            put_uvarint(&mut entry, u64::from(self.symbol(value)?));
        }
        put_chunks(&mut entry, chunks);
        let path = spool_path(&self.dir);
        let len = (entry.len() as u32).to_be_bytes();
        self.spool
            .write_all(&len)
            .and_then(|()| self.spool.write_all(&entry))
            .map_err(BlockError::io("write", &path))?;
        self.bytes += entry.len() as u64 + SERIES_ALIGN;
        self.entry = entry;
        self.series += 1;
        self.last = Some(labels.clone());
        Ok(())
    }

    /// About how many bytes the series take so far.
    pub fn series_bytes(&self) -> u64 {
        self.bytes
    }

    fn symbol(&mut self, text: &str) -> Result<u32, BlockError> {
        if let Some(&n) = self.symbols.get(text) {
            return Ok(n);
        }
        let n = u32::try_from(self.symbols.len())
            .map_err(|_| BlockError::Write("more than 2^32 distinct label texts in one block".to_owned()))?;
        self.symbols.insert(text.into(), n);
        Ok(n)
    }

    /// Writes the file, syncs it, and answers its size.
    ///
    /// # Errors
    /// `BlockError::Io`, or `Write` when a section outgrows the format.
    pub fn finish(self) -> Result<u64, BlockError> {
        let spool_path = spool_path(&self.dir);
        self.spool.into_inner().map_err(|e| BlockError::io("write", &spool_path)(e.into_error()))?;
        let mut sorted: Vec<(&str, u32)> = self.symbols.iter().map(|(s, &n)| (&**s, n)).collect();
        sorted.sort_unstable();
        let mut renumber = vec![0u32; sorted.len()];
        for (new, &(_, old)) in sorted.iter().enumerate() {
            renumber[old as usize] = new as u32;
        }
        let symbols: Vec<&str> = sorted.into_iter().map(|(s, _)| s).collect();

        let mut out = Out::create(&self.dir.join(INDEX_FILE))?;
        out.write(&MAGIC.to_be_bytes())?;
        out.write(&[VERSION])?;
        let mut toc = Toc { symbols: HEADER_BYTES, ..Toc::default() };
        write_symbols(&mut out, &symbols)?;
        toc.series = out.at;
        let postings = write_series(&mut out, &spool_path, self.series, &renumber)?;
        // The label indices of old versions: empty sections between series and postings.
        toc.label_indices = out.at;
        toc.postings = out.at;
        let table = write_postings(&mut out, &symbols, postings)?;
        toc.postings_table = out.at;
        toc.label_indices_table = out.at;
        out.framed(&table)?;
        out.write(&toc.encode())?;
        fs::remove_file(&spool_path).map_err(BlockError::io("remove", &spool_path))?;
        out.finish()
    }
}

/// Series ascend, and so do the chunks of each.
pub(super) fn check_order(
    last: Option<&Labels>,
    labels: &Labels,
    chunks: &[ChunkRef],
) -> Result<(), BlockError> {
    if last.is_some_and(|last| last >= labels) {
        return Err(BlockError::Write(format!("series {labels} does not sort after the one before it")));
    }
    if chunks.windows(2).any(|w| w[0].max_time >= w[1].min_time)
        || chunks.iter().any(|c| c.min_time > c.max_time)
    {
        return Err(BlockError::Write(format!("chunks of series {labels} are not in time order")));
    }
    Ok(())
}

fn spool_path(dir: &Path) -> PathBuf {
    dir.join("series.spool")
}

pub(super) fn put_chunks(entry: &mut Vec<u8>, chunks: &[ChunkRef]) {
    put_uvarint(entry, chunks.len() as u64);
    let mut before: Option<&ChunkRef> = None;
    for c in chunks {
        match before {
            None => {
                put_varint(entry, c.min_time);
                put_uvarint(entry, c.max_time.wrapping_sub(c.min_time) as u64);
                put_uvarint(entry, c.reference);
            }
            Some(b) => {
                put_uvarint(entry, c.min_time.wrapping_sub(b.max_time) as u64);
                put_uvarint(entry, c.max_time.wrapping_sub(c.min_time) as u64);
                put_varint(entry, c.reference.wrapping_sub(b.reference) as i64);
            }
        }
        before = Some(c);
    }
}

fn write_symbols(out: &mut Out, symbols: &[&str]) -> Result<(), BlockError> {
    let mut section = (symbols.len() as u32).to_be_bytes().to_vec();
    for s in symbols {
        put_uvarint(&mut section, s.len() as u64);
        section.extend_from_slice(s.as_bytes());
    }
    out.framed(&section)
}

/// Numbers of the series of one label, by symbol numbers of name and value.
type Postings = HashMap<(u32, u32), Vec<u32>>;

fn write_series(out: &mut Out, spool: &Path, count: u64, renumber: &[u32]) -> Result<Postings, BlockError> {
    let file = File::open(spool).map_err(BlockError::io("open", spool))?;
    let mut file = BufReader::with_capacity(1 << 18, file);
    let (mut raw, mut entry, mut head) = (Vec::new(), Vec::new(), Vec::new());
    let mut postings = Postings::new();
    for _ in 0..count {
        let mut len = [0; 4];
        file.read_exact(&mut len).map_err(BlockError::io("read", spool))?;
        raw.resize((u32::from_be_bytes(len) as usize).min(SPOOL_ENTRY_MAX), 0);
        file.read_exact(&mut raw).map_err(BlockError::io("read", spool))?;

        out.pad_to(SERIES_ALIGN)?;
        let number = u32::try_from(out.at / SERIES_ALIGN)
            .map_err(|_| BlockError::Write("the index would exceed 64 GiB".to_owned()))?;
        let mut d = Dec::at(&raw, "series.spool", 0)?;
        let labels = d.uvarint()?;
        entry.clear();
        put_uvarint(&mut entry, labels);
        for _ in 0..labels {
            let pair = (renumber[d.uvarint()? as usize], renumber[d.uvarint()? as usize]);
            put_uvarint(&mut entry, u64::from(pair.0));
            put_uvarint(&mut entry, u64::from(pair.1));
            postings.entry(pair).or_default().push(number);
        }
        postings.entry((0, 0)).or_default().push(number);
        entry.extend_from_slice(d.rest());
        head.clear();
        put_uvarint(&mut head, entry.len() as u64);
        out.write(&head)?;
        out.write(&entry)?;
        out.write(&crc32c(&entry).to_be_bytes())?;
    }
    Ok(postings)
}

/// Writes all lists and answers the content of the table that finds them.
fn write_postings(out: &mut Out, symbols: &[&str], mut postings: Postings) -> Result<Vec<u8>, BlockError> {
    // An index without series still has the list of all of them.
    postings.entry((0, 0)).or_default();
    let pairs: BTreeSet<(u32, u32)> = postings.keys().copied().collect();
    let mut table = (pairs.len() as u32).to_be_bytes().to_vec();
    let mut list = Vec::new();
    for pair in pairs {
        let numbers = postings.remove(&pair).unwrap_or_default();
        out.pad_to(4)?;
        table.push(2);
        for symbol in [pair.0, pair.1] {
            let text = symbols[symbol as usize];
            put_uvarint(&mut table, text.len() as u64);
            table.extend_from_slice(text.as_bytes());
        }
        put_uvarint(&mut table, out.at);
        list.clear();
        list.extend((numbers.len() as u32).to_be_bytes());
        numbers.iter().for_each(|n| list.extend(n.to_be_bytes()));
        out.framed(&list)?;
    }
    Ok(table)
}

/// The index file with its position.
pub(super) struct Out {
    file: BufWriter<Watched<File>>,
    path: PathBuf,
    pub(super) at: u64,
}

impl Out {
    pub(super) fn create(path: &Path) -> Result<Self, BlockError> {
        let file = File::create_new(path).map_err(BlockError::io("create", path))?;
        Ok(Self {
            file: BufWriter::with_capacity(1 << 20, Watched::new("index write", file)),
            path: path.to_path_buf(),
            at: 0,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        self.file.write_all(bytes).map_err(BlockError::io("write", &self.path))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn pad_to(&mut self, align: u64) -> Result<(), BlockError> {
        let pad = (align - self.at % align) % align;
        self.write(&[0u8; SERIES_ALIGN as usize][..pad as usize])
    }

    /// Length, content, checksum.
    fn framed(&mut self, content: &[u8]) -> Result<(), BlockError> {
        self.framed_parts(&[content])
    }

    /// The same of a content in parts.
    pub(super) fn framed_parts(&mut self, parts: &[&[u8]]) -> Result<(), BlockError> {
        let bytes: usize = parts.iter().map(|p| p.len()).sum();
        let len = u32::try_from(bytes).map_err(|_| {
            BlockError::Write(format!("a section of {bytes} bytes exceeds {SECTION_BYTES_MAX}"))
        })?;
        let mut crc = Crc::new();
        self.write(&len.to_be_bytes())?;
        for part in parts {
            crc.update(part);
            self.write(part)?;
        }
        self.write(&crc.finish().to_be_bytes())
    }

    pub(super) fn finish(self) -> Result<u64, BlockError> {
        let file = self.file.into_inner().map_err(|e| BlockError::io("write", &self.path)(e.into_error()))?;
        let file = file.into_inner();
        failpoint::pass("index sync");
        file.sync_all().map_err(BlockError::io("sync", &self.path))?;
        Ok(self.at)
    }
}
