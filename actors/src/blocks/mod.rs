//! Blocks: what is cut from the head, what lies in the bucket, and what is done to it there.

pub mod adopter;
pub mod catalogue;
pub mod compactor;
mod deletion;
pub mod local;
mod merging;
pub mod moved;
mod retaining;
pub mod shipper;
pub mod shipping;
pub mod uploader;

pub use adopter::{AdoptStats, Adopter, AdopterSetup};
pub use catalogue::{CatalogueActor, CatalogueHandle, NotRead, Refresh, Withdraw};
pub use compactor::{CleanTombstones, CompactNow, Compactor, DeleteSeries, RoundReport, SnapshotBlocks};
pub use local::{LocalBlocks, LocalSetup, LocalStats};
pub use shipper::{Finish, ShipStats, Shipper, ShipperSetup};
pub use uploader::{CutAll, CutReport, Uploader, UploaderSetup};
