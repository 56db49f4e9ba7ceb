//! Blocks in the bucket: which there are, which cover a range, and answers from them.
//!
//! Owns the catalogue (block metadata and lineage cover), the shelf of opened blocks and the fetched ones on disk, the meaning of a block's external labels
//! in an answer, Thanos' StoreAPI on both sides (`storeapi`), and the endpoints beside the cluster (`federation`). Refuses
//! PromQL, gossip and schedules: others decide when to refresh.
//!
//! Invariants: nothing is served whose index does not verify; a block whose sources another block holds too
//! is left out, so no sample is counted twice; a damaged block is put aside with its reason and the rest goes
//! on.

mod cache;
pub mod catalogue;
pub mod counts;
pub mod cover;
pub mod error;
pub mod federation;
mod known;
pub mod prepare;
pub mod served;
pub mod shard;
pub mod shelf;
mod sparse;
pub mod storeapi;
pub mod visible;

pub use catalogue::{Catalogue, CatalogueView};
pub use cover::Cover;
pub use error::StoreError;
pub use prepare::{Depth, Prepared, Question};
pub use served::{Dress, ServedBlock};
pub use shard::SeriesShard;
pub use shelf::Shelf;
pub use visible::{Marks, Visibility};
