//! More identities than a message can carry, as restarts in a row make them, and what a change costs in a big cluster.

use std::net::SocketAddr;
use std::time::Duration;

use chitchat::{ChitchatHandle, ChitchatId, DeletionStatus, NodeState, ProtocolVersion, VersionedValue};
use koios_cluster::gossip::IDS_BYTES_MAX;
use koios_cluster::{Gossip, GossipOptions};

use super::hostile::{bare, pairs, sealed};
use crate::house::{House, PATIENCE, Watch, free_address, ready, record, until, within};

const INTERVAL: Duration = Duration::from_millis(100);

/// A member that has met `count` nodes which are gone.
async fn flood(turn: usize, count: usize, seed: SocketAddr) -> ChitchatHandle {
    let flooder = bare(&format!("flooder-{turn}"), (1, seed), ProtocolVersion::V1, &sealed(), pairs()).await;
    flooder
        .with_chitchat(|c| {
            for i in 0..count {
                let port = 1 + (i % 60_000) as u16;
                let id = ChitchatId::new(format!("zombie-{turn}-{i:05}"), 1, ([10, 0, 0, 1], port).into());
                let none = std::iter::empty::<(String, VersionedValue)>();
                c.reset_node_state_if_update(&id, none, 1, 0);
            }
        })
        .await;
    flooder
}

async fn pair(house: &House) -> (Gossip, Gossip, SocketAddr) {
    let (a, seed) = house.node("a", 1, &[]).await;
    let options = GossipOptions { seeds: vec![seed], ..house.options("b", free_address(), 1) };
    let b = Gossip::start(options, record("z")).await.unwrap();
    until(&a, "a and b", |v| ready(v) == 2).await;
    (a, b, seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_hundred_identities_are_borne() {
    let house = House::new(INTERVAL);
    let (a, b, seed) = pair(&house).await;
    let flooder = flood(0, 1_200, seed).await;
    for g in [&a, &b] {
        let knows = || if g.health().ids() > 1_200 { Ok(()) } else { Err(g.health().ids().to_string()) };
        within("all are known", PATIENCE, knows).await;
    }
    assert!(a.health().id_bytes() < IDS_BYTES_MAX * 3 / 4, "{}", a.health().id_bytes());
    b.publish(|r| r.weight = 5);
    until(&a, "what b says among them", |v| v.members["b"].record.weight == 5 && v.members["b"].is_ready())
        .await;
    assert!(a.view().members.len() <= 3, "who never lived is no member");
    assert_eq!((a.health().generation(), a.health().task_restarts()), (1, 0), "no reason to start afresh");
    drop(flooder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_thirty_three_hundred_identities_the_dead_are_forgotten_sooner() {
    let mut house = House::new(INTERVAL);
    house.grace = Duration::from_secs(30);
    let (a, b, seed) = pair(&house).await;
    let mut most = 0;
    for turn in 0..3 {
        let flooder = flood(turn, 1_100, seed).await;
        let enough = || {
            most = most.max(a.health().ids());
            let all = a.health().ids() >= 1_100 * (turn as u64 + 1);
            if all || a.health().generation() > 1 { Ok(()) } else { Err(a.health().ids().to_string()) }
        };
        within("they are known, or already too many", PATIENCE, enough).await;
        drop(flooder);
    }
    within("gossip goes on with a short memory", PATIENCE, || {
        if a.health().generation() > 1 { Ok(()) } else { Err(format!("{} ids", a.health().ids())) }
    })
    .await;
    for g in [&a, &b] {
        let few = || if g.health().ids() < 100 { Ok(()) } else { Err(g.health().ids().to_string()) };
        within("the dead are forgotten", PATIENCE, few).await;
        until(g, "a and b", |v| ready(v) == 2).await;
    }
    println!("at most {most} identities were known");
    assert_eq!(a.health().task_restarts() + b.health().task_restarts(), 0, "no task ended by itself");
    assert!(a.view().members["b"].generation == 1, "for peers it is the same process");
}

/// The engine copies every living node's state for its watchers when anything changed, once a round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_thousand_states_is_cheap_enough_for_every_round() {
    let node = bare("n", (1, free_address()), ProtocolVersion::V1, &sealed(), pairs()).await;
    let (nodes, bytes, took) = node
        .with_chitchat(|c| {
            for i in 0..1_000u64 {
                let id = ChitchatId::new(format!("node-{i:04}"), 1, ([10, 0, 0, 1], 1).into());
                let value = |k: String, value: String, version| {
                    (k, VersionedValue { value, version, status: DeletionStatus::Set })
                };
                let full = (0..8).map(|k| value(format!("k{k}"), "x".repeat(200), k + 1));
                c.reset_node_state_if_update(&id, full, 8, 0);
            }
            let start = Watch::start();
            let copy: Vec<(ChitchatId, NodeState)> =
                c.node_states().iter().map(|(id, s)| (id.clone(), s.clone())).collect();
            let took = start.elapsed();
            let size = |s: &NodeState| s.key_values().map(|(k, v)| k.len() + v.len()).sum::<usize>();
            (copy.len(), copy.iter().map(|(_, s)| size(s)).sum::<usize>(), took)
        })
        .await;
    println!("a copy of {nodes} states with {bytes} bytes took {took:?}");
    assert!(nodes > 1_000 && bytes > 1_600_000);
    assert!(took < Duration::from_millis(250), "a quarter of a second of every second: {took:?}");
}
