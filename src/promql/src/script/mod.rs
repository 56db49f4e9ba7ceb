//! The runner of promqltest scripts.
//!
//! Owns the script language (reference: `promql/promqltest` of Prometheus): `load`, `load_with_nhcb`,
//! `clear`, `eval instant`, `eval range` and all expectations. Every instant evaluation is repeated with `@`
//! at other times and as the middle of a range query, as upstream does. Series live in memory.

mod compare;
mod parse;
mod run;
mod series;
mod store;
mod values;

pub use run::{Failure, ScriptReport, run_script};
pub use series::{read_histogram, read_metric, read_series};
