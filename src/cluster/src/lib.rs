//! Who is in the cluster, who owns what, and how nodes find each other.
//!
//! Owns: the chitchat wrapper with its sealed transport, every gossip key (`keys`), the routing view
//! (`view`), the diff between two views (`change`), ownership by weighted rendezvous (`ownership`), the
//! doorbell that lets a joiner say precisely why it cannot join (`doorbell`, `join`), identity and known
//! peers on disk, local ejection of peers that gossip still calls alive (`reach`), and what happened lately (`events`). Beside them the pure cores that
//! decide about data without holding any: replica sets of pushed series (`replicas`), their quorum (`quorum`), who
//! scrapes through a change of owner (`handover`, `freeze`) and who has too much of it (`balance`), who asks a source of targets for its zone (`discovery`), when a block may be let go (`unload`), and what becomes
//! of the log of a lost node (`adoption`). They take time as an argument and give actions; actors carry them out.
//!
//! Refuses: data. Nothing here holds a sample; a wrong view may cost latency only (design, law 4). No actor, no HTTP.
//!
//! Invariants: a published `ClusterView` never changes; a node's own gossip state is re-asserted every
//! round; at most 16 keys and 2 KB are gossiped per node; no frame on the wire exceeds 1,200 bytes.

pub mod adoption;
pub mod balance;
pub mod change;
pub mod discovery;
pub mod doorbell;
pub mod error;
pub mod events;
pub mod frame;
pub mod freeze;
pub mod gossip;
pub mod handover;
pub mod identity;
pub mod join;
pub mod keys;
pub mod losses;
pub mod namesake;
mod outer;
pub mod ownership;
pub mod peers;
pub mod quorum;
pub mod reach;
pub mod replay;
pub mod replicas;
pub mod secret;
pub mod sole;
pub mod told;
pub mod transport;
pub mod unload;
pub mod view;

pub use adoption::LogId;
pub use balance::Balance;
pub use change::{Change, diff};
pub use error::{ClusterError, JoinProblem};
pub use events::EventLog;
pub use freeze::Freeze;
pub use gossip::{Gossip, GossipHealth, GossipOptions, Rival};
pub use handover::Handover;
pub use keys::{HeadSummary, NodeRecord, NodeState, Roles, SoleRange};
pub use losses::Losses;
pub use ownership::{owners, ranked};
pub use quorum::Quorum;
pub use reach::Reach;
pub use replicas::Replicas;
pub use secret::KeyRing;
pub use sole::SoleTracker;
pub use unload::Unload;
pub use view::{ClusterView, Liveness, Member};
