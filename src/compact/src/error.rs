//! What can go wrong with finished blocks, said with the block's name.

use koios_block::BlockError;
use koios_model::{BlockId, Code, Coded};

/// Errors of the compact crate.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// A source cannot be read; the others are not at fault.
    #[error("block {id}: {source}")]
    Source {
        /// Which.
        id: BlockId,
        /// What is wrong with it.
        source: BlockError,
    },
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] BlockError),
    /// Blocks that must not meet.
    #[error("blocks cannot be merged: {0}")]
    Unlike(String),
    /// The caller asked to stop.
    #[error("stopped before the end")]
    Stopped,
}

impl CompactError {
    pub(crate) fn of(id: BlockId) -> impl Fn(BlockError) -> Self {
        move |source| Self::Source { id, source }
    }

    /// The source that is at fault, if it is one.
    pub fn culprit(&self) -> Option<BlockId> {
        match self {
            Self::Source { id, .. } => Some(*id),
            _ => None,
        }
    }
}

impl Coded for CompactError {
    fn code(&self) -> Code {
        match self {
            Self::Source { source, .. } | Self::Output(source) => source.code(),
            Self::Unlike(_) => Code::Internal,
            Self::Stopped => Code::Unavailable,
        }
    }
}
