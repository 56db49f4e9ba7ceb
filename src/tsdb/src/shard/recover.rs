//! Going on after a failed sync, without a restart.
//!
//! A kernel that failed to write pages may call them clean afterwards, so syncing again would prove nothing. Memory
//! still has every sample: the old segments are abandoned, everything is written again into a checkpoint beside a
//! new segment, and only when that is durable the shard takes writes again. Readers notice nothing.

use super::Shard;
use super::checkpoint::CheckpointJob;
use crate::error::TsdbError;

impl Shard {
    /// Whether a sync failed, so that nothing is taken until the log is rewritten.
    pub fn is_poisoned(&self) -> bool {
        self.sealed || self.wal.syncer().is_poisoned()
    }

    /// Begins a new log after a failed sync and answers the job that writes everything into it; run it on any
    /// thread. Nothing is taken until `end_recovery`. When the job fails, begin again. `syncer` answers another
    /// handle from now on.
    ///
    /// # Errors
    /// `TsdbError::Unavailable` when not even a segment can be created: the shard stays as it is.
    pub fn begin_recovery(&mut self) -> Result<CheckpointJob, TsdbError> {
        self.wal = self.wal.abandon()?;
        self.sealed = true;
        Ok(self.checkpoint_job())
    }

    /// Takes writes again: the job of `begin_recovery` succeeded.
    pub fn end_recovery(&mut self) {
        self.sealed = false;
    }

    /// Whether the log can take something now.
    pub(super) fn prepare(&mut self) -> Result<(), TsdbError> {
        if self.sealed {
            return Err(TsdbError::Poisoned("it is being rewritten".to_owned()));
        }
        self.wal.prepare()
    }
}
