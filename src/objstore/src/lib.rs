//! The bucket: one interface over a local directory and object stores, laid out as Thanos lays it out.
//!
//! Owns opening a bucket from Thanos' YAML, its identity, listing blocks, uploading a block so that nobody
//! ever sees half of it (meta.json last), fetching one, and create-if-absent. Everything of Koios' own lies
//! under `_koios/`.
//!
//! Refuses to know what is inside a block. S3, GCS and Azure arrive with the store issue: their YAML is
//! recognised and refused with words. The fault-injecting wrapper's place is beside `bucket`.

pub mod bucket;
pub mod config;
pub mod error;
pub mod transfer;

pub use bucket::Bucket;
pub use config::BucketConfig;
pub use error::ObjstoreError;
