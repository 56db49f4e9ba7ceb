//! The bucket: one interface over a local directory and object stores, laid out as Thanos lays it out.
//!
//! Owns opening a bucket from Thanos' YAML (`config`, `provider`), its identity, listing blocks, uploading a block so that
//! nobody ever sees half of it (meta.json last), fetching one, create-if-absent, slow reads that are asked twice (`hedged`), and
//! a store that misbehaves on purpose for tests (`faults`). Everything of Koios' own lies under `_koios/`.
//!
//! Refuses to know what is inside a block.

pub mod bucket;
pub mod config;
pub mod error;
pub mod faults;
mod hedged;
mod provider;
pub mod ranges;
pub mod transfer;

pub use bucket::Bucket;
pub use config::{BucketConfig, Provider};
pub use error::ObjstoreError;
