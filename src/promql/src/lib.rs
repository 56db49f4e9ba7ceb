//! Koios PromQL: lexer, parser, printer, planner and engine.
//!
//! Owns the whole language as of Prometheus 3.14 and its evaluation over series that the caller provides.
//! Refuses to know storage, network, clocks or threads: a caller parses a query, makes a `Plan`, fetches
//! what `Plan::selects` names from wherever it is, and hands it to `Plan::evaluate`.
//!
//! Invariants: evaluation is a pure function of the plan and the series, independent of the order in which
//! series arrive; everything that grows is counted against `Limits`; `Control` stops it within 100 ms.

mod aggregates;
pub mod api;
mod binary;
mod engine;
mod functions;
mod histograms;
mod plan;
pub mod script;
mod stack;
pub mod syntax;

pub use api::{
    Budget, Charge, Control, EngineOptions, EvalError, Floats, Helpers, Hints, Job, Limits, MatrixSeries,
    MemorySeries, Pushable, PushedRow, PushedRows, QueryOutput, QueryParams, QueryStats, SampleValue, Select,
    SeriesReader, SeriesSet, SeriesSource, Value, VectorSample,
};
pub use engine::bare_notes;
pub use plan::Plan;
pub use syntax::ast::Expr;
pub use syntax::{ParseError, ParserOptions, expr_to_json, parse, parse_selector, parse_with, prettify};
