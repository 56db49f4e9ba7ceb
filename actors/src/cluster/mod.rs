//! The node's place in the cluster.

pub mod membership;

pub use membership::{Membership, MembershipSetup, SetState};
