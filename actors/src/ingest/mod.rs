//! From batches to durable samples: distributor, shards, journals.
//!
//! `Scraper → Distributor → Shard → Journal` is the only path of a write; what is pushed enters by `Replicated` and, on each
//! node that keeps a copy, `LocalPush`. Readers take `HeadViews` and meet
//! none of them.

pub mod distributor;
pub mod error;
pub mod heads;
pub mod journal;
pub mod push;
pub mod replicated;
pub mod shard;

pub use distributor::{Distributor, Home, SeriesId, Write, WriteExemplar, Written, WrittenExemplars};
pub use error::IngestError;
pub use heads::HeadViews;
pub use journal::Journal;
pub use push::LocalPush;
pub use replicated::{Copies, Replicated, ReplicatedSetup, declare};
pub use shard::{
    Append, AppendExemplars, AppendMetadata, Checkpoint, Delete, LogHandle, RefuseBefore, ShardActor, Sync,
    Truncate,
};
