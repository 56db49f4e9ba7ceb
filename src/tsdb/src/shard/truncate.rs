//! Forgetting what a block now serves.
//!
//! Order: a record in a new segment says what counts no more, then memory lets go of it, then a checkpoint
//! takes over from the old segments. Whichever of the later steps a crash prevents, a restart finds the record
//! and does not bring the data back.

use std::sync::atomic::Ordering::SeqCst;

use super::Shard;
use super::checkpoint::{CheckpointJob, CheckpointReport};
use crate::error::TsdbError;
use crate::wal::record::put_truncate;
use crate::wal::segment::put_frame;

/// What a truncation removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TruncateReport {
    /// Series that had no sample left.
    pub series_removed: u64,
    /// Chunks that are gone.
    pub chunks_removed: u64,
    /// The checkpoint that replaced the old segments.
    pub checkpoint: CheckpointReport,
}

impl Shard {
    /// Forgets all samples before `before`, removes series without samples, writes a checkpoint and deletes the
    /// segments that it replaces. Only to be called once a block serves the data. Blocks for the checkpoint;
    /// `truncate_memory` does not.
    ///
    /// # Errors
    /// `TsdbError`; when the checkpoint fails the data is forgotten and the old segments stay.
    pub fn truncate(&mut self, before: i64) -> Result<TruncateReport, TsdbError> {
        let (mut report, job) = self.truncate_memory(before)?;
        report.checkpoint = job.run()?;
        Ok(report)
    }

    /// The part of `truncate` that needs the writer; the answered job writes the checkpoint and may run on any
    /// thread while this shard goes on appending.
    ///
    /// # Errors
    /// `TsdbError::Unavailable`, `Poisoned`: nothing has changed. `Chunk` when a chunk that straddles `before`
    /// does not decode.
    pub fn truncate_memory(&mut self, before: i64) -> Result<(TruncateReport, CheckpointJob), TsdbError> {
        self.begin_truncate(before)?;
        let report = self.finish_sweep()?;
        Ok((report, self.checkpoint_job()))
    }

    /// Begins what `truncate_memory` does, to be gone on with by `truncate_step` while others append between.
    ///
    /// # Errors
    /// `TsdbError::Unavailable`, `Poisoned`: nothing has changed.
    pub fn begin_truncate(&mut self, before: i64) -> Result<(), TsdbError> {
        self.finish_sweep()?;
        self.prepare()?;
        self.wal.rotate()?;
        self.frames.clear();
        put_frame(&mut self.frames, |out| put_truncate(out, before));
        self.wal.write(&self.frames)?;
        self.begin_sweep(before);
        Ok(())
    }

    /// A few milliseconds of letting go; the report and the checkpoint's job after the last step.
    ///
    /// # Errors
    /// `Chunk` when a chunk that straddles the border does not decode: it stays, and the next step goes on.
    /// `Unavailable`, `Poisoned` when the log takes no new segment for the checkpoint.
    pub fn truncate_step(&mut self) -> Result<Option<(TruncateReport, CheckpointJob)>, TsdbError> {
        Ok(self.sweep_step()?.map(|report| (report, self.checkpoint_job())))
    }

    /// Begins a new segment and answers the job that replaces all older ones by a checkpoint. For a quick start
    /// after a planned stop.
    ///
    /// # Errors
    /// `TsdbError::Unavailable`, `Poisoned`.
    pub fn begin_checkpoint(&mut self) -> Result<CheckpointJob, TsdbError> {
        self.wal.rotate()?;
        Ok(self.checkpoint_job())
    }

    pub(super) fn checkpoint_job(&self) -> CheckpointJob {
        CheckpointJob {
            view: self.view.clone(),
            syncer: self.syncer(),
            dir: self.wal_dir(),
            segment: self.wal.segment(),
            next_id: self.next_id,
            min_valid: self.min_valid,
            series: self.table.len() as u64,
            deletions: self.view.deletions.load(SeqCst),
        }
    }
}
