//! The HTTP face of a node: Prometheus' API and Koios' own, one file per endpoint.
//!
//! Owns decoding requests (`codec::params`), encoding answers (`codec`), the one map from error codes to
//! statuses (`codec::reply`), the routes (`routes`), and the pages (`pages`). What it shows it gets through
//! `state`: the query front, the cluster view, and small ports for targets and status.
//!
//! Refuses to compute: a handler decodes, awaits the front on the network runtime, encodes. No storage, no
//! actor.

pub mod api;
pub mod codec;
pub mod facts;
pub mod lifecycle;
pub mod pages;
pub mod routes;
pub mod state;
pub mod stopping;

pub use api::read::READS_MAX;
pub use routes::configure;
pub use state::{ApiState, NodeFacts, NodePort, Readiness};
