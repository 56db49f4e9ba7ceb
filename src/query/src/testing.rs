//! Members and views for the tests of this crate.

use std::sync::Arc;

use crate::scope::{Scope, Shard};
use koios_cluster::{ClusterView, Liveness, Member, NodeRecord, NodeState};
use koios_store::Dress;

/// A ready member on a bucket.
pub fn member(name: &str, bucket: &str) -> Member {
    Member {
        name: name.into(),
        generation: 1,
        gossip: ([127, 0, 0, 1], 1).into(),
        liveness: Liveness::Alive,
        record: NodeRecord {
            state: NodeState::Ready,
            bucket: bucket.into(),
            ..NodeRecord::new("z", ([127, 0, 0, 1], 2).into(), ([127, 0, 0, 1], 3).into())
        },
    }
}

/// A question for everything, without bounds.
pub fn scope() -> Scope {
    Scope {
        query_id: String::new(),
        mint: i64::MIN,
        maxt: i64::MAX,
        own: false,
        blocks: Vec::new(),
        whole_bucket: false,
        series_max: u64::MAX,
        bytes_max: u64::MAX,
        samples_max: u64::MAX,
        shard: Shard::WHOLE,
        may_split: false,
        max_resolution_ms: 0,
        dress: Dress::Home,
    }
}

/// A view of `me` over `members`.
pub fn view(me: &str, members: Vec<Member>) -> ClusterView {
    let members = members.into_iter().map(|m| (m.name.clone(), Arc::new(m))).collect();
    ClusterView { seq: 1, me: me.into(), cluster: "test".into(), members }
}
