//! Who may run a query now.

pub mod compute;
pub mod desk;

pub use compute::QueryCompute;
pub use desk::{ActiveQuery, DeskAdmission, QueryDesk};
