//! Opening a shard: the newest checkpoint, then every segment after it.
//!
//! Nothing in the files makes this fail: what is damaged is counted, set aside under `quarantine/`, and said in
//! the report; everything readable before and after comes back. A torn end of the last segment is the ordinary
//! trace of a crash and is cut off. Whenever damage or doubled series were met, a fresh checkpoint replaces the
//! old files, so the next start does not depend on them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use koios_model::{Clock, Exemplar};

use super::checkpoint::{CHECKPOINT_TMP, remove_replaced};
use super::floats::Floats;
use super::metadata::FAMILIES_MAX;
use super::restore::Restoring;
use super::spilling::PIECE;
use super::table::{SeriesTable, series_hash};
use super::{Shard, WAL_DIR};
use crate::disk::Disk;
use crate::error::TsdbError;
use crate::head::HeadView;
use crate::head::closed::Windows;
use crate::head::late::Writer;
use crate::head::series::PAGE;
use crate::head::spill::Spill;
use crate::options::ShardOptions;
use crate::types::Value;
use crate::wal::Wal;
use crate::wal::record::{self, BadRecord, SeriesRecord};
use crate::wal::samples::{self, NoBases};
use crate::wal::segment::{Found, Frames, Kind, checkpoint_path, list, segment_path};
use crate::wal::{exemplars, histograms, metadata, tombstones};

/// Damaged files kept for a look; the oldest go first.
const QUARANTINE_MAX: usize = 16;
/// A series of a checkpoint has no fewer bytes.
const SERIES_BYTES_MIN: usize = 24;
const QUARANTINE_DIR: &str = "quarantine";

/// A stretch of the log that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File name, e.g. `00000007.wal`.
    pub file: String,
    /// Where the stretch begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// Why it could not be read.
    pub what: String,
}

/// What replaying a shard's log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Segments read.
    pub segments: u64,
    /// Series that came out of a checkpoint.
    pub checkpoint_series: u64,
    /// Sound records.
    pub records: u64,
    /// Series in memory afterwards.
    pub series: u64,
    /// Samples that came from segments, without those a checkpoint had already.
    pub samples: u64,
    /// Samples of segments that were there already.
    pub known_samples: u64,
    /// Bytes cut off the end of the last segment: a write that a crash interrupted.
    pub torn_bytes: u64,
    /// Everything else that could not be read. Samples in it are lost, and those later in the same segment.
    pub damaged: Vec<Damage>,
    /// Samples whose series record was lost or is older than the checkpoint.
    pub unknown_samples: u64,
    /// The same for exemplars.
    pub unknown_exemplars: u64,
    /// Records of types this version does not know, passed over.
    pub unknown_records: u64,
}

impl ReplayReport {
    /// Whether anything that had been written was lost.
    pub fn lost_data(&self) -> bool {
        !self.damaged.is_empty()
    }
}

pub(super) fn open(
    opts: ShardOptions,
    clock: Arc<dyn Clock>,
    disk: Arc<dyn Disk>,
) -> Result<(Shard, ReplayReport), TsdbError> {
    opts.check()?;
    let dir = opts.dir.join(WAL_DIR);
    fs::create_dir_all(&dir).map_err(TsdbError::io("create", &dir))?;
    let tmp = dir.join(CHECKPOINT_TMP);
    if tmp.exists() {
        fs::remove_file(&tmp).map_err(TsdbError::io("remove", &tmp))?;
    }
    let (_, checkpoints) = list(&dir).map_err(TsdbError::io("list", &dir))?;
    let start = checkpoints.last().copied().unwrap_or(0);
    // A crash between the checkpoint's rename and this left them.
    remove_replaced(&dir, start)?;
    let (mut segments, _) = list(&dir).map_err(TsdbError::io("list", &dir))?;
    let torn_bytes = remove_unborn(&dir, &mut segments)?;

    let next_segment = segments.last().map_or(start.max(1), |last| last + 1);
    let wal = Wal::start(opts.shard, &dir, disk, next_segment, opts.wal.segment_bytes)?;
    let shard = Shard {
        view: Arc::new(HeadView::new(&opts)),
        wal,
        clock,
        table: SeriesTable::default(),
        next_id: 1,
        min_valid: i64::MIN,
        refused_before: i64::MIN,
        max_time: i64::MIN,
        columns: Default::default(),
        staged: Default::default(),
        frames: Vec::new(),
        body: Vec::new(),
        sealed: false,
        sweep: None,
        spill: Spill::new(&opts.dir, opts.spill),
        opts,
    };
    let mut replay = Replay::new(shard);
    replay.report.torn_bytes += torn_bytes;
    if !checkpoints.is_empty() {
        replay.checkpoint(&dir, start)?;
    }
    for (i, &number) in segments.iter().enumerate() {
        if i > 0 && segments[i - 1] + 1 != number {
            replay.damage(segment_name(number - 1), 0, 0, "segment is missing");
        }
        replay.segment(&dir, number, i + 1 == segments.len())?;
    }
    replay.finish(&dir)
}

/// Removes the last segment when a crash came while it was created: there is nothing in it. Its number is used again, because
/// a number that is left out looks like a segment that was lost. Answers its bytes.
fn remove_unborn(dir: &Path, segments: &mut Vec<u64>) -> Result<u64, TsdbError> {
    let Some(&number) = segments.last() else { return Ok(0) };
    let path = segment_path(dir, number);
    let length = fs::metadata(&path).map_err(TsdbError::io("read", &path))?.len();
    if length > crate::wal::segment::HEADER_BYTES as u64 {
        return Ok(0);
    }
    let bytes = fs::read(&path).map_err(TsdbError::io("read", &path))?;
    if Frames::open(&bytes, Kind::Log, number).is_ok() {
        return Ok(0);
    }
    fs::remove_file(&path).map_err(TsdbError::io("remove", &path))?;
    segments.pop();
    Ok(length)
}

fn segment_name(number: u64) -> String {
    segment_path(Path::new(""), number).to_string_lossy().into_owned()
}

struct Replay {
    shard: Shard,
    report: ReplayReport,
    /// Series that the log names twice; the second reference leads to the first one's cell.
    doubled: bool,
    /// Newest truncation met.
    before: Option<i64>,
    /// Damaged files that go into quarantine.
    quarantine: Vec<String>,
    floats: Floats,
    /// Cells that got closed chunks.
    closed: Vec<u32>,
    /// Bounds and count of chunks, gathered for the counters.
    bounds: (i64, i64),
    chunks: u64,
}

impl Replay {
    fn new(shard: Shard) -> Self {
        Self {
            shard,
            report: ReplayReport::default(),
            doubled: false,
            before: None,
            quarantine: Vec::new(),
            floats: Floats::default(),
            closed: Vec::new(),
            bounds: (i64::MAX, i64::MIN),
            chunks: 0,
        }
    }

    fn damage(&mut self, file: String, offset: usize, bytes: usize, what: &str) {
        tracing::warn!(shard = self.shard.opts.shard, %file, offset, bytes, what, "log is damaged");
        self.report.damaged.push(Damage {
            file,
            offset: offset as u64,
            bytes: bytes as u64,
            what: what.to_owned(),
        });
    }

    fn checkpoint(&mut self, dir: &Path, number: u64) -> Result<(), TsdbError> {
        let path = checkpoint_path(dir, number);
        let name = checkpoint_path(Path::new(""), number).to_string_lossy().into_owned();
        let bytes = koios_block::map_file(&path)?;
        let frames = match Frames::open(&bytes, Kind::Checkpoint, number) {
            Ok(frames) => frames,
            Err(what) => {
                self.damage(name.clone(), 0, bytes.len(), what);
                self.quarantine.push(name);
                return Ok(());
            }
        };
        let (mut bad, mut end, mut restoring) = (false, None, Restoring::new(bytes.clone()));
        for found in frames {
            match found {
                Found::Record(payload) => match self.checkpoint_record(payload, &bytes, &mut restoring) {
                    Ok(e) => end = end.or(e),
                    Err(BadRecord(what)) => {
                        bad = true;
                        self.damage(name.clone(), 0, payload.len(), what);
                    }
                },
                Found::Bad { offset, bytes, what } => {
                    bad = true;
                    self.damage(name.clone(), offset, bytes, what);
                }
            }
        }
        if end.is_none() && !bad {
            bad = true;
            self.damage(name.clone(), bytes.len(), 0, "checkpoint has no end record");
        }
        if bad {
            self.shard.view.index.write().forget_unused();
            self.quarantine.push(name);
        }
        Ok(())
    }

    fn checkpoint_record(
        &mut self,
        payload: &[u8],
        file: &Bytes,
        restoring: &mut Restoring,
    ) -> Result<Option<u64>, BadRecord> {
        self.report.records += 1;
        let body = &payload[1..];
        match payload[0] {
            record::HEAD => {
                let head = record::get_head(body)?;
                self.shard.next_id = self.shard.next_id.max(head.next_id);
                self.shard.min_valid = self.shard.min_valid.max(head.min_valid);
                let room =
                    usize::try_from(head.series).unwrap_or(usize::MAX).min(file.len() / SERIES_BYTES_MIN);
                self.shard.table.reserve(&mut self.shard.view.index.write(), room);
            }
            record::SERIES => record::get_series(body)?.into_iter().for_each(|s| self.series(s)),
            record::CHUNKS => self.restore_chunks(record::get_chunks(body, file)?, &restoring.file)?,
            record::PAIRS => restoring.pairs(&self.shard, body)?,
            record::OWNER => restoring.series(&mut self.shard, body)?,
            record::LATE_CHUNKS => self.restore_late(record::get_chunks(body, file)?)?,
            record::OWNED_EXEMPLARS => self.restore_exemplars(exemplars::get_owned(body)?),
            record::METADATA => self.metadata(body)?,
            record::END => return record::get_end(body).map(Some),
            _ => self.report.unknown_records += 1,
        }
        Ok(None)
    }

    fn restore_chunks(&mut self, record: record::ChunksRecord, file: &Windows) -> Result<(), BadRecord> {
        let cell = self.shard.table.cell_of(record.id).ok_or(BadRecord("chunks of an unknown series"))?;
        let rule = self.shard.rule();
        let mut state = self.shard.table.pages[cell as usize / PAGE].cell(cell as usize).lock();
        if state.chunk_count() > 0 {
            return Err(BadRecord("chunks of a series stand twice"));
        }
        let file = Some(file).filter(|_| self.shard.spill.is_on());
        let restored = state.restore(record.chunks, record.next_at, rule, file);
        restored.map_err(|_| BadRecord("chunk does not decode"))?;
        let hot = &mut self.shard.table.hot[cell as usize];
        if let Some((first, (t, v))) = state.first_time().zip(state.last()) {
            match v {
                Value::Float(v) => hot.note_float(t, v, 0),
                v => {
                    hot.note_histogram(t);
                    self.shard.table.histograms.insert(cell, v);
                }
            }
            self.bounds = (self.bounds.0.min(first), self.bounds.1.max(t));
        }
        self.chunks += state.chunk_count() as u64;
        self.report.checkpoint_series += 1;
        drop(state);
        self.closes(cell);
        Ok(())
    }

    fn restore_late(&mut self, record: record::ChunksRecord) -> Result<(), BadRecord> {
        let cell = self.shard.table.cell_of(record.id).ok_or(BadRecord("chunks of an unknown series"))?;
        let rule = self.shard.rule();
        let mut state = self.shard.table.pages[cell as usize / PAGE].cell(cell as usize).lock();
        if state.last_time().is_none() || record.chunks.is_empty() {
            return Err(BadRecord("late chunks of a series without others"));
        }
        let before = state.chunk_count();
        state.restore_late(&record.chunks, rule).map_err(|_| BadRecord("chunk does not decode"))?;
        self.chunks += (state.chunk_count() - before) as u64;
        self.bounds.0 = self.bounds.0.min(state.first_time().unwrap_or(i64::MAX));
        Ok(())
    }

    /// The ring is as it was, also where the series are gone.
    fn restore_exemplars(&mut self, (series, exemplars): exemplars::Owned) {
        let mut ring = self.shard.view.exemplars.write();
        for (id, e) in exemplars {
            let at = series.binary_search_by_key(&id, |s| s.id);
            if let Ok(at) = at
                && ring.check(id, None, &e) == Ok(true)
            {
                ring.push(id, e, || (series[at].slot, series[at].labels.clone()));
            }
        }
    }

    fn metadata(&mut self, body: &[u8]) -> Result<(), BadRecord> {
        let mut known = self.shard.view.metadata.write();
        for (name, m) in metadata::get(body)? {
            if known.len() < FAMILIES_MAX || known.contains_key(&name) {
                known.insert(name, m);
            }
        }
        Ok(())
    }

    /// What the checkpoint has already is a repetition or too old.
    fn exemplar(&mut self, id: u64, e: Exemplar) {
        let shard = &mut self.shard;
        let Some(cell) = shard.table.cell_of(id) else {
            self.report.unknown_exemplars += 1;
            return;
        };
        let hot = &shard.table.hot[cell as usize];
        let index = shard.view.index.read();
        let mut ring = shard.view.exemplars.write();
        if ring.check(hot.id, None, &e) == Ok(true) {
            let series = &index.series[hot.ordinal as usize];
            ring.push(hot.id, e, || (series.slot, index.labels(series)));
        }
    }

    fn segment(&mut self, dir: &Path, number: u64, last: bool) -> Result<(), TsdbError> {
        let path = segment_path(dir, number);
        let name = segment_name(number);
        let bytes = fs::read(&path).map_err(TsdbError::io("read", &path))?;
        self.report.segments += 1;
        self.floats.new_segment();
        let frames = match Frames::open(&bytes, Kind::Log, number) {
            Ok(frames) => frames,
            Err(what) => {
                self.damage(name.clone(), 0, bytes.len(), what);
                self.quarantine.push(name);
                return Ok(());
            }
        };
        let mut damaged = false;
        for found in frames {
            match found {
                Found::Record(payload) => {
                    if let Err(BadRecord(what)) = self.log_record(payload, damaged) {
                        damaged = true;
                        self.damage(name.clone(), 0, payload.len(), what);
                    }
                }
                Found::Bad { offset, bytes: stretch, .. } if last && offset + stretch == bytes.len() => {
                    self.report.torn_bytes += stretch as u64;
                    truncate_file(&path, offset as u64)?;
                }
                Found::Bad { offset, bytes, what } => {
                    damaged = true;
                    self.damage(name.clone(), offset, bytes, what);
                }
            }
        }
        if damaged {
            self.quarantine.push(name);
        }
        Ok(())
    }

    /// `after_damage`: earlier records of the segment are lost, so values relative to them mean nothing.
    fn log_record(&mut self, payload: &[u8], after_damage: bool) -> Result<(), BadRecord> {
        self.report.records += 1;
        let body = &payload[1..];
        match payload[0] {
            record::SERIES => record::get_series(body)?.into_iter().for_each(|s| self.series(s)),
            record::SAMPLES if after_damage => {
                return Err(BadRecord("samples after damage in the same segment"));
            }
            record::SAMPLES => {
                let (unknown, newest) = self.floats.gather(body, &self.shard.table)?;
                self.report.unknown_samples += unknown;
                self.shard.next_id = self.shard.next_id.max(newest.saturating_add(1));
                if self.floats.is_full() {
                    self.apply_floats();
                }
            }
            kind @ (record::HISTOGRAMS | record::FLOAT_HISTOGRAMS) => {
                histograms::get(kind, body)?.iter().for_each(|s| self.sample(s.id, s.t, &s.v));
            }
            record::LATE => self.late_record(body)?,
            record::EXEMPLARS => exemplars::get(body)?.into_iter().for_each(|(id, e)| self.exemplar(id, e)),
            record::METADATA => self.metadata(body)?,
            record::TOMBSTONES => {
                let stone = tombstones::get(body)?;
                self.apply_floats();
                self.shard.bury(&stone).map_err(|_| BadRecord("chunk does not decode"))?;
            }
            record::TRUNCATE => {
                let before = record::get_truncate(body)?;
                self.before = Some(self.before.map_or(before, |b| b.max(before)));
            }
            _ => self.report.unknown_records += 1,
        }
        Ok(())
    }

    /// Complete in itself, so damage before it does not matter.
    fn late_record(&mut self, payload: &[u8]) -> Result<(), BadRecord> {
        match payload.split_first() {
            Some((&record::SAMPLES, body)) => {
                let mut samples = Vec::new();
                samples::get(body, &mut NoBases::default(), &mut samples)?;
                samples.iter().for_each(|s| self.late(s.id, s.t, &Value::Float(s.v)));
            }
            Some((&kind @ (record::HISTOGRAMS | record::FLOAT_HISTOGRAMS), body)) => {
                histograms::get(kind, body)?.iter().for_each(|s| self.late(s.id, s.t, &s.v));
            }
            _ => return Err(BadRecord("late samples of an unknown kind")),
        }
        Ok(())
    }

    fn late(&mut self, id: u64, t: i64, v: &Value) {
        self.apply_waiting(id);
        let shard = &mut self.shard;
        let known = shard.table.cell_of(id).map(|cell| (cell, shard.table.hot[cell as usize].last_t));
        let Some((cell, _)) = known.filter(|(_, last)| t < *last) else {
            // Newer than all that is left of the series: where damage or a deletion took the rest.
            return self.sample(id, t, v);
        };
        let rule = shard.rule();
        let mut state = shard.table.pages[cell as usize / PAGE].cell(cell as usize).lock();
        let before = state.chunk_count() as u64;
        if state.insert_late(t, v, Writer::new(0, u64::MAX), rule) {
            self.chunks = self.chunks.wrapping_add((state.chunk_count() as u64).wrapping_sub(before));
            self.bounds = (self.bounds.0.min(t), self.bounds.1.max(t));
            self.report.samples += 1;
        } else {
            self.report.known_samples += 1;
        }
    }

    fn series(&mut self, s: SeriesRecord) {
        let shard = &mut self.shard;
        shard.next_id = shard.next_id.max(s.id.saturating_add(1));
        if shard.table.cell_of(s.id).is_some() {
            return;
        }
        let in_order = shard.view.index.read().series.last().is_none_or(|last| last.id < s.id);
        if let Some(cell) = shard.find_labels(s.slot, &s.labels) {
            // The series was removed and came back before a checkpoint forgot its first life.
            shard.table.set_ref(s.id, cell);
            self.doubled = true;
            return;
        }
        // A record out of order gets a fresh reference; the recorded one leads to it.
        let id = if in_order { s.id } else { shard.next_id };
        shard.next_id = shard.next_id.max(id.saturating_add(1));
        let cell = shard.table.claim(id, series_hash(s.slot, &s.labels));
        if id != s.id {
            shard.table.set_ref(s.id, cell);
            self.doubled = true;
        }
        shard.table.register(&mut shard.view.index.write(), cell, s.slot, &s.labels);
    }

    fn apply_floats(&mut self) {
        let rule = self.shard.rule();
        let applied = self.floats.apply(&mut self.shard.table, rule);
        self.report.samples += applied.samples;
        self.report.known_samples += applied.known;
        self.chunks = self.chunks.wrapping_add(applied.chunks);
        self.closed.extend(applied.closed);
        self.shard.spill_cells(&mut self.closed);
        if let Some((min, max)) = applied.bounds {
            self.bounds = (self.bounds.0.min(min), self.bounds.1.max(max));
        }
    }

    /// Before anything else happens to a series.
    fn apply_waiting(&mut self, id: u64) {
        if self.shard.table.cell_of(id).is_some_and(|cell| self.floats.waits(cell)) {
            self.apply_floats();
        }
    }

    fn sample(&mut self, id: u64, t: i64, v: &Value) {
        self.apply_waiting(id);
        let shard = &mut self.shard;
        shard.next_id = shard.next_id.max(id.saturating_add(1));
        let Some(cell) = shard.table.cell_of(id) else {
            self.report.unknown_samples += 1;
            return;
        };
        let rule = shard.rule();
        let hot = &mut shard.table.hot[cell as usize];
        if t <= hot.last_t {
            self.report.known_samples += 1;
            return;
        }
        let was_histogram = hot.is_histogram();
        match v {
            // Segments from before this start are no base of anything that is written now.
            Value::Float(v) => hot.note_float(t, *v, 0),
            _ => hot.note_histogram(t),
        }
        if hot.is_histogram() {
            shard.table.histograms.insert(cell, v.clone());
        } else if was_histogram {
            shard.table.histograms.remove(&cell);
        }
        let mut state = shard.table.pages[cell as usize / PAGE].cell(cell as usize).lock();
        let opened = state.append_value(t, v, rule) as u64;
        drop(state);
        self.chunks += opened;
        self.bounds = (self.bounds.0.min(t), self.bounds.1.max(t));
        self.report.samples += 1;
        if opened > 0 {
            self.closes(cell);
        }
    }

    /// A chunk of this cell may have been closed.
    fn closes(&mut self, cell: u32) {
        self.closed.push(cell);
        if self.closed.len() >= PIECE {
            self.shard.spill_cells(&mut self.closed);
        }
    }

    fn finish(mut self, dir: &Path) -> Result<(Shard, ReplayReport), TsdbError> {
        self.apply_floats();
        let Self { mut shard, mut report, doubled, before, quarantine, bounds, chunks, .. } = self;
        shard.note_samples(bounds.0, bounds.1, 0, chunks);
        // Also removes series whose samples were lost or never came.
        let before = before.unwrap_or(i64::MIN).max(shard.min_valid);
        shard.forget(before)?;
        report.series = shard.table.len() as u64;
        shard.view.counters.series.store(report.series, std::sync::atomic::Ordering::Relaxed);
        if doubled || !quarantine.is_empty() {
            set_aside(dir, &quarantine)?;
            shard.begin_checkpoint()?.run()?;
        }
        Ok((shard, report))
    }
}

fn truncate_file(path: &Path, len: u64) -> Result<(), TsdbError> {
    koios_model::failpoint::pass("log repair");
    let file = fs::OpenOptions::new().write(true).open(path).map_err(TsdbError::io("open", path))?;
    file.set_len(len).and_then(|()| file.sync_all()).map_err(TsdbError::io("cut", path))
}

/// Copies damaged files into the quarantine; the checkpoint that follows removes the originals.
fn set_aside(dir: &Path, names: &[String]) -> Result<(), TsdbError> {
    let quarantine = dir.join(QUARANTINE_DIR);
    fs::create_dir_all(&quarantine).map_err(TsdbError::io("create", &quarantine))?;
    for name in names {
        let (from, to) = (dir.join(name), quarantine.join(name));
        fs::copy(&from, &to).map_err(TsdbError::io("copy", &from))?;
    }
    let mut kept: Vec<_> = fs::read_dir(&quarantine)
        .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>())
        .map_err(TsdbError::io("list", &quarantine))?;
    kept.sort();
    for old in &kept[..kept.len().saturating_sub(QUARANTINE_MAX)] {
        fs::remove_file(old).map_err(TsdbError::io("remove", old))?;
    }
    Ok(())
}
