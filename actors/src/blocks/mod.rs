//! Blocks: what is cut from the head, what lies in the bucket.

pub mod catalogue;
pub mod uploader;

pub use catalogue::{CatalogueActor, CatalogueHandle, Refresh};
pub use uploader::{CutAll, CutReport, Uploader, UploaderSetup};
