//! A node's log in the bucket: what a shipped piece looks like, what was shipped, and the chain of decisions.
//!
//! Shared by the shipper, which writes a log, and the adopter, which turns one into blocks. Format and order of
//! steps: `docs/formats/shipped-wal.md`.

pub mod assembly;
pub mod bundle;
pub mod chain;
pub mod ledger;

/// A file of a log: shard, kind, number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct FileKey {
    /// Shard.
    pub shard: u16,
    /// Whether it is a checkpoint and not a segment.
    pub checkpoint: bool,
    /// Its number in the shard's log.
    pub number: u64,
}

impl FileKey {
    /// Of a file as the engine lists it.
    pub fn of(shard: u16, file: &koios_tsdb::LogFile) -> Self {
        let checkpoint = file.kind == koios_tsdb::LogFileKind::Checkpoint;
        Self { shard, checkpoint, number: file.number }
    }

    /// As the engine names it.
    pub fn kind(self) -> koios_tsdb::LogFileKind {
        if self.checkpoint { koios_tsdb::LogFileKind::Checkpoint } else { koios_tsdb::LogFileKind::Segment }
    }

    /// Whether the checkpoint `number` of its shard makes it unnecessary.
    pub fn replaced_by(self, number: u64) -> bool {
        self.number < number
    }
}
