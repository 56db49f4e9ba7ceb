//! The port to whatever keeps pushed samples: this node's shards, or a quorum of nodes.
//!
//! Owns the contract. The port answers once for the whole batch, and the answer tells apart what a sender can repair
//! by sending again from what it cannot.

use std::sync::Arc;
use std::time::Duration;

use crate::batch::PushBatch;
use crate::faults::Reason;

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushOutcome {
    /// Samples that are not stored and never will be, by their number in the batch, with the reason. All others are
    /// stored as durably as the node promises; a repetition of a stored sample counts as stored.
    pub rejected: Vec<(u32, Reason)>,
    /// How many exemplars were not taken; repetitions are not among them.
    pub exemplars_rejected: u32,
}

/// Why nothing can be said about the samples of a batch one by one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Some or all samples are not stored, or not surely, and sending all of it again can help: overload, lost
    /// quorum, a disk that takes no writes, a node that drains. A sender gets 503.
    #[error("{why}")]
    Unavailable {
        /// For the sender's log.
        why: String,
        /// How long it should wait.
        retry_after: Duration,
    },
    /// A deliberate limit on the rate of a tenant. A sender gets 429, which Prometheus drops unless told otherwise:
    /// never for overload.
    #[error("{why}")]
    RateLimited {
        /// For the sender's log.
        why: String,
        /// How long it should wait.
        retry_after: Duration,
    },
    /// The batch as a whole cannot be stored, now or later. A sender gets 400.
    #[error("{0}")]
    Refused(String),
    /// A fault of ours. A sender gets 500 and sends again.
    #[error("{0}")]
    Internal(String),
}

/// Keeps batches.
///
/// An implementation over several nodes counts its quorum per series. When for some series too few nodes answered, it
/// answers `Unavailable`, even though others are stored or refused for good: the sender sends all again, the stored
/// ones are repetitions then, and the refused ones are named the next time. A sample is in `rejected` only when so many
/// nodes refused it for good that a quorum cannot be reached any more.
#[async_trait::async_trait]
pub trait PushPort: Send + Sync + 'static {
    /// Stores a batch. Repeating a batch, or part of it, is always safe.
    ///
    /// # Errors
    /// When the batch did not get an outcome.
    async fn push(&self, batch: Arc<PushBatch>) -> Result<PushOutcome, PushError>;
}
