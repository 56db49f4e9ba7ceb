//! Counts of the receiver, for the node's metrics.
//!
//! Owns plain atomics; whoever exports them gives them names.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::faults::Reason;
use crate::negotiate::Message;

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// All of it is stored.
    Stored = 0,
    /// Some or all of it is refused for good.
    Refused = 1,
    /// The sender is to send it again.
    Again = 2,
}

impl Outcome {
    /// Every outcome, by number.
    pub const ALL: [Self; 3] = [Self::Stored, Self::Refused, Self::Again];

    /// For the `outcome` label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Refused => "refused",
            Self::Again => "again",
        }
    }
}

/// The counts. They only grow.
#[derive(Debug, Default)]
pub struct Counters {
    requests: [[AtomicU64; Outcome::ALL.len()]; Message::ALL.len()],
    rejected: [AtomicU64; Reason::ALL.len()],
    /// Requests of a type or encoding that is not taken.
    pub unsupported: AtomicU64,
    /// Bytes of bodies as they were sent.
    pub bytes: AtomicU64,
    /// Float samples sent, whatever became of them.
    pub floats: AtomicU64,
    /// Native histograms sent, whatever became of them.
    pub histograms: AtomicU64,
    /// Exemplars sent, whatever became of them.
    pub exemplars: AtomicU64,
    /// Exemplars that were not stored.
    pub exemplars_rejected: AtomicU64,
    /// Series of version 1 that were dropped because of their labels.
    pub dropped_series: AtomicU64,
    /// Samples and histograms of these.
    pub dropped_samples: AtomicU64,
    /// Requests that had such series.
    pub(crate) requests_with_drops: AtomicU64,
}

impl Counters {
    /// Requests by message and outcome.
    pub fn requests(&self, message: Message, outcome: Outcome) -> u64 {
        self.requests[message as usize][outcome as usize].load(Ordering::Relaxed)
    }

    /// Samples refused for a reason.
    pub fn rejected(&self, reason: Reason) -> u64 {
        self.rejected[reason as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn request(&self, message: Message, outcome: Outcome) -> u64 {
        self.requests[message as usize][outcome as usize].fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn reject(&self, reason: Reason, samples: u64) {
        self.rejected[reason as usize].fetch_add(samples, Ordering::Relaxed);
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) -> u64 {
    counter.fetch_add(n, Ordering::Relaxed) + n
}
