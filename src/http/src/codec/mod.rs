//! From bytes to parameters and from results to bytes.

pub mod exposition;
pub mod json;
pub mod params;
pub mod reply;
pub mod result;
pub mod stats;
pub mod terms;
