//! Networks that lose, and that are cut for longer than gossip remembers.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use koios_cluster::peers::PeerBook;
use koios_cluster::transport::Weather;
use koios_cluster::{Gossip, GossipOptions};

use crate::house::{House, PATIENCE, Watch, free_address, free_addresses, ready, record, until, within};

/// Loses what crosses between the two sides while it is cut.
fn cut(side: &[SocketAddr], other: &[SocketAddr], is_cut: &Arc<AtomicBool>) -> [Weather; 2] {
    [other, side].map(|across| {
        let (across, is_cut): (HashSet<SocketAddr>, _) = (across.iter().copied().collect(), is_cut.clone());
        Arc::new(move |to: SocketAddr| is_cut.load(Ordering::Relaxed) && across.contains(&to)) as Weather
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s30_halves_that_were_apart_for_longer_than_the_grace_find_each_other() {
    let mut house = House::new(Duration::from_millis(100));
    house.grace = Duration::from_secs(2);
    let at = free_addresses(4);
    let is_cut = Arc::new(AtomicBool::new(false));
    let [left, right] = cut(&at[..2], &at[2..], &is_cut);
    let mut nodes = Vec::new();
    for i in 0..4 {
        let weather = Some(if i < 2 { left.clone() } else { right.clone() });
        // No seeds from before: as a node that was the first, or that was met by others.
        let options = house.options(["a", "b", "c", "d"][i], at[i], 1);
        nodes.push(Gossip::start(GossipOptions { weather, ..options }, record("z")).await.unwrap());
    }
    nodes[1..].iter().for_each(|g| g.greet(at[0]));
    for g in &nodes {
        until(g, "four ready nodes", |v| ready(v) == 4).await;
    }
    is_cut.store(true, Ordering::Relaxed);
    let apart = || match nodes.iter().find(|g| g.health().ids() > 2) {
        None => Ok(()),
        Some(g) => Err(format!("{} knows {}", g.view().me, g.health().ids())),
    };
    within("each half has forgotten the other", PATIENCE, apart).await;
    assert!(
        nodes.iter().all(|g| ready(&g.view()) == 2 && g.view().members.len() == 4),
        "but says who is missing"
    );
    is_cut.store(false, Ordering::Relaxed);
    for g in &nodes {
        until(g, "four ready nodes again", |v| ready(v) == 4).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s31_a_cluster_outlives_its_only_seed() {
    let house = House::new(Duration::from_millis(100));
    let (seed, seed_at) = house.node("seed", 1, &[]).await;
    let (b, _) = house.node("b", 1, &[seed_at]).await;
    let (c, c_at) = house.node("c", 1, &[seed_at]).await;
    for g in [&seed, &b, &c] {
        until(g, "three ready nodes", |v| ready(v) == 3).await;
    }
    // The book is written every ten seconds.
    let kept = || match PeerBook::open(&house.dir.path().join("b")).seeds().contains(&c_at) {
        true => Ok(()),
        false => Err("c is not in the book of b".to_owned()),
    };
    within("b keeps whom it knows", PATIENCE, kept).await;
    drop((seed, b));
    let options = house.options("b", free_address(), 2);
    let seeds = PeerBook::open(&options.state_dir).seeds();
    let b = Gossip::start(GossipOptions { seeds, ..options }, record("z")).await.unwrap();
    for g in [&b, &c] {
        until(g, "two ready nodes", |v| ready(v) == 2 && v.members["b"].generation == 2).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s32_three_in_ten_frames_lost_lose_nobody() {
    let house = House::new(Duration::from_millis(300));
    let count = Arc::new(AtomicU64::new(0));
    let at = free_addresses(8);
    let mut nodes = Vec::new();
    for i in 0..at.len() {
        let count = count.clone();
        let weather: Weather = Arc::new(move |_| {
            // Three in ten in an order that looks like chance.
            let n = count.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (n >> 33) % 10 < 3
        });
        let options = house.options(&format!("n{i}"), at[i], 1);
        let options = GossipOptions { weather: Some(weather), seeds: at[..2].to_vec(), ..options };
        nodes.push(Gossip::start(options, record("z")).await.unwrap());
    }
    for g in &nodes {
        until(g, "all meet", |v| ready(v) == at.len()).await;
    }
    let (mut looks, mut dead, start) = (0u64, 0u64, Watch::start());
    while start.elapsed() < Duration::from_secs(5) {
        for g in &nodes {
            let view = g.view();
            looks += view.members.len() as u64;
            dead += view.members.values().filter(|m| !m.is_alive()).count() as u64;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("30 % loss: {dead} false deaths in {looks} looks");
    assert!(dead * 100 <= looks, "{dead} false deaths in {looks} looks");
    nodes[3].publish(|r| r.weight = 9);
    for g in &nodes {
        until(g, "news comes through", |v| v.members["n3"].record.weight == 9).await;
    }
}
