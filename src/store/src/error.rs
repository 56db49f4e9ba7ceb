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
    /// Reading a block failed.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl Coded for StoreError {
    fn code(&self) -> Code {
        match self {
            StoreError::Bucket(e) => e.code(),
            StoreError::Damaged { .. } => Code::Internal,
            StoreError::Block(e) => e.code(),
        }
    }
}
