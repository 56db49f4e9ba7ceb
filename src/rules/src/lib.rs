//! Rules: groups, what recording rules compute, and Prometheus' rule unit tests.
//!
//! Owns the reading of rule files and test files, the evaluation of a recording rule as a pure function of
//! series and a time, and the verdict of a unit test. Refuses to know clocks, storage and the network.
//! Alerting rules are read and checked, not evaluated yet; whoever asks for an alert is told so.

pub mod eval;
pub mod file;
pub mod store;
pub mod unit;

pub use eval::{Recorded, record};
pub use file::{Group, Rule, RuleError, read_rules};
pub use store::SeriesStore;
pub use unit::{UnitReport, run_unit_file};
