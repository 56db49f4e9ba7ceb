//! Writing an index whose texts are known beforehand, in memory that does not grow with the block.
//!
//! A merge knows the texts of its sources, sorted already, so series get their final numbers at once and go straight into
//! the file. Texts lie in a spool beside the index, mapped, with one byte of memory for each; which series have which
//! label is sorted in runs of `RUN_BYTES` that are spooled and merged. Memory: a run, one list of the series of one label, a
//! byte a text. Disk beside the index: the texts, twelve bytes for each label of each series, and the table. Texts that no
//! series has are harmless.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use koios_chunk::varint::put_uvarint;
use koios_model::Labels;

use super::writer::{Out, put_chunks};
use super::{ChunkRef, HEADER_BYTES, INDEX_FILE, MAGIC, SERIES_ALIGN, Toc, VERSION};
use crate::crc::crc32c;
use crate::dec::Dec;
use crate::error::BlockError;
use crate::mmap::map_file;

/// Bytes of a run that is sorted in memory.
const RUN_BYTES: usize = 24 << 20;
/// Texts between two remembered positions.
const STRIDE: usize = 8;
/// Buffer of each spool that is read or written.
const SPOOL_BUFFER: usize = 1 << 16;

/// Builds an index file out of series that come in order.
pub struct SortedIndexWriter {
    out: Out,
    toc: Toc,
    texts: Texts,
    pairs: Pairs,
    last: Option<Labels>,
    /// Numbers of the last series' labels.
    numbers: Vec<(u32, u32)>,
    entry: Vec<u8>,
    head: Vec<u8>,
    dir: PathBuf,
    series_max: u64,
}

impl SortedIndexWriter {
    /// Starts an index in an existing block directory. `texts` are all names and values that series will have, ascending
    /// strictly; the empty text is added.
    ///
    /// # Errors
    /// `BlockError::Io`, `Write` when texts do not ascend, and what `texts` says.
    pub fn create<'a>(
        dir: &Path,
        texts: impl Iterator<Item = Result<&'a str, BlockError>>,
    ) -> Result<Self, BlockError> {
        let texts = Texts::spool(dir, texts)?;
        let mut out = Out::create(&dir.join(INDEX_FILE))?;
        out.write(&MAGIC.to_be_bytes())?;
        out.write(&[VERSION])?;
        let mut toc = Toc { symbols: HEADER_BYTES, ..Toc::default() };
        out.framed_parts(&[&texts.count.to_be_bytes(), &texts.bytes])?;
        toc.series = out.at;
        Ok(Self {
            out,
            toc,
            texts,
            pairs: Pairs::new(dir, RUN_BYTES),
            last: None,
            numbers: Vec::new(),
            entry: Vec::new(),
            head: Vec::new(),
            dir: dir.to_path_buf(),
            series_max: 0,
        })
    }

    /// Adds the next series with its chunks in time order.
    ///
    /// # Errors
    /// `BlockError::Write` when it does not sort after the previous one, its chunks overlap or it has a text that was not
    /// announced, `Io`.
    pub fn add_series(&mut self, labels: &Labels, chunks: &[ChunkRef]) -> Result<(), BlockError> {
        super::writer::check_order(self.last.as_ref(), labels, chunks)?;
        self.number(labels)?;
        self.out.pad_to(SERIES_ALIGN)?;
        let start = self.out.at;
        let number = u32::try_from(start / SERIES_ALIGN)
            .map_err(|_| BlockError::Write("the index would exceed 64 GiB".to_owned()))?;
        self.entry.clear();
        put_uvarint(&mut self.entry, self.numbers.len() as u64);
        self.pairs.push([0, 0, number])?;
        for &(name, value) in &self.numbers {
            put_uvarint(&mut self.entry, u64::from(name));
            put_uvarint(&mut self.entry, u64::from(value));
            self.pairs.push([name, value, number])?;
        }
        put_chunks(&mut self.entry, chunks);
        self.head.clear();
        put_uvarint(&mut self.head, self.entry.len() as u64);
        self.out.write(&self.head)?;
        self.out.write(&self.entry)?;
        self.out.write(&crc32c(&self.entry).to_be_bytes())?;
        self.series_max = self.series_max.max(self.out.at - start);
        self.last = Some(labels.clone());
        Ok(())
    }

    /// Looks the texts of a series up. Series that lie beside each other share most of them.
    fn number(&mut self, labels: &Labels) -> Result<(), BlockError> {
        let before = std::mem::take(&mut self.numbers);
        let mut numbers = Vec::with_capacity(labels.len());
        let last = self.last.as_ref();
        let mut known = last.into_iter().flat_map(Labels::iter).zip(before).peekable();
        for (name, value) in labels {
            while known.next_if(|((n, _), _)| *n < name).is_some() {}
            let same = known.peek().filter(|((n, _), _)| *n == name);
            let name_number = match same {
                Some((_, (number, _))) => *number,
                None => self.texts.number(name)?,
            };
            let value_number = match same.filter(|((_, v), _)| *v == value) {
                Some((_, (_, number))) => *number,
                None => self.texts.number(value)?,
            };
            numbers.push((name_number, value_number));
        }
        self.numbers = numbers;
        Ok(())
    }

    /// Bytes of the file so far: texts and series.
    pub fn bytes(&self) -> u64 {
        self.out.at
    }

    /// Bytes of the largest series entry.
    pub fn series_max(&self) -> u64 {
        self.series_max
    }

    /// Writes the rest of the file, syncs it, and answers its size.
    ///
    /// # Errors
    /// `BlockError::Io`, or `Write` when a section outgrows the format.
    pub fn finish(self) -> Result<u64, BlockError> {
        let Self { mut out, mut toc, texts, pairs, dir, .. } = self;
        // The label indices of old versions: empty sections between series and postings.
        toc.label_indices = out.at;
        toc.postings = out.at;
        let table = write_postings(&mut out, &texts, pairs, &dir)?;
        toc.postings_table = out.at;
        toc.label_indices_table = out.at;
        out.framed_parts(&[&table.0.to_be_bytes(), &table.1])?;
        out.write(&toc.encode())?;
        drop(table);
        for spool in [TABLE, TEXTS] {
            let path = dir.join(spool);
            fs::remove_file(&path).map_err(BlockError::io("remove", &path))?;
        }
        out.finish()
    }
}

const TEXTS: &str = "texts.spool";
const TABLE: &str = "table.spool";

/// All texts, by number.
struct Texts {
    /// As the index has them: length, bytes.
    bytes: Bytes,
    count: u32,
    /// Positions of text 0, 8, 16, …
    samples: Vec<u64>,
}

impl Texts {
    fn spool<'a>(
        dir: &Path,
        texts: impl Iterator<Item = Result<&'a str, BlockError>>,
    ) -> Result<Self, BlockError> {
        let path = dir.join(TEXTS);
        let mut file = spool(&path)?;
        let (mut count, mut at, mut samples, mut head) = (0u32, 0u64, Vec::new(), Vec::new());
        let mut last: Option<String> = None;
        let empty = std::iter::once(Ok(""));
        for text in empty.chain(texts.filter(|t| !matches!(t, Ok("")))) {
            let text = text?;
            if last.as_deref().is_some_and(|l| l >= text) {
                return Err(BlockError::Write(format!(
                    "text {text:?} does not sort after the one before it"
                )));
            }
            if (count as usize).is_multiple_of(STRIDE) {
                samples.push(at);
            }
            head.clear();
            put_uvarint(&mut head, text.len() as u64);
            head.extend_from_slice(text.as_bytes());
            file.write_all(&head).map_err(BlockError::io("write", &path))?;
            at += head.len() as u64;
            count =
                count.checked_add(1).ok_or_else(|| BlockError::Write("more than 2^32 texts".to_owned()))?;
            let kept = last.get_or_insert_default();
            kept.clear();
            kept.push_str(text);
        }
        file.flush().map_err(BlockError::io("write", &path))?;
        Ok(Self { bytes: map_file(&path)?, count, samples })
    }

    fn read(&self, at: u64) -> Result<Dec<'_>, BlockError> {
        Dec::at(&self.bytes, TEXTS, at)
    }

    fn number(&self, text: &str) -> Result<u32, BlockError> {
        let unknown = || BlockError::Write(format!("text {text:?} was not announced"));
        let (mut low, mut high) = (0, self.samples.len());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.read(self.samples[middle])?.text()? <= text {
                low = middle;
            } else {
                high = middle;
            }
        }
        let mut d = self.read(*self.samples.get(low).ok_or_else(unknown)?)?;
        for n in low * STRIDE..((low + 1) * STRIDE).min(self.count as usize) {
            if d.text()? == text {
                return Ok(n as u32);
            }
        }
        Err(unknown())
    }

    fn get(&self, number: u32) -> Result<&str, BlockError> {
        let mut d = self.read(self.samples[number as usize / STRIDE])?;
        for _ in 0..number as usize % STRIDE {
            d.text()?;
        }
        d.text()
    }
}

/// Name, value, series: which series have which label.
type Pair = [u32; 3];

/// Pairs on their way to being sorted.
struct Pairs {
    run: Vec<Pair>,
    run_bytes: usize,
    dir: PathBuf,
    spooled: usize,
}

impl Pairs {
    fn new(dir: &Path, run_bytes: usize) -> Self {
        Self { run: Vec::new(), run_bytes, dir: dir.to_path_buf(), spooled: 0 }
    }

    fn path(&self, n: usize) -> PathBuf {
        self.dir.join(format!("postings.{n}.spool"))
    }

    fn push(&mut self, pair: Pair) -> Result<(), BlockError> {
        self.run.push(pair);
        if self.run.len() * size_of::<Pair>() < self.run_bytes {
            return Ok(());
        }
        self.run.sort_unstable();
        let path = self.path(self.spooled);
        let mut file = spool(&path)?;
        for pair in &self.run {
            pair.iter()
                .try_for_each(|n| file.write_all(&n.to_le_bytes()))
                .map_err(BlockError::io("write", &path))?;
        }
        file.flush().map_err(BlockError::io("write", &path))?;
        self.spooled += 1;
        self.run.clear();
        Ok(())
    }

    /// Calls `each` with all pairs in order; the spools are removed.
    fn sorted(mut self, mut each: impl FnMut(Pair) -> Result<(), BlockError>) -> Result<(), BlockError> {
        self.run.sort_unstable();
        let mut files = Vec::with_capacity(self.spooled);
        for n in 0..self.spooled {
            let path = self.path(n);
            let file = File::open(&path).map_err(BlockError::io("open", &path))?;
            files.push((path, BufReader::with_capacity(SPOOL_BUFFER, file)));
        }
        let mut heads = BinaryHeap::new();
        for (n, file) in files.iter_mut().enumerate() {
            heads.extend(next_pair(file)?.map(|p| Reverse((p, n))));
        }
        let mut rest = self.run.iter().peekable();
        loop {
            let spooled = heads.peek().map(|Reverse((p, _))| *p);
            match (spooled, rest.peek().copied()) {
                (None, None) => break,
                (Some(a), Some(b)) if a > *b => {
                    rest.next();
                    each(*b)?;
                }
                (None, Some(b)) => {
                    rest.next();
                    each(*b)?;
                }
                (Some(a), _) => {
                    let Some(Reverse((_, n))) = heads.pop() else { break };
                    heads.extend(next_pair(&mut files[n])?.map(|p| Reverse((p, n))));
                    each(a)?;
                }
            }
        }
        files.iter().try_for_each(|(path, _)| fs::remove_file(path).map_err(BlockError::io("remove", path)))
    }
}

fn next_pair((path, file): &mut (PathBuf, BufReader<File>)) -> Result<Option<Pair>, BlockError> {
    let mut bytes = [0; size_of::<Pair>()];
    match file.read_exact(&mut bytes) {
        Ok(()) => {
            let n = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
            Ok(Some([n(0), n(4), n(8)]))
        }
        // Runs are whole: the file ends between two pairs.
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(BlockError::io("read", path)(e)),
    }
}

/// Writes all lists; the number of entries and the bytes of the table that finds them.
fn write_postings(
    out: &mut Out,
    texts: &Texts,
    pairs: Pairs,
    dir: &Path,
) -> Result<(u32, Bytes), BlockError> {
    let path = dir.join(TABLE);
    let mut table = spool(&path)?;
    let (mut entries, mut entry, mut list) = (0u32, Vec::new(), Vec::<u8>::new());
    let mut label = (0, 0);
    let mut close =
        |out: &mut Out, (name, value): (u32, u32), list: &mut Vec<u8>| -> Result<(), BlockError> {
            out.pad_to(4)?;
            entry.clear();
            entry.push(2);
            for text in [texts.get(name)?, texts.get(value)?] {
                put_uvarint(&mut entry, text.len() as u64);
                entry.extend_from_slice(text.as_bytes());
            }
            put_uvarint(&mut entry, out.at);
            entries += 1;
            table.write_all(&entry).map_err(BlockError::io("write", &path))?;
            out.framed_parts(&[&((list.len() / 4) as u32).to_be_bytes(), list])?;
            list.clear();
            Ok(())
        };
    pairs.sorted(|[name, value, number]| {
        if (name, value) != label {
            close(out, std::mem::replace(&mut label, (name, value)), &mut list)?;
        }
        list.extend(number.to_be_bytes());
        Ok(())
    })?;
    // An index without series still has the list of all of them.
    close(out, label, &mut list)?;
    table.flush().map_err(BlockError::io("write", &path))?;
    Ok((entries, map_file(&path)?))
}

fn spool(path: &Path) -> Result<BufWriter<File>, BlockError> {
    let file = File::create(path).map_err(BlockError::io("create", path))?;
    Ok(BufWriter::with_capacity(SPOOL_BUFFER, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{IndexReader, IndexWriter};

    fn series(i: usize) -> Labels {
        let (number, group) = (format!("{i:05}"), format!("g{}", i % 7));
        Labels::from_pairs([("__name__", "m"), ("a", &number), ("group", &group)])
    }

    #[test]
    fn the_same_bytes_as_the_writer_that_learns_its_texts() {
        let dir = tempfile::tempdir().unwrap();
        let chunk = |i: i64| ChunkRef { min_time: i, max_time: i + 5, reference: i as u64 * 40 };
        let all: Vec<Labels> = (0..500).map(series).collect();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::create_dir_all(&one).unwrap();
        fs::create_dir_all(&two).unwrap();
        let mut w = IndexWriter::create(&one).unwrap();
        all.iter().enumerate().for_each(|(i, l)| w.add_series(l, &[chunk(i as i64)]).unwrap());
        w.finish().unwrap();
        let reader = IndexReader::open(map_file(&one.join(INDEX_FILE)).unwrap()).unwrap();
        let mut w = SortedIndexWriter::create(&two, reader.texts().unwrap()).unwrap();
        all.iter().enumerate().for_each(|(i, l)| w.add_series(l, &[chunk(i as i64)]).unwrap());
        assert!(w.series_max() > 16);
        let size = w.finish().unwrap();
        let (a, b) = (fs::read(one.join(INDEX_FILE)).unwrap(), fs::read(two.join(INDEX_FILE)).unwrap());
        assert_eq!(a.len() as u64, size);
        assert!(a == b);
        assert_eq!(fs::read_dir(&two).unwrap().count(), 1, "no spool is left");
    }

    #[test]
    fn texts_are_announced_and_runs_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let texts = || ["__name__", "m"].into_iter().map(Ok);
        let mut w = SortedIndexWriter::create(dir.path(), texts()).unwrap();
        assert!(w.add_series(&series(1), &[]).unwrap_err().to_string().contains("was not announced"));
        fs::remove_file(dir.path().join(INDEX_FILE)).unwrap();
        assert!(SortedIndexWriter::create(dir.path(), ["b", "a"].into_iter().map(Ok)).is_err());

        let mut pairs = Pairs::new(dir.path(), 1200);
        let many = 100 * 2 + 10;
        (0..many as u32).for_each(|n| pairs.push([n.wrapping_mul(2_654_435_761) % 10, n % 3, n]).unwrap());
        assert_eq!(pairs.spooled, 2);
        let (mut last, mut count) = ([0; 3], 0);
        pairs
            .sorted(|p| {
                assert!(last <= p);
                (last, count) = (p, count + 1);
                Ok(())
            })
            .unwrap();
        assert_eq!(count, many);
    }
}
