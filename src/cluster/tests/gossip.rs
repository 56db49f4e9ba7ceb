//! Real sealed gossip between several services on loopback: they meet, notice death, keep strangers out.

mod house;

use std::time::Duration;

use house::{House, ready, record, ring, until};
use koios_cluster::{Gossip, GossipOptions, NodeState};

const QUICK: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_meet_one_dies_and_returns() {
    let house = House::new(QUICK);
    let (a, seed) = house.node("a", 1, &[]).await;
    let (b, _) = house.node("b", 1, &[seed]).await;
    let (c, _) = house.node("c", 1, &[seed]).await;
    for g in [&a, &b, &c] {
        until(g, "three ready nodes", |v| ready(v) == 3).await;
    }
    let hashes: Vec<u64> = [&a, &b, &c].iter().map(|g| g.view().ring_hash()).collect();
    assert!(hashes.iter().all(|h| *h == hashes[0]));
    b.publish(|r| r.state = NodeState::Draining);
    until(&c, "b draining", |v| v.members["b"].record.state == NodeState::Draining).await;

    drop(b);
    until(&a, "b dead", |v| v.members["b"].shown_state() == "dead").await;
    let (b, _) = house.node("b", 2, &[seed]).await;
    until(&a, "b alive again", |v| v.members["b"].is_ready() && v.members["b"].generation == 2).await;
    until(&b, "three ready nodes", |v| ready(v) == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_junk_change_nothing() {
    let house = House::new(QUICK);
    let (a, seed) = house.node("a", 1, &[]).await;
    let options = house.options("x", house::free_address(), 1);
    let options = GossipOptions { ring: ring(&["some other secret"]), seeds: vec![seed], ..options };
    let stranger = Gossip::start(options, record("z")).await.unwrap();
    let (b, _) = house.node("b", 1, &[seed]).await;
    let junk = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for i in 0..2000u32 {
        let bytes: Vec<u8> = (0..i % 1300).map(|k| (k ^ i) as u8).collect();
        junk.send_to(&bytes, seed).unwrap();
    }
    until(&b, "a and b meet in spite of junk", |v| ready(v) == 2).await;
    until(&a, "a sees b", |v| ready(v) == 2).await;
    assert!(a.stats().rejected.load(std::sync::atomic::Ordering::Relaxed) > 0);
    assert_eq!(ready(&stranger.view()), 1, "the stranger sees only itself");
    assert!(!a.view().members.contains_key("x"));
}
