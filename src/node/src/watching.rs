//! What this node tells its log of events: it looks at views as they come and, once a second, at what else may have
//! changed.
//!
//! Owns only the memory of the last look. Views that come in a burst are seen as one change. Ends with the gossip service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use koios_actors::blocks::{Compactor, LocalBlocks};
use koios_actors::kit::Mailroom;
use koios_actors::scrape::TargetBoard;
use koios_cluster::events::{EventLog, Kind, News, between};
use koios_cluster::{ClusterView, Gossip};
use koios_model::BlockId;
use koios_query::Peers;
use koios_store::CatalogueView;
use tokio::runtime::Handle;

const LOOK: Duration = Duration::from_secs(1);
/// Looks after which slots that no longer move are told: half a cluster's moves are no news.
const SETTLED: u32 = 2;

/// Where it looks.
pub struct Watching {
    pub gossip: Arc<Gossip>,
    pub peers: Arc<Peers>,
    pub board: Arc<TargetBoard>,
    pub catalogue: Arc<ArcSwap<CatalogueView>>,
    pub compactor: Arc<OnceLock<(Mailroom<Compactor>, Arc<LocalBlocks>)>>,
    pub events: Arc<EventLog>,
}

/// What was seen last.
#[derive(Default)]
struct Seen {
    view: Arc<ClusterView>,
    ejected: BTreeSet<String>,
    damaged: BTreeSet<BlockId>,
    failed: u64,
    panics: u64,
    slots: Slots,
}

/// Slots scraped here, by job: as told last, as seen last, and for how many looks nothing moved.
#[derive(Default)]
struct Slots {
    told: BTreeMap<String, usize>,
    seen: BTreeMap<String, usize>,
    still: u32,
}

impl Watching {
    /// Looks until the gossip service ends.
    pub fn start(self, net: &Handle) {
        net.spawn(async move {
            let mut views = self.gossip.subscribe();
            let mut ticker = tokio::time::interval(LOOK);
            let mut seen = Seen::default();
            loop {
                tokio::select! {
                    changed = views.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let view = views.borrow_and_update().clone();
                        between(&seen.view, &view).into_iter().for_each(|news| self.events.add(news));
                        seen.view = view;
                    }
                    _ = ticker.tick() => self.look(&mut seen),
                }
            }
        });
    }

    fn look(&self, seen: &mut Seen) {
        let me = seen.view.me.clone();
        let tell = |kind, node: &str, what: String, why: String| {
            self.events.add(News { kind, node: node.to_owned(), what, why });
        };
        let ejected = self.peers.reach().ejected();
        for name in ejected.difference(&seen.ejected) {
            let why = "a call to it failed; it is asked last for ten seconds".to_owned();
            tell(Kind::Reach, name, format!("{name} cannot be reached from {me}"), why);
        }
        for name in seen.ejected.difference(&ejected) {
            tell(Kind::Reach, name, format!("{name} is asked again by {me}"), String::new());
        }
        seen.ejected = ejected;
        let catalogue = self.catalogue.load();
        for (id, why) in catalogue.damaged().iter().filter(|(id, _)| !seen.damaged.contains(id)) {
            tell(Kind::Data, &me, format!("block {id} is put aside"), why.clone());
        }
        seen.damaged = catalogue.damaged().keys().copied().collect();
        let failed = self.compactor.get().map_or(0, |(_, local)| local.stats.failed.load(Ordering::Relaxed));
        if failed > seen.failed {
            tell(Kind::Node, &me, format!("a merge of blocks failed on {me}"), "see its log".to_owned());
        }
        seen.failed = failed;
        let panics = koios_telemetry::panics();
        if panics > seen.panics {
            let why = "a bug; its log has the place".to_owned();
            tell(Kind::Node, &me, format!("a panic was caught on {me}"), why);
        }
        seen.panics = panics;
        if let Some(what) = seen.slots.look(self.board.counts().1) {
            let why = "owners follow the ready nodes and the targets".to_owned();
            tell(Kind::Ownership, &me, format!("{me} {what}"), why);
        }
    }
}

impl Slots {
    /// Takes the slots of now; what there is to tell.
    fn look(&mut self, now: BTreeMap<String, usize>) -> Option<String> {
        self.still = if now == self.seen { self.still + 1 } else { 0 };
        self.seen = now;
        if self.still < SETTLED || self.seen == self.told {
            return None;
        }
        let sum = |m: &BTreeMap<String, usize>| m.values().sum::<usize>();
        let (before, after) = (sum(&self.told), sum(&self.seen));
        self.told = self.seen.clone();
        Some(format!("scrapes {after} slots of targets now, it was {before}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_are_told_once_when_they_are_over() {
        let mut slots = Slots::default();
        let jobs = |n| BTreeMap::from([("j".to_owned(), n)]);
        let told: Vec<Option<String>> =
            [0, 3, 5, 5, 5, 5, 4, 5, 5, 5].into_iter().map(|n| slots.look(jobs(n))).collect();
        let told: Vec<(usize, String)> =
            told.into_iter().enumerate().filter_map(|(i, t)| Some((i, t?))).collect();
        assert_eq!(told, [(4, "scrapes 5 slots of targets now, it was 0".to_owned())]);
    }
}
