//! What goes into a shard and what comes back.

use std::sync::Arc;

use koios_chunk::IntHistogram;
use koios_model::histogram::FloatHistogram;
use koios_model::{Exemplar, Labels, Slot};

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

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A float, the stale marker included; after a histogram the marker is stored as the histogram's kind.
    Float(f64),
    /// A native histogram with integer counts.
    Histogram(Arc<IntHistogram>),
    /// A native histogram with float counts.
    FloatHistogram(Arc<FloatHistogram>),
}

impl From<f64> for Value {
    fn from(v: f64) -> Self {
        Self::Float(v)
    }
}

impl Value {
    /// Whether a repetition of a sample says the same: floats by bits, histograms by content.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Histogram(a), Self::Histogram(b)) => a == b,
            (Self::FloatHistogram(a), Self::FloatHistogram(b)) => {
                a == b && koios_model::is_stale(a.sum) == koios_model::is_stale(b.sum)
            }
            _ => false,
        }
    }

    /// The marker that a series of this kind ended.
    pub(crate) fn stale_of_kind(&self) -> Self {
        match self {
            Self::Float(_) => Self::Float(koios_model::stale_nan()),
            Self::Histogram(_) => Self::Histogram(Arc::new(IntHistogram::stale())),
            Self::FloatHistogram(_) => {
                let stale = FloatHistogram { sum: koios_model::stale_nan(), ..FloatHistogram::default() };
                Self::FloatHistogram(Arc::new(stale))
            }
        }
    }

    /// Whether spans and buckets fit together.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Self::Float(_) => true,
            Self::Histogram(h) => h.validate().is_ok(),
            Self::FloatHistogram(h) => h.is_stale() || h.validate().is_ok(),
        }
    }
}

/// One sample of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Which series.
    pub series: SeriesKey,
    /// Milliseconds since the epoch.
    pub t: i64,
    /// Value.
    pub v: Value,
}

/// Samples that become readable together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppendBatch {
    /// In the order in which they are appended.
    pub entries: Vec<Entry>,
}

/// One exemplar of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct ExemplarEntry {
    /// Which series; one that is not there is not made.
    pub series: SeriesKey,
    /// The exemplar.
    pub exemplar: Exemplar,
}

/// What became of exemplars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExemplarsAppended {
    /// Durable once the syncer reports at least this.
    pub lsn: Lsn,
    /// How many were new.
    pub stored: u64,
    /// Those that were not taken, by position. Repetitions are neither stored nor rejected.
    pub rejected: Vec<(usize, ExemplarReject)>,
}

/// Why one exemplar was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ExemplarReject {
    /// The bound is 0.
    #[error("exemplar storage is disabled")]
    Disabled,
    /// Names and values have more than 128 characters.
    #[error("label length for exemplar exceeds maximum of 128 UTF-8 characters")]
    LabelsTooLong,
    /// Before the newest exemplar of the series.
    #[error("out of order exemplar")]
    OutOfOrder,
    /// The series is not there.
    #[error("unknown series of an exemplar")]
    UnknownSeries,
}

/// Exemplars of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// Which replica they come from.
    pub slot: Slot,
    /// Labels of the series, without the replica.
    pub labels: Labels,
    /// By time.
    pub exemplars: Vec<Exemplar>,
}

/// Counts of the exemplars of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExemplarStats {
    /// Exemplars held.
    pub stored: u64,
    /// Series that have some.
    pub series: u64,
    /// The bound.
    pub max: u64,
    /// Exemplars taken since the shard was opened, replayed ones included.
    pub appended: u64,
    /// Exemplars refused because an older one was newer.
    pub out_of_order: u64,
    /// Time of the newest; `i64::MIN` when there is none.
    pub newest: i64,
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
    /// Its spans and buckets do not fit, or its schema is none that is stored.
    #[error("histogram is inconsistent")]
    BadHistogram,
    /// The reference names no series (any more): send the labels.
    #[error("unknown series reference")]
    UnknownRef,
    /// The shard has as many series as it may.
    #[error("series limit of the shard reached")]
    SeriesLimit,
}
