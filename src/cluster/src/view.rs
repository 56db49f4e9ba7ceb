//! The routing view: one immutable picture of the cluster, pinned by a query for its whole life.
//!
//! Owns who is there, alive or dead, with what record. Refuses to be truth: it is one node's viewpoint
//! (`me`), and only steers where to ask.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::keys::{NodeRecord, NodeState};

/// Whether the failure detector hears a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Heard.
    Alive,
    /// Not heard; since when this node thinks so, milliseconds.
    Dead {
        /// Wall-clock milliseconds.
        since: i64,
    },
}

/// One node as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Unique name.
    pub name: String,
    /// Grows with every start.
    pub generation: u64,
    /// Where it gossips.
    pub gossip: SocketAddr,
    /// Heard or not.
    pub liveness: Liveness,
    /// What it says of itself, or said last.
    pub record: NodeRecord,
}

impl Member {
    /// Heard by the failure detector.
    pub fn is_alive(&self) -> bool {
        self.liveness == Liveness::Alive
    }

    /// Alive and in full part.
    pub fn is_ready(&self) -> bool {
        self.is_alive() && self.record.state == NodeState::Ready
    }

    /// Alive and able to answer for its data.
    pub fn answers(&self) -> bool {
        self.is_alive() && self.record.state.answers()
    }

    /// Alive and able to answer for what it alone holds.
    pub fn is_open(&self) -> bool {
        self.is_alive() && self.record.state.is_open()
    }

    /// State as shown to users: the node's own, or `dead`, or `left` after a drain.
    pub fn shown_state(&self) -> &'static str {
        match (self.liveness, self.record.state) {
            (Liveness::Alive, state) => state.as_str(),
            (Liveness::Dead { .. }, NodeState::Leaving) => "left",
            (Liveness::Dead { .. }, _) => "dead",
        }
    }
}

/// An immutable view.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// Counts the views of this process.
    pub seq: u64,
    /// The observer's name.
    pub me: String,
    /// Cluster name.
    pub cluster: String,
    /// All known nodes by name, the observer included.
    pub members: BTreeMap<String, Arc<Member>>,
}

impl ClusterView {
    /// The observer itself.
    pub fn own(&self) -> Option<&Arc<Member>> {
        self.members.get(&self.me)
    }

    /// Ready nodes with a role, in name order.
    pub fn ready(&self, role: &str) -> Vec<Arc<Member>> {
        self.members.values().filter(|m| m.is_ready() && m.record.roles.has(role)).cloned().collect()
    }

    /// Hash of (name, generation, zone, weight) of all ready nodes: equal hashes mean equal ownership.
    pub fn ring_hash(&self) -> u64 {
        let mut text = String::new();
        for m in self.members.values().filter(|m| m.is_ready()) {
            let r = &m.record;
            text.push_str(&format!(
                "{}\n{}\n{}\n{}\n{}\n",
                m.name,
                m.generation,
                r.zone,
                r.weight,
                r.roles.names().join(",")
            ));
        }
        xxh64(text.as_bytes(), 0)
    }
}
