//! A Prometheus log as a whole: newest checkpoint, segments after it, the out-of-order log.
//!
//! Read twice: first who the series are and what was deleted, then the samples. A stretch that cannot be read costs
//! the records in it and is reported; a torn end of the last segment is the ordinary trace of a crash.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hashbrown::HashMap;
use koios_model::{Exemplar, Labels};

use super::head_chunks::{HeadChunk, read_head_chunks};
use super::pages::{Found, Records};
use super::records::{Record, decode_record};
use crate::error::TsdbError;
use crate::shard::Damage;
use crate::types::Value;

/// Largest segment or head chunk file that is read; Prometheus writes 256 MiB at most.
const FILE_MAX: u64 = 1 << 30;

/// What reading a log came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Files read.
    pub files: u64,
    /// Series records.
    pub series: u64,
    /// Samples handed out.
    pub samples: u64,
    /// Samples in deleted ranges, passed over.
    pub deleted: u64,
    /// Samples of series without a series record.
    pub unknown_samples: u64,
    /// Exemplars, which have no place here yet.
    pub exemplars: u64,
    /// Records of types that are not known.
    pub unknown_records: u64,
    /// Files that end within a record, as after a crash.
    pub torn: u64,
    /// Everything else that could not be read.
    pub damaged: Vec<Damage>,
}

/// A log that was read once.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    /// In reading order; true for the last one of its kind, whose end may be torn.
    files: Vec<(PathBuf, bool)>,
    series: HashMap<u64, Labels>,
    deleted: HashMap<u64, Vec<(i64, i64)>>,
    /// What was found so far.
    pub report: LogReport,
}

/// Takes a sample: labels and reference of its series, time, value.
pub type Visit<'a> = dyn FnMut(&Labels, u64, i64, Value) -> Result<(), TsdbError> + 'a;

impl Log {
    /// Finds the files of the data directory `dir` and reads series and deletions.
    ///
    /// # Errors
    /// `TsdbError::Io`; `Foreign` for a log that cannot be taken over without losing something silently.
    pub fn open(dir: &Path) -> Result<Self, TsdbError> {
        let mut log = Self {
            dir: dir.to_path_buf(),
            files: files(dir)?,
            series: HashMap::new(),
            deleted: HashMap::new(),
            report: LogReport::default(),
        };
        for (path, last) in log.files.clone() {
            log.first_pass(&path, last)?;
        }
        Ok(log)
    }

    /// Labels of a series.
    pub fn labels(&self, series: u64) -> Option<&Labels> {
        self.series.get(&series)
    }

    fn first_pass(&mut self, path: &Path, last: bool) -> Result<(), TsdbError> {
        let bytes = read(path)?;
        self.report.files += 1;
        let mut bad: Vec<(usize, &'static str)> = Vec::new();
        for found in Records::new(&bytes) {
            let record = match found {
                Found::Bad { offset, what } => {
                    bad.push((offset, what));
                    continue;
                }
                Found::Record(r) => r,
            };
            match decode_record(&record) {
                Ok(Record::Series(series)) => {
                    self.report.series += series.len() as u64;
                    self.series.extend(series);
                }
                Ok(Record::Tombstones(stones)) => {
                    stones.into_iter().for_each(|(r, a, b)| self.deleted.entry(r).or_default().push((a, b)));
                }
                Ok(Record::WithStarts(kind)) => {
                    return Err(TsdbError::Foreign(format!(
                        "{} has a record of type {kind}: samples with start timestamps cannot be read yet; \
                         fix: let that Prometheus cut its head into blocks with the feature switched off",
                        path.display()
                    )));
                }
                Ok(Record::Exemplars(found)) => self.report.exemplars += found.len() as u64,
                Ok(Record::Unknown(_)) => self.report.unknown_records += 1,
                Ok(_) => {}
                Err(what) => self.damage(path, 0, what),
            }
        }
        for (i, (offset, what)) in bad.iter().enumerate() {
            if last && i + 1 == bad.len() && bytes.len() - offset <= 2 * (32 << 10) {
                self.report.torn += 1;
            } else {
                self.damage(path, *offset, what);
            }
        }
        Ok(())
    }

    fn damage(&mut self, path: &Path, offset: usize, what: &str) {
        let file = path.strip_prefix(&self.dir).unwrap_or(path).display().to_string();
        tracing::warn!(%file, offset, what, "foreign log is damaged");
        self.report.damaged.push(Damage { file, offset: offset as u64, bytes: 0, what: what.to_owned() });
    }

    /// Hands out all samples in the order of the log, deleted ones left out.
    ///
    /// # Errors
    /// `TsdbError::Io`, and what `visit` answers.
    pub fn samples(&mut self, visit: &mut Visit<'_>) -> Result<(), TsdbError> {
        for (path, _) in self.files.clone() {
            let bytes = read(&path)?;
            for found in Records::new(&bytes) {
                let Found::Record(record) = found else { continue };
                // What does not decode was reported by the first pass.
                let Ok(Record::Samples(samples)) = decode_record(&record) else { continue };
                for (series, t, v) in samples {
                    let Some(labels) = self.series.get(&series) else {
                        self.report.unknown_samples += 1;
                        continue;
                    };
                    if is_deleted(&self.deleted, series, t) {
                        self.report.deleted += 1;
                        continue;
                    }
                    self.report.samples += 1;
                    visit(labels, series, t, v)?;
                }
            }
        }
        Ok(())
    }

    /// Hands out all exemplars of known series in the order of the log.
    ///
    /// # Errors
    /// `TsdbError::Io`, and what `visit` answers.
    pub fn exemplars(
        &mut self,
        visit: &mut dyn FnMut(&Labels, u64, Exemplar) -> Result<(), TsdbError>,
    ) -> Result<(), TsdbError> {
        if self.report.exemplars == 0 {
            return Ok(());
        }
        for (path, _) in self.files.clone() {
            let bytes = read(&path)?;
            for found in Records::new(&bytes) {
                let Found::Record(record) = found else { continue };
                let Ok(Record::Exemplars(exemplars)) = decode_record(&record) else { continue };
                for (series, t, v, labels) in exemplars {
                    if let Some(of) = self.series.get(&series) {
                        visit(of, series, Exemplar { labels, t, v })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a sample was deleted.
    pub(super) fn deleted(&self, series: u64, t: i64) -> bool {
        is_deleted(&self.deleted, series, t)
    }

    /// Reads the mapped head chunks beside the log.
    ///
    /// # Errors
    /// `TsdbError::Io`; damage goes into the report.
    pub fn head_chunks(
        &mut self,
        visit: &mut dyn FnMut(&Self, HeadChunk) -> Result<(), TsdbError>,
    ) -> Result<(), TsdbError> {
        for (_, path) in numbered(&self.dir.join("chunks_head"), "")? {
            let (chunks, bad) = read_head_chunks(&Bytes::from(read(&path)?));
            self.report.files += 1;
            if let Some(what) = bad {
                self.damage(&path, 0, &what);
            }
            for chunk in chunks {
                visit(self, chunk)?;
            }
        }
        Ok(())
    }
}

fn is_deleted(deleted: &HashMap<u64, Vec<(i64, i64)>>, series: u64, t: i64) -> bool {
    deleted.get(&series).is_some_and(|d| d.iter().any(|(a, b)| (*a..=*b).contains(&t)))
}

fn read(path: &Path) -> Result<Vec<u8>, TsdbError> {
    let size = fs::metadata(path).map_err(TsdbError::io("stat", path))?.len();
    if size > FILE_MAX {
        return Err(TsdbError::Foreign(format!(
            "{} has {size} bytes, more than any log has",
            path.display()
        )));
    }
    fs::read(path).map_err(TsdbError::io("read", path))
}

/// Entries of a directory whose name is `prefix` and a number, by number. A missing directory is empty.
fn numbered(dir: &Path, prefix: &str) -> Result<Vec<(u64, PathBuf)>, TsdbError> {
    let mut out = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(out),
        Err(e) => return Err(TsdbError::io("list", dir)(e)),
    };
    for entry in entries {
        let entry = entry.map_err(TsdbError::io("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(prefix).filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if let Some(number) = number.and_then(|n| n.parse().ok()) {
            out.push((number, entry.path()));
        }
    }
    out.sort();
    Ok(out)
}

fn files(dir: &Path) -> Result<Vec<(PathBuf, bool)>, TsdbError> {
    let wal = super::log_dir(dir);
    let mut out = Vec::new();
    let checkpoint = numbered(&wal, "checkpoint.")?.pop();
    if let Some((_, path)) = &checkpoint {
        out.extend(numbered(path, "")?.into_iter().map(|(_, p)| (p, false)));
    }
    let from = checkpoint.map_or(0, |(n, _)| n + 1);
    for log in [wal, dir.join("wbl")] {
        let first = if log.ends_with("wbl") { 0 } else { from };
        let segments: Vec<_> = numbered(&log, "")?.into_iter().filter(|(n, _)| *n >= first).collect();
        let count = segments.len();
        out.extend(segments.into_iter().enumerate().map(|(i, (_, p))| (p, i + 1 == count)));
    }
    Ok(out)
}
