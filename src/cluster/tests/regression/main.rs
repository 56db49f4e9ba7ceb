//! What went wrong with gossip elsewhere, and what its engine does when it is used as it comes: each of these has taken
//! down or confused a cluster of somebody. Real services on loopback, sealed, in one process.

#[path = "../house/mod.rs"]
mod house;

mod churn;
mod crowd;
mod hostile;
mod identity;
mod network;
mod rotation;
