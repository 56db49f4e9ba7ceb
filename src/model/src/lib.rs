//! The vocabulary of Koios: what a series, a sample, a matcher and a moment are.
//!
//! Owns: labels in one compact allocation, matchers, samples and the stale marker, exemplars, metadata, native histograms with
//! their arithmetic, compensated sums, `i64` millisecond
//! timestamps, Prometheus durations, block ids, the clock trait, the closed set of error codes, and
//! numbers printed exactly as Go prints them.
//!
//! Refuses: files, sockets, async, configuration, any knowledge of chunks or blocks.
//!
//! Invariants: a `Labels` value is sorted by name, holds no empty value and no name twice; a timestamp
//! is milliseconds since the Unix epoch; nothing here reads the wall clock except `clock::SystemClock`.

pub mod clock;
pub mod duration;
pub mod error;
pub mod exemplar;
pub mod failpoint;
pub mod format;
pub mod histogram;
pub mod ids;
pub mod kahan;
pub mod labels;
pub mod matcher;
pub mod metadata;
pub mod regexp;
pub mod sample;
pub mod size;
pub mod timestamp;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Code, Coded};
pub use exemplar::Exemplar;
pub use histogram::{CounterReset, FloatHistogram};
pub use ids::{BlockId, Slot};
pub use labels::{Labels, LabelsBuilder, METRIC_NAME};
pub use matcher::{MatchType, Matcher};
pub use regexp::Regexp;
pub use sample::{Columns, STALE_NAN_BITS, Sample, is_stale, stale_nan};
