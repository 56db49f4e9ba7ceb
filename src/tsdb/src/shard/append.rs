//! Appending a batch: check and encode, write, apply, publish.
//!
//! The first pass looks at every entry once, refuses what must be refused, and puts the log's columns together;
//! it changes only the writer's own table and notes how to undo that. Then one write. Only when it succeeded
//! are new series shown and samples put into chunks, which cannot fail.

use std::sync::Arc;

use koios_model::{Labels, Slot};

use super::Shard;
use super::late::StagedLate;
use super::table::{Hot, series_hash};
use crate::error::TsdbError;
use crate::head::series::{ChunkRule, PAGE, Page};
use crate::options::BATCH_ENTRIES_MAX;
use crate::types::{AppendBatch, Appended, Entry, Reject, SeriesKey, SeriesRef, Value};
use crate::wal::histograms::{self, RawHistogram};
use crate::wal::record::put_series;
use crate::wal::segment::put_frame;

/// New series shown to readers under one hold of the index lock.
const REGISTER_PIECE: usize = 256;
/// Scratch memory that is kept from one batch to the next.
const KEEP_FRAMES: usize = 4 << 20;

/// A series that this batch creates.
struct Pending {
    cell: u32,
    slot: Slot,
    labels: Labels,
}

/// A histogram of the batch.
struct StagedHistogram {
    cell: u32,
    /// How many floats of the batch come before it.
    after: usize,
    raw: RawHistogram,
    /// What the cell's last histogram was before, for undoing.
    before: Option<Value>,
}

/// What the first pass decided. Reused from batch to batch.
#[derive(Default)]
pub(super) struct Staged {
    samples: Vec<(u32, i64, f64)>,
    histograms: Vec<StagedHistogram>,
    /// How many of `histograms` are in the log's records already.
    framed: usize,
    pending: Vec<Pending>,
    /// The table's entries before this batch changed them, in order.
    undo: Vec<(u32, Hot)>,
    pub(super) late: Vec<StagedLate>,
    /// Cells in which a chunk was closed.
    closed: Vec<u32>,
}

/// Times a batch accepts.
pub(super) struct Bounds {
    floor: i64,
    ceiling: i64,
    /// For samples older than the newest of their series.
    pub(super) late: i64,
}

impl Shard {
    /// Appends a batch. Its samples become readable together, after this returns; they are durable once the
    /// syncer reports the answered position.
    ///
    /// # Errors
    /// `TsdbError::Unavailable` when the log cannot take it now: nothing of the batch was taken. `Poisoned` after
    /// a failure that cannot be undone. `BatchTooLarge`.
    pub fn append(&mut self, batch: &AppendBatch) -> Result<Appended, TsdbError> {
        if batch.entries.len() > BATCH_ENTRIES_MAX {
            return Err(TsdbError::BatchTooLarge(batch.entries.len()));
        }
        self.prepare()?;
        let mut answer = Appended { refs: Vec::with_capacity(batch.entries.len()), ..Appended::default() };
        self.stage(&batch.entries, &mut answer);
        answer.lsn = match self.log_staged() {
            Ok(lsn) => lsn,
            Err(e) => {
                self.undo_staged();
                return Err(e);
            }
        };
        self.register_pending();
        self.apply_staged();
        Ok(answer)
    }

    fn stage(&mut self, entries: &[Entry], answer: &mut Appended) {
        self.columns.clear();
        self.staged.samples.clear();
        self.staged.histograms.clear();
        self.staged.framed = 0;
        self.staged.pending.clear();
        self.staged.undo.clear();
        self.staged.late.clear();
        self.body.clear();
        self.body.shrink_to(KEEP_FRAMES);
        let ceiling = self.clock.now_ms().saturating_add(self.opts.future_limit_ms);
        let bounds = Bounds { floor: self.append_floor(), ceiling, late: self.late_floor() };
        for (i, entry) in entries.iter().enumerate() {
            match self.stage_one(entry, &bounds) {
                Ok(id) => answer.refs.push(SeriesRef(id)),
                Err((id, reject)) => {
                    answer.refs.push(SeriesRef(id));
                    answer.rejected.push((i, reject));
                }
            }
        }
    }

    /// Answers the series' reference, with the reason when the sample is refused.
    #[inline]
    fn stage_one(&mut self, entry: &Entry, bounds: &Bounds) -> Result<u64, (u64, Reject)> {
        let known = match &entry.series {
            SeriesKey::Ref(r) => Some(self.table.cell_of(r.0).ok_or((0, Reject::UnknownRef))?),
            SeriesKey::New(slot, labels) => self.find_labels(*slot, labels),
        };
        let id = known.map_or(0, |cell| self.table.hot[cell as usize].id);
        let t = entry.t;
        if t < bounds.floor {
            return Err((id, Reject::TooOld));
        }
        if t > bounds.ceiling {
            return Err((id, Reject::TooFarInFuture));
        }
        let float = match &entry.v {
            Value::Float(v) => Some(*v),
            other if other.is_sound() => None,
            _ => return Err((id, Reject::BadHistogram)),
        };
        let cell = match (known, &entry.series) {
            (Some(cell), _) => cell,
            (None, SeriesKey::New(slot, labels)) => self.create(*slot, labels).map_err(|r| (0, r))?,
            (None, SeriesKey::Ref(_)) => unreachable!("BUG: an unknown reference was refused above"),
        };
        let hot = &mut self.table.hot[cell as usize];
        let Some(v) = float.filter(|_| !hot.is_histogram()) else {
            return self.stage_value(cell, t, &entry.v, bounds);
        };
        if t <= hot.last_t {
            return match t.cmp(&hot.last_t) {
                std::cmp::Ordering::Equal if v.to_bits() == hot.last_v.to_bits() => Ok(hot.id),
                std::cmp::Ordering::Equal => Err((hot.id, Reject::Duplicate)),
                _ => self.stage_late(cell, t, &entry.v, bounds),
            };
        }
        self.staged.undo.push((cell, *hot));
        let segment = self.wal.segment();
        self.columns.push(hot.id, t, v, hot.base(segment));
        hot.note_float(t, v, segment);
        self.staged.samples.push((cell, t, v));
        Ok(hot.id)
    }

    /// A histogram, or a float after one.
    #[cold]
    fn stage_value(&mut self, cell: u32, t: i64, v: &Value, bounds: &Bounds) -> Result<u64, (u64, Reject)> {
        let hot = self.table.hot[cell as usize];
        let last = self.table.histograms.get(&cell).filter(|_| hot.is_histogram());
        let v = match (v, last) {
            (Value::Float(f), Some(last)) if koios_model::is_stale(*f) => last.stale_of_kind(),
            _ => v.clone(),
        };
        let last = last.cloned().unwrap_or(Value::Float(hot.last_v));
        if t <= hot.last_t {
            return match t.cmp(&hot.last_t) {
                std::cmp::Ordering::Equal if v.same(&last) => Ok(hot.id),
                std::cmp::Ordering::Equal => Err((hot.id, Reject::Duplicate)),
                _ => self.stage_late(cell, t, &v, bounds),
            };
        }
        // The log's records go by kind; where a series changes kind the order must survive.
        if hot.last_t > i64::MIN && std::mem::discriminant(&v) != std::mem::discriminant(&last) {
            self.frame_staged();
        }
        self.staged.undo.push((cell, hot));
        let segment = self.wal.segment();
        let hot = &mut self.table.hot[cell as usize];
        if let Value::Float(v) = v {
            // The histogram stays in the map until the batch is applied, for undoing.
            self.columns.push(hot.id, t, v, hot.base(segment));
            hot.note_float(t, v, segment);
            self.staged.samples.push((cell, t, v));
            return Ok(hot.id);
        }
        hot.note_histogram(t);
        let raw = RawHistogram { id: hot.id, t, v: v.clone() };
        let before = self.table.histograms.insert(cell, v);
        self.staged.histograms.push(StagedHistogram { cell, after: self.staged.samples.len(), raw, before });
        Ok(hot.id)
    }

    /// Puts what was staged since the last call into records.
    fn frame_staged(&mut self) {
        if self.columns.len() > 0 {
            put_frame(&mut self.body, |out| self.columns.put(out));
            self.columns.clear();
        }
        let staged = &self.staged.histograms[self.staged.framed..];
        for floats in [false, true] {
            let of_kind = |s: &&StagedHistogram| matches!(s.raw.v, Value::FloatHistogram(_)) == floats;
            let raw: Vec<RawHistogram> = staged.iter().filter(of_kind).map(|s| s.raw.clone()).collect();
            if !raw.is_empty() {
                put_frame(&mut self.body, |out| histograms::put(out, &raw));
            }
        }
        self.staged.framed = self.staged.histograms.len();
    }

    pub(super) fn find_labels(&self, slot: Slot, labels: &Labels) -> Option<u32> {
        let hash = series_hash(slot, labels);
        // Pending series are not in the index yet; the cells they took tell them apart.
        self.table.find(hash, |cell, hot| {
            if hot.ordinal == u32::MAX {
                return self
                    .staged
                    .pending
                    .iter()
                    .any(|p| p.cell == cell && p.slot == slot && p.labels == *labels);
            }
            let index = self.view.index.read();
            index.has_labels(hot.ordinal, labels) && index.series[hot.ordinal as usize].slot == slot
        })
    }

    fn create(&mut self, slot: Slot, labels: &Labels) -> Result<u32, Reject> {
        if self.table.len() >= self.opts.series_max as usize {
            return Err(Reject::SeriesLimit);
        }
        let cell = self.table.claim(self.next_id, series_hash(slot, labels));
        self.next_id += 1;
        self.staged.pending.push(Pending { cell, slot, labels: labels.clone() });
        Ok(cell)
    }

    /// One write for everything that the batch adds.
    fn log_staged(&mut self) -> Result<crate::types::Lsn, TsdbError> {
        self.frames.clear();
        self.frames.shrink_to(KEEP_FRAMES);
        if !self.staged.pending.is_empty() {
            let hot = &self.table.hot;
            let series = self.staged.pending.iter().map(|p| (hot[p.cell as usize].id, p.slot, &p.labels));
            put_frame(&mut self.frames, |out| put_series(out, series));
        }
        if !self.body.is_empty() || !self.staged.histograms.is_empty() {
            self.frame_staged();
            self.frames.extend_from_slice(&self.body);
        } else if self.columns.len() > 0 {
            put_frame(&mut self.frames, |out| self.columns.put(out));
        }
        self.frame_late();
        if self.frames.is_empty() { Ok(self.wal.lsn()) } else { self.wal.write(&self.frames) }
    }

    fn undo_staged(&mut self) {
        for s in self.staged.histograms.drain(..).rev() {
            match s.before {
                Some(v) => self.table.histograms.insert(s.cell, v),
                None => self.table.histograms.remove(&s.cell),
            };
        }
        for (cell, hot) in self.staged.undo.drain(..).rev() {
            self.table.hot[cell as usize] = hot;
        }
        for p in self.staged.pending.drain(..).rev() {
            self.table.release(p.cell);
            self.next_id -= 1;
        }
        self.staged.samples.clear();
        self.staged.late.clear();
    }

    fn register_pending(&mut self) {
        for piece in self.staged.pending.chunks(REGISTER_PIECE) {
            let mut index = self.view.index.write();
            for p in piece {
                self.table.register(&mut index, p.cell, p.slot, &p.labels);
            }
        }
        self.staged.pending.clear();
        self.view.counters.series.store(self.table.len() as u64, std::sync::atomic::Ordering::Relaxed);
    }

    fn apply_staged(&mut self) {
        let count = self.staged.samples.len() + self.staged.histograms.len();
        if count + self.staged.late.len() == 0 {
            return;
        }
        let closed = std::mem::take(&mut self.staged.closed);
        let mut apply = Apply::new(self.view.isolation.begin(), self.rule(), closed);
        let mut from = 0;
        for s in &self.staged.histograms {
            apply.floats(&self.table.pages, &self.staged.samples[from..s.after]);
            apply.value(&self.table.pages, s.cell, s.raw.t, &s.raw.v);
            from = s.after;
        }
        apply.floats(&self.table.pages, &self.staged.samples[from..]);
        let (batch, oldest_reader) = (apply.batch, apply.oldest_reader);
        let oldest_late = self.apply_late(batch, oldest_reader);
        self.view.isolation.commit(batch);
        self.note_samples(apply.min.min(oldest_late), apply.max, count as u64, apply.chunks as u64);
        if !self.table.histograms.is_empty() {
            for (cell, ..) in &self.staged.samples {
                if !self.table.hot[*cell as usize].is_histogram() {
                    self.table.histograms.remove(cell);
                }
            }
        }
        self.staged.histograms.clear();
        self.spill_cells(&mut apply.closed);
        self.staged.closed = apply.closed;
    }
}

/// Puts a batch into chunks.
struct Apply {
    batch: u64,
    oldest_reader: u64,
    rule: ChunkRule,
    min: i64,
    max: i64,
    chunks: usize,
    closed: Vec<u32>,
}

impl Apply {
    fn new((batch, oldest_reader): (u64, u64), rule: ChunkRule, closed: Vec<u32>) -> Self {
        Self { batch, oldest_reader, rule, min: i64::MAX, max: i64::MIN, chunks: 0, closed }
    }

    fn floats(&mut self, pages: &[Arc<Page>], samples: &[(u32, i64, f64)]) {
        for &(cell, t, v) in samples {
            let mut series = pages[cell as usize / PAGE].cell(cell as usize).lock();
            series.begin_batch(self.batch, self.oldest_reader);
            if series.append(t, v, self.rule) > 0 {
                self.chunks += 1;
                self.closed.push(cell);
            }
            self.min = self.min.min(t);
            self.max = self.max.max(t);
        }
    }

    fn value(&mut self, pages: &[Arc<Page>], cell: u32, t: i64, v: &Value) {
        let mut series = pages[cell as usize / PAGE].cell(cell as usize).lock();
        series.begin_batch(self.batch, self.oldest_reader);
        if series.append_value(t, v, self.rule) > 0 {
            self.chunks += 1;
            self.closed.push(cell);
        }
        self.min = self.min.min(t);
        self.max = self.max.max(t);
    }
}
