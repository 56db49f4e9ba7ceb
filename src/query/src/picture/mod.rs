//! How the cluster is, as one node can tell: what `/cluster`, its API and its text show.
//!
//! Owns the judgement: whether it is well and what to do when it is not (`health`), for which times data is there
//! (`coverage`), whether this node may stop (`stop`), and who would be asked for a query (`explain`). It uses the rules
//! that queries go by (`completeness`, `plan`), so what is shown here as missing is what an answer would lack.
//!
//! Refuses to ask anybody: everything is computed from one pinned view, one picture of the bucket and the list of peers
//! that could not be reached lately. Pure; no JSON, no words about layout. Like any view it may be wrong about others,
//! which is why `Agreement` says who sees it otherwise.

pub mod coverage;
pub mod explain;
pub mod health;
pub mod stop;
#[cfg(test)]
mod tests;

use koios_cluster::{ClusterView, Liveness, Member};
use koios_store::CatalogueView;

pub use coverage::{Column, Cover, Coverage};
pub use explain::{Asked, Explained};
pub use health::{Agreement, Health, Issue, Level};

use crate::completeness::Absent;
use crate::plan;

/// What everything here is computed from.
pub struct Facts<'a> {
    /// Who is there.
    pub view: &'a ClusterView,
    /// What lies in the bucket of the observer.
    pub catalogue: &'a CatalogueView,
    /// Whether a peer could not be reached lately, whatever gossip says.
    pub ejected: &'a dyn Fn(&Member) -> bool,
    /// Wall clock, milliseconds.
    pub now_ms: i64,
}

impl Facts<'_> {
    /// Alive, answering, and yet not reached from here. Never the observer.
    pub fn is_unreached(&self, m: &Member) -> bool {
        m.name != self.view.me && m.answers() && (self.ejected)(m)
    }

    /// Nodes that a query would not hear now.
    pub fn absent(&self) -> Vec<Absent> {
        let mut absent =
            plan::plan(self.view, self.catalogue, &[], self.ejected, (i64::MIN, self.now_ms)).absent;
        let unreached = self.view.members.values().filter(|m| self.is_unreached(m));
        absent.extend(
            unreached.map(|m| Absent::from_member(self.view, m, "cannot be reached", self.catalogue)),
        );
        absent
    }
}

/// Since when a member is in the state that is shown, milliseconds.
pub fn since(m: &Member) -> i64 {
    match m.liveness {
        Liveness::Alive => m.record.since,
        Liveness::Dead { since } => since,
    }
}
