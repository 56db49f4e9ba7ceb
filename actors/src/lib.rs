//! Every actor of a node, and the kit that makes actix fit for a database.
//!
//! Owns state ownership, schedules, admission and restart. Refuses formats, protocols and algorithms: work
//! is a method of an engine crate, an actor only decides when it runs and who hears of it.
//!
//! Laws: writes go through mailrooms, reads go around them (actors publish immutable views); `ask` edges
//! form a DAG, upwards there are only notifications; a message carries a batch, never one sample; every
//! mailroom has a bound.

pub mod blocks;
pub mod cluster;
pub mod ingest;
pub mod kit;
pub mod query;
pub mod scrape;
