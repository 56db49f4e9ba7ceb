//! Restarts without end.

use std::time::Duration;

use koios_cluster::freeze::Freeze;
use koios_cluster::{Gossip, GossipOptions};

use crate::house::{House, PATIENCE, free_addresses, ready, record, within};

const INTERVAL: Duration = Duration::from_millis(100);
const NODES: usize = 12;
const ROUNDS: usize = 24;
/// What a churn without a grace that is shorter than it would leave.
const ALL_IDS: u64 = (NODES * ROUNDS) as u64;

/// Twenty-four restarts of half the nodes, faster than a death is noticed. Time is scaled by ten, with the grace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s37_churn_leaves_few_identities_no_panic_and_no_settled_view_to_unload_by() {
    let mut house = House::new(INTERVAL);
    house.grace = Duration::from_secs(3);
    let at = free_addresses(NODES);
    let start = async |i: usize, generation: u64| {
        for _ in 0..500 {
            let options = house.options(&format!("n{i:02}"), at[i], generation);
            let options = GossipOptions { seeds: at[..3].to_vec(), ..options };
            if let Ok(g) = Gossip::start(options, record(["x", "y", "z"][i % 3])).await {
                return g;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the port of {i} does not become free")
    };
    let mut nodes: Vec<Option<Gossip>> = Vec::new();
    for i in 0..NODES {
        nodes.push(Some(start(i, 1).await));
    }
    let mut freeze = Freeze::default();
    let mut most = 0;
    for round in 0..ROUNDS {
        for i in (0..NODES).filter(|i| i % 2 == round % 2 && *i > 0) {
            nodes[i] = None;
            nodes[i] = Some(start(i, round as u64 + 2).await);
        }
        tokio::time::sleep(3 * INTERVAL).await;
        let watcher = nodes[0].as_ref().unwrap();
        most = most.max(watcher.health().ids());
        // Ten times slower, as it would be.
        let now_ns = round as u64 * 10 * 1_000_000_000;
        freeze.look(now_ns, &watcher.view());
        assert!(!freeze.is_settled(now_ns), "blocks could be unloaded in round {round}");
    }
    let agreed = || {
        let hash = nodes[0].as_ref().unwrap().view().ring_hash();
        let odd =
            nodes.iter().flatten().map(|g| g.view()).find(|v| ready(v) != NODES || v.ring_hash() != hash);
        let ills: Vec<(u64, u64)> =
            nodes.iter().flatten().map(|g| (g.health().ids(), g.health().task_restarts())).collect();
        odd.map_or(Ok(()), |v| {
            Err(format!("{} sees {} of {NODES}; ids and restarts: {ills:?}", v.me, ready(&v)))
        })
    };
    let took = within("all agree in the end", PATIENCE, agreed).await;
    println!("churn: at most {most} identities of {ALL_IDS}; agreed after {took:?}");
    assert!(most < ALL_IDS, "{most}");
    assert_eq!(nodes.iter().flatten().map(|g| g.health().task_restarts()).sum::<u64>(), 0);
    let few = || match nodes.iter().flatten().map(|g| g.health().ids()).max() {
        Some(n) if n > NODES as u64 => Err(format!("{n} identities")),
        _ => Ok(()),
    };
    within("the dead are forgotten", PATIENCE, few).await;
}
