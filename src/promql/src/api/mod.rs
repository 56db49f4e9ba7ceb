//! What a caller gives to the engine and gets back from it.
//!
//! Owns parameters, the trait that series arrive through, results, errors and the control block (cancel,
//! deadline, budgets). No evaluation here; nothing here reads a clock or storage.

mod control;
mod error;
mod floats;
mod helpers;
mod output;
mod params;
mod push;
mod source;

pub use control::{Budget, Charge, Control};
pub use error::EvalError;
pub(crate) use floats::ABSENT;
pub use floats::Floats;
pub use helpers::{Helpers, Job};
pub use output::{MatrixSeries, QueryOutput, QueryStats, SampleValue, Value, VectorSample};
pub use params::{EngineOptions, Hints, Limits, QueryParams, Select};
pub use push::{Pushable, PushedRow, PushedRows};
pub use source::{MemorySeries, SeriesReader, SeriesSet, SeriesSource};
