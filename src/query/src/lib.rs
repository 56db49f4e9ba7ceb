//! Queries over the whole cluster: fragments, routing, deduplication, completeness.
//!
//! Owns the way of a query from parsed expression to result: one pinned view, a plan of fragments (`plan`),
//! the questions to peers and their answers (`wire`, `client`, `server`, `local`), the rounds of the
//! coordinator (`coordinator`), replicas into one series (`merge`), the verdict on completeness
//! (`completeness`), and the front that HTTP and rules call (`front`).
//!
//! Refuses PromQL semantics (crate `promql`), block formats and JSON.
//!
//! Invariants: an answer is complete or names what is missing and why; the same question on settled data
//! gives the same bits on every node; a partial answer is never presented as whole.

pub mod completeness;
pub mod merge;
pub mod plan;
#[cfg(test)]
mod testing;
