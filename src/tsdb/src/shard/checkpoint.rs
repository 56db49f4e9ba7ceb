//! A checkpoint: the whole head as one file that replaces all segments before a given one.
//!
//! Chunks are copied as they are, so a restart reads bytes instead of appending samples. The job reads through
//! the view, so the shard goes on meanwhile: what it appends is in the segments that stay, and may be in the
//! checkpoint too, which replay notices by time. Invariant: old segments go only after the file is durable
//! under its final name.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::table::series_hash;
use crate::disk::{Disk, DiskFile};
use crate::error::TsdbError;
use crate::head::HeadView;
use crate::head::index::{Index, IndexedSeries, PairId};
use crate::wal::owners::{put_owner, put_pairs};
use crate::wal::record::{CHUNKS, ChunksRecord, HeadRecord, LATE_CHUNKS, put_chunks, put_end, put_head};
use crate::wal::segment::{Kind, checkpoint_path, header, list, put_frame, segment_path};
use crate::wal::{WalSyncer, exemplars, metadata};

/// Bytes of frames gathered before they are written.
const WRITE_BYTES: usize = 1 << 18;
/// Exemplars or families of one record.
const PIECE: usize = 1024;
/// Suffix of a checkpoint that is being written.
pub(super) const CHECKPOINT_TMP: &str = "checkpoint.tmp";

/// Writes a checkpoint when run. `Send`: meant for another thread than the shard's.
pub struct CheckpointJob {
    pub(super) view: Arc<HeadView>,
    pub(super) syncer: WalSyncer,
    pub(super) dir: PathBuf,
    /// The first segment that is still needed beside the checkpoint.
    pub(super) segment: u64,
    pub(super) next_id: u64,
    pub(super) min_valid: i64,
    pub(super) deletions: u64,
    pub(super) series: u64,
}

/// What a checkpoint came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Series written.
    pub series: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Segments deleted.
    pub segments_removed: u64,
}

impl CheckpointJob {
    /// Writes the file, makes it and the log durable, deletes what it replaces.
    ///
    /// # Errors
    /// `TsdbError::Io`, `Poisoned`, `Overtaken` by a deletion; the old segments stay then.
    pub fn run(self) -> Result<CheckpointReport, TsdbError> {
        let view = self.view.clone();
        let _one_at_a_time = view.checkpointing.lock();
        let tmp = self.dir.join(CHECKPOINT_TMP);
        let written = self.write(&tmp);
        if written.is_err() {
            // Best effort: a left-over is overwritten by the next checkpoint and removed at the next start.
            let _ = fs::remove_file(&tmp);
        }
        let mut report = written?;
        if self.view.deletions.load(SeqCst) != self.deletions {
            let _ = fs::remove_file(&tmp);
            return Err(TsdbError::Overtaken);
        }
        // The record that explains the checkpoint must not be younger than the checkpoint.
        self.syncer.sync()?;
        let path = checkpoint_path(&self.dir, self.segment);
        koios_model::failpoint::pass("checkpoint rename");
        fs::rename(&tmp, &path).map_err(TsdbError::io("rename", &tmp))?;
        self.syncer.disk().sync_dir(&self.dir).map_err(TsdbError::io("sync", &self.dir))?;
        report.segments_removed = remove_replaced(&self.dir, self.segment)?;
        Ok(report)
    }

    fn write(&self, tmp: &std::path::Path) -> Result<CheckpointReport, TsdbError> {
        let io = |e| TsdbError::io("write", tmp)(e);
        let mut file = Writer::create(self.syncer.disk(), tmp).map_err(io)?;
        let mut report = CheckpointReport::default();
        let mut bytes = header(Kind::Checkpoint, self.segment).to_vec();
        let head = HeadRecord { next_id: self.next_id, min_valid: self.min_valid, series: self.series };
        put_frame(&mut bytes, |out| put_head(out, head));
        let frames = RefCell::new(Gathered { ready: bytes, ..Gathered::default() });
        let mut series_written = 0;
        self.view.walk(
            &mut |index, ordinal| {
                let series = &index.series[ordinal];
                let Some(cell) = index.cell(series.cell) else { return Ok(()) };
                let mut chunks = Vec::new();
                let (next_at, late) = {
                    let state = cell.lock();
                    (state.all_chunks(&mut chunks), state.late_chunks(self.view.rule))
                };
                let gathered = &mut *frames.borrow_mut();
                gathered.owner(index, series);
                let out = &mut gathered.series;
                // Everything deleted, or a first sample on its way: segments that stay may name it.
                if chunks.is_empty() {
                    return Ok(());
                }
                let id = series.id;
                put_frame(out, |out| put_chunks(out, CHUNKS, &ChunksRecord { id, next_at, chunks }));
                if !late.is_empty() {
                    let record = ChunksRecord { id, next_at: 0, chunks: late };
                    put_frame(out, |out| put_chunks(out, LATE_CHUNKS, &record));
                }
                series_written += 1;
                Ok(())
            },
            // Never write while the index is held: a new series would wait for the disk.
            &mut || {
                let gathered = &mut *frames.borrow_mut();
                gathered.settle();
                if gathered.ready.len() >= WRITE_BYTES {
                    file.write(&gathered.ready).map_err(io)?;
                    gathered.ready.clear();
                }
                Ok(())
            },
        )?;
        let mut frames = frames.into_inner().ready;
        self.view.exemplars.read().pieces(PIECE, &mut |series, own| {
            put_frame(&mut frames, |out| exemplars::put_owned(out, series, own));
        });
        let families: Vec<_> = self.view.metadata(None);
        for piece in families.chunks(PIECE) {
            let said = piece.iter().map(|(n, m)| (n.as_str(), m));
            put_frame(&mut frames, |out| metadata::put(out, said));
        }
        report.series = series_written;
        put_frame(&mut frames, |out| put_end(out, report.series));
        file.write(&frames).map_err(io)?;
        file.file.sync().map_err(io)?;
        report.bytes = file.offset;
        Ok(report)
    }
}

/// Name and value.
type Texts = (Arc<str>, Arc<str>);

/// Frames on their way to the file: pairs before the series that have them.
#[derive(Default)]
struct Gathered {
    ready: Vec<u8>,
    series: Vec<u8>,
    /// Number in the file of each pair, with its texts, because a pair's place may get another one meanwhile.
    numbers: Vec<Option<(u64, Texts)>>,
    new: Vec<Texts>,
    next: u64,
}

impl Gathered {
    fn owner(&mut self, index: &Index, series: &IndexedSeries) {
        let pairs: Vec<u64> = index.pairs_of(series).iter().map(|&p| self.number(index, p)).collect();
        let hash = series_hash(series.slot, &index.labels(series));
        put_frame(&mut self.series, |out| put_owner(out, series.id, series.slot, hash, pairs.into_iter()));
    }

    fn number(&mut self, index: &Index, id: PairId) -> u64 {
        let (place, pair) = (id as usize, &index.pairs[id as usize]);
        if place >= self.numbers.len() {
            self.numbers.resize(index.pairs.len(), None);
        }
        if let Some((n, (name, value))) = &self.numbers[place]
            && Arc::ptr_eq(name, &pair.name)
            && Arc::ptr_eq(value, &pair.value)
        {
            return *n;
        }
        let n = self.next + self.new.len() as u64;
        self.new.push((pair.name.clone(), pair.value.clone()));
        self.numbers[place] = Some((n, (pair.name.clone(), pair.value.clone())));
        n
    }

    fn settle(&mut self) {
        if !self.new.is_empty() {
            // Twice: one damaged byte must not cost every series with one of them.
            for _ in 0..2 {
                let pairs = self.new.iter().map(|(n, v)| (&**n, &**v));
                put_frame(&mut self.ready, |out| put_pairs(out, self.next, pairs));
            }
            self.next += self.new.len() as u64;
            self.new.clear();
        }
        self.ready.append(&mut self.series);
    }
}

/// The file while it grows.
struct Writer {
    file: Arc<dyn DiskFile>,
    offset: u64,
}

impl Writer {
    fn create(disk: &dyn Disk, path: &std::path::Path) -> std::io::Result<Self> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => Ok(Self { file: disk.create(path)?, offset: 0 }),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// Deletes segments and checkpoints that checkpoint `segment` replaces; answers how many segments.
pub(super) fn remove_replaced(dir: &std::path::Path, segment: u64) -> Result<u64, TsdbError> {
    let (segments, checkpoints) = list(dir).map_err(TsdbError::io("list", dir))?;
    for old in checkpoints.into_iter().filter(|c| *c < segment) {
        let path = checkpoint_path(dir, old);
        fs::remove_file(&path).map_err(TsdbError::io("remove", &path))?;
    }
    let mut removed = 0;
    for old in segments.into_iter().filter(|s| *s < segment) {
        let path = segment_path(dir, old);
        koios_model::failpoint::pass("log removal");
        fs::remove_file(&path).map_err(TsdbError::io("remove", &path))?;
        removed += 1;
    }
    Ok(removed)
}
