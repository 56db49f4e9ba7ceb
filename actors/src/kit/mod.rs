//! What actix 0.13 lacks, one file each; nothing outside this folder may use the calls it replaces.
//!
//! `mailroom` bounds what waits for an actor, `warden` restarts it after a panic, `drain` stops a node in
//! order, `roll` knows who is there, `plan` says which thread an actor lives on, `clock` re-arms timers from
//! an absolute schedule, `reply` turns mailbox failures into our errors, `compute` is the one pool for CPU
//! work.

pub mod clock;
pub mod compute;
pub mod drain;
pub mod mailroom;
pub mod plan;
pub mod reply;
pub mod roll;
pub mod warden;

pub use compute::ComputePool;
pub use drain::Drain;
pub use mailroom::{Letter, Mailroom};
pub use plan::Plan;
pub use reply::AskError;
pub use roll::Roll;
pub use warden::{Flare, Warden};
