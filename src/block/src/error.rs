//! What can be wrong with a block, said with the file, the place and the reason.

use std::path::{Path, PathBuf};

use koios_chunk::ChunkError;
use koios_model::{Code, Coded};

/// Why a block cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The operating system refused.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried, e.g. `open`.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Bytes that break the format.
    #[error("{file} is damaged at byte {offset}: {what}")]
    Damaged {
        /// `index`, `chunks/000001`, `tombstones`.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Bytes that nobody has fetched.
    #[error("byte {offset} of {file} is not here")]
    Absent {
        /// `index`, `chunks/000001`.
        file: String,
        /// Where in the file.
        offset: u64,
    },
    /// A version that this reader does not know.
    #[error("{file} version {version} is not supported yet")]
    Version {
        /// Which file.
        file: &'static str,
        /// The version found.
        version: u8,
    },
    /// `meta.json` does not say what it must.
    #[error("{}: {detail}", path.display())]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong and, where known, on which line.
        detail: String,
    },
    /// A chunk that does not decode.
    #[error("chunk {reference:#x}: {source}")]
    Chunk {
        /// Segment in the upper 32 bits, byte offset in the lower.
        reference: u64,
        /// Why.
        source: ChunkError,
    },
    /// The caller of a writer broke its contract, or a limit of the format is reached.
    #[error("cannot write the block: {0}")]
    Write(String),
}

impl BlockError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what, path, source }
    }
}

impl Coded for BlockError {
    fn code(&self) -> Code {
        match self {
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => Code::NotFound,
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Code::Unavailable,
                _ => Code::Internal,
            },
            Self::Chunk { source, .. } => source.code(),
            Self::Absent { .. } => Code::Unavailable,
            _ => Code::Internal,
        }
    }
}
