//! Float samples of the log on their way into memory, gathered and then applied series by series.
//!
//! A log goes from scrape to scrape, so that applying it as it stands meets every series' memory once per sample; a
//! few million samples at a time meet it once for many. Owns the last values that a segment's values are relative
//! to, too. Invariants: the samples of one series are applied in the order of the log; whoever touches a series
//! otherwise calls `waits` before; what waits is bounded by `room`.

use hashbrown::HashMap;

use super::table::SeriesTable;
use crate::head::series::{ChunkRule, PAGE};
use crate::wal::record::BadRecord;
use crate::wal::samples::{self, Bases, RawSample};

/// Samples that wait at least before they are applied, 24 bytes each.
const ROOM_MIN: usize = 1 << 20;
const ROOM_MAX: usize = 1 << 22;
/// Between these bounds, so many per series.
const ROOM_PER_SERIES: usize = 32;
/// The cell of a sample whose series is unknown.
const UNKNOWN: u32 = u32::MAX;

/// The samples that wait.
#[derive(Default)]
pub(super) struct Floats {
    cells: Vec<u32>,
    samples: Vec<(i64, f64)>,
    /// By cell: whether samples of it wait.
    waiting: Vec<bool>,
    /// By cell: the last value in this segment.
    bases: Vec<f64>,
    /// The same for references that lead to the cell of another one.
    others: HashMap<u64, f64>,
    scratch: Vec<RawSample>,
}

/// What applying came to.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) samples: u64,
    /// Samples that were there already.
    pub(super) known: u64,
    /// Chunks opened.
    pub(super) chunks: u64,
    /// Oldest and newest time, when there are samples.
    pub(super) bounds: Option<(i64, i64)>,
    /// Cells in which a chunk was closed.
    pub(super) closed: Vec<u32>,
}

/// Finds a reference's base, and notes its cell.
struct Looking<'a> {
    table: &'a SeriesTable,
    cells: &'a mut Vec<u32>,
    bases: &'a mut Vec<f64>,
    others: &'a mut HashMap<u64, f64>,
    nowhere: f64,
}

impl Bases for Looking<'_> {
    #[inline]
    fn base(&mut self, id: u64) -> &mut f64 {
        let Some(cell) = self.table.cell_of(id) else {
            self.cells.push(UNKNOWN);
            self.nowhere = 0.0;
            return &mut self.nowhere;
        };
        self.cells.push(cell);
        if self.table.hot[cell as usize].id == id {
            &mut self.bases[cell as usize]
        } else {
            self.others.entry(id).or_insert(0.0)
        }
    }
}

impl Floats {
    /// A segment begins: its values are relative to nothing before it.
    pub(super) fn new_segment(&mut self) {
        self.bases.fill(0.0);
        self.others.clear();
    }

    /// Gathers a record's samples. Answers how many are of unknown series, and the highest reference.
    ///
    /// # Errors
    /// `BadRecord`; none of its samples is gathered then.
    pub(super) fn gather(&mut self, body: &[u8], table: &SeriesTable) -> Result<(u64, u64), BadRecord> {
        let before = self.cells.len();
        self.bases.resize(table.hot.len(), 0.0);
        self.waiting.resize(table.hot.len(), false);
        let Self { cells, bases, others, scratch, .. } = self;
        let mut looking = Looking { table, cells, bases, others, nowhere: 0.0 };
        if let Err(bad) = samples::get(body, &mut looking, scratch) {
            self.cells.truncate(before);
            return Err(bad);
        }
        let newest = self.scratch.iter().map(|s| s.id).max().unwrap_or(0);
        let mut kept = before;
        for (i, s) in self.scratch.iter().enumerate() {
            let cell = self.cells[before + i];
            if cell != UNKNOWN {
                self.cells[kept] = cell;
                self.waiting[cell as usize] = true;
                self.samples.push((s.t, s.v));
                kept += 1;
            }
        }
        self.cells.truncate(kept);
        Ok(((before + self.scratch.len() - kept) as u64, newest))
    }

    /// Whether it is time to apply what waits.
    pub(super) fn is_full(&self) -> bool {
        self.cells.len() >= (self.waiting.len() * ROOM_PER_SERIES).clamp(ROOM_MIN, ROOM_MAX)
    }

    /// Whether samples of this cell wait.
    pub(super) fn waits(&self, cell: u32) -> bool {
        self.waiting.get(cell as usize).is_some_and(|w| *w)
    }

    /// Puts what waits into chunks.
    pub(super) fn apply(&mut self, table: &mut SeriesTable, rule: ChunkRule) -> Applied {
        let mut applied = Applied::default();
        let order = self.by_cell();
        let mut from = 0;
        while from < order.len() {
            let cell = self.cells[order[from] as usize];
            let run = order[from..].iter().take_while(|i| self.cells[**i as usize] == cell).count();
            let samples = order[from..from + run].iter().map(|i| self.samples[*i as usize]);
            apply_run(table, cell, samples, rule, &mut applied);
            self.waiting[cell as usize] = false;
            from += run;
        }
        self.cells.clear();
        self.samples.clear();
        applied
    }

    /// The order in which samples are applied: by cell when that pays, and always as they came within a cell.
    fn by_cell(&self) -> Vec<u32> {
        let n = self.cells.len();
        if n * 4 < self.waiting.len() {
            return (0..n as u32).collect();
        }
        let mut next = vec![0u32; self.waiting.len() + 1];
        self.cells.iter().for_each(|c| next[*c as usize + 1] += 1);
        for i in 1..next.len() {
            next[i] += next[i - 1];
        }
        let mut order = vec![0u32; n];
        for (i, c) in self.cells.iter().enumerate() {
            let place = &mut next[*c as usize];
            order[*place as usize] = i as u32;
            *place += 1;
        }
        order
    }
}

fn apply_run(
    table: &mut SeriesTable,
    cell: u32,
    samples: impl Iterator<Item = (i64, f64)>,
    rule: ChunkRule,
    applied: &mut Applied,
) {
    let hot = &mut table.hot[cell as usize];
    let was_histogram = hot.is_histogram();
    let mut state = table.pages[cell as usize / PAGE].cell(cell as usize).lock();
    let (mut taken, mut chunks) = (0, 0);
    for (t, v) in samples {
        if t <= hot.last_t {
            applied.known += 1;
            continue;
        }
        // Segments from before this start are no base of anything that is written now.
        hot.note_float(t, v, 0);
        chunks += state.append(t, v, rule);
        let (min, max) = applied.bounds.unwrap_or((t, t));
        applied.bounds = Some((min.min(t), max.max(t)));
        taken += 1;
    }
    if was_histogram && taken > 0 {
        table.histograms.remove(&cell);
    }
    applied.samples += taken;
    applied.chunks += chunks as u64;
    if chunks > 0 {
        applied.closed.push(cell);
    }
}
