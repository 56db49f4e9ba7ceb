//! Why a write was not acknowledged.

use koios_model::{Code, Coded};
use koios_tsdb::TsdbError;

use crate::kit::AskError;

/// Errors on the path of a write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// A shard is overloaded or restarting.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The storage refused; the samples are not kept, or not surely.
    #[error("{0}")]
    Storage(String),
    /// The node is draining and takes no more writes.
    #[error("this node is draining and takes no writes; send them to another node")]
    Draining,
}

impl From<TsdbError> for IngestError {
    fn from(e: TsdbError) -> Self {
        IngestError::Storage(e.to_string())
    }
}

impl Coded for IngestError {
    fn code(&self) -> Code {
        match self {
            IngestError::Ask(e) => e.code(),
            IngestError::Storage(_) | IngestError::Draining => Code::Unavailable,
        }
    }
}
