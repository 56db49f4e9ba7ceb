//! The head in memory: who the series are (`index`), what they hold (`series`, `open`, `closed`, `late`,
//! `pack`, and `pool` for their labels), who may see what
//! (`isolation`), and how it is read (`view`).
//!
//! One writer, the shard, and any number of readers. The writer takes a series' small lock for one sample at a
//! time and the index lock only to add or remove series, a few at a time.

pub(crate) mod closed;
pub(crate) mod exemplars;
pub(crate) mod index;
pub(crate) mod isolation;
pub(crate) mod late;
mod open;
mod pack;
mod pool;
pub(crate) mod series;
pub(crate) mod spill;
mod stats;
pub(crate) mod view;

pub use stats::{Cardinality, HeadStats};
pub use view::HeadView;
