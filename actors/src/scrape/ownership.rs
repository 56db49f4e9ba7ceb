//! Which slots of a target are this node's. Pure.
//!
//! Every node with the same view computes the same owners: slot `i` belongs to the `i`-th node in rank order
//! over distinct zones. There are never more slots than nodes.

use koios_cluster::{ClusterView, owners};
use koios_model::Slot;

/// Slots of the target with `key` that the observer of `view` owns; none unless it is ready.
pub fn my_slots(view: &ClusterView, key: u64, replicas: u8) -> Vec<Slot> {
    let candidates = view.ready("scrape");
    let wanted = usize::from(replicas.clamp(1, Slot::MAX)).min(candidates.len());
    owners(&candidates, key, wanted)
        .iter()
        .enumerate()
        .filter(|(_, m)| m.name == view.me)
        .map(|(i, _)| Slot(i as u8))
        .collect()
}

/// How long the last owner goes on after it lost a slot: two intervals and ten seconds, so that the new one
/// has scraped. Scraping twice costs nothing, a gap cannot be mended.
pub fn linger_ms(interval_ms: i64) -> i64 {
    2 * interval_ms.max(0) + 10_000
}
