//! What goes into a shard and what comes back.

use koios_model::{Labels, Slot};

/// Short name of a series inside one shard. Stays valid until the series is removed; then appends to it are
/// answered with `Reject::UnknownRef` and the caller sends the labels again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(pub u64);

impl SeriesRef {
    /// No series: what a rejected entry with labels gets.
    pub const NONE: Self = Self(0);
}

/// A position in the log: everything up to it was written. Positions of one shard only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    pub(crate) fn new(segment: u64, offset: u64) -> Self {
        Self((segment << 32) | offset)
    }
}

/// How an entry names its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeriesKey {
    /// By the reference that an earlier append answered.
    Ref(SeriesRef),
    /// By replica and labels; the series is created when it is not there.
    New(Slot, Labels),
}

/// One float sample of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Which series.
    pub series: SeriesKey,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// Value, the stale marker included.
    pub v: f64,
}

/// Samples that become readable together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppendBatch {
    /// In the order in which they are appended.
    pub entries: Vec<Entry>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Durable once the syncer reports at least this.
    pub lsn: Lsn,
    /// Per entry, the reference to use next time; `SeriesRef::NONE` for an entry that was refused unresolved.
    pub refs: Vec<SeriesRef>,
    /// Entries that were not taken, by position; all others were.
    pub rejected: Vec<(usize, Reject)>,
}

/// Why one sample was not taken. The others of its batch are not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reject {
    /// Older than the newest sample of its series.
    #[error("out of order sample")]
    OutOfOrder,
    /// The series has another value at this time.
    #[error("duplicate sample for timestamp")]
    Duplicate,
    /// Older than the head takes.
    #[error("too old sample")]
    TooOld,
    /// Further ahead of the clock than allowed.
    #[error("sample is too far in the future")]
    TooFarInFuture,
    /// The reference names no series (any more): send the labels.
    #[error("unknown series reference")]
    UnknownRef,
    /// The shard has as many series as it may.
    #[error("series limit of the shard reached")]
    SeriesLimit,
}
