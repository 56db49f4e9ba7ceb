//! What can go wrong with a shard as a whole. A single sample that is refused is a `Reject`, not an error.

use std::path::{Path, PathBuf};

use koios_block::BlockError;
use koios_chunk::ChunkError;
use koios_model::{Code, Coded};

/// Why a shard could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TsdbError {
    /// Nothing of the batch was taken; it may work later (disk full, too many files).
    #[error("cannot write to the log of shard {shard} now: {source}")]
    Unavailable {
        /// Which shard.
        shard: u16,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The log failed to sync. What it holds is unknown until `Shard::begin_recovery` or a restart.
    #[error("the log is closed after a failure and takes writes again once it is rewritten: {0}")]
    Poisoned(String),
    /// The operating system refused something outside of an append.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A setting outside of its bounds.
    #[error("bad shard options: {0}")]
    Options(String),
    /// Samples were deleted while a checkpoint was written, so it may hold what came after and what went before.
    #[error("the checkpoint was overtaken by a deletion; the next one takes its place")]
    Overtaken,
    /// A batch larger than a shard takes.
    #[error("a batch of {0} samples is larger than {max}; split it", max = crate::options::BATCH_ENTRIES_MAX)]
    BatchTooLarge(usize),
    /// Data of another program that cannot be taken over as it is.
    #[error("{0}")]
    Foreign(String),
    /// Writing a block failed.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A chunk of the head does not decode.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

impl TsdbError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what, path, source }
    }
}

impl Coded for TsdbError {
    fn code(&self) -> Code {
        match self {
            Self::Unavailable { .. } | Self::Poisoned(_) | Self::Overtaken => Code::Unavailable,
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::Unavailable,
                _ => Code::Internal,
            },
            Self::Options(_) | Self::BatchTooLarge(_) | Self::Foreign(_) => Code::BadData,
            Self::Block(e) => e.code(),
            Self::Chunk(e) => e.code(),
        }
    }
}
