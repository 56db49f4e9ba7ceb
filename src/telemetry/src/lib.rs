//! Telemetry: one metrics registry per node, logs, and what happens on a panic.
//!
//! Owns: counters, gauges and classic histograms with bounded label cardinality, their text form for
//! `/metrics`, the `process_*` metrics, the log line format, and the panic hook.
//!
//! Refuses: global registries (many nodes live in one process in tests) and labels without a bound.
//!
//! Invariants: recording a value is one or two atomic operations and never locks; a family never has more than
//! its declared number of series, what is beyond goes to one series whose label values are `other`; the text
//! form is sorted, so equal states give equal bytes.

mod logging;
mod metrics;
mod panics;
mod process;
mod registry;
mod render;

pub use logging::{LogError, LogFormat, LogHandle, init_logging};
pub use metrics::{Counter, Gauge, Histogram, SECONDS};
pub use panics::{install_panic_hook, panics};
pub use process::process_collector;
pub use registry::{CounterVec, GaugeVec, HistogramVec, OTHER, Registry, SERIES_MAX};
pub use render::{Emitter, MetricKind};
