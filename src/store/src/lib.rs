//! Blocks in the bucket: which there are, which cover a range, and answers from them.
//!
//! Owns the catalogue (block metadata and lineage cover), the shelf of opened blocks, and the meaning of a
//! block's external labels in an answer. Refuses PromQL, gossip and schedules: actors decide when to refresh.
//!
//! Invariants: nothing is served whose index does not verify; a block whose sources another block holds too
//! is left out, so no sample is counted twice; a damaged block is put aside with its reason and the rest goes
//! on. The Thanos StoreAPI and range reads from object stores take their place here with the store issue.

pub mod catalogue;
pub mod cover;
pub mod error;
pub mod served;
pub mod shelf;
pub mod visible;

pub use catalogue::{Catalogue, CatalogueView};
pub use cover::Cover;
pub use error::StoreError;
pub use served::{Dress, ServedBlock};
pub use shelf::Shelf;
pub use visible::Visibility;
