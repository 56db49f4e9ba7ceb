//! What can go wrong between the bucket and an answer.

use koios_block::BlockError;
use koios_model::{BlockId, Code, Coded};
use koios_objstore::ObjstoreError;

/// Errors of the store crate.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The bucket did not answer.
    #[error(transparent)]
    Bucket(#[from] ObjstoreError),
    /// A block is damaged.
    #[error("block {id}: {detail}")]
    Damaged {
        /// Which.
        id: BlockId,
        /// What is wrong with it.
        detail: String,
    },
    /// A mark of a block says nothing.
    #[error("not a mark: {0}")]
    Mark(String),
    /// Reading a block failed.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl Coded for StoreError {
    fn code(&self) -> Code {
        match self {
            StoreError::Bucket(e) => e.code(),
            StoreError::Damaged { .. } | StoreError::Mark(_) => Code::Internal,
            StoreError::Block(e) => e.code(),
        }
    }
}
