//! Generations that repeat or fall, and names given twice.

use std::time::Duration;

use koios_cluster::{Gossip, GossipOptions};

use crate::house::{House, PATIENCE, free_address, record, until, within};

const INTERVAL: Duration = Duration::from_millis(100);

/// The engine writes what peers remember of a generation into the process that comes back under it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_the_same_generation_says_what_it_says_now() {
    let house = House::new(INTERVAL);
    let (a, seed) = house.node("a", 1, &[]).await;
    let listen = free_address();
    let options = || GossipOptions { seeds: vec![seed], ..house.options("b", listen, 5) };
    let b = Gossip::start(options(), record("old")).await.unwrap();
    for weight in 2..20 {
        b.publish(|r| r.weight = weight);
        until(&a, "what b says", |v| v.members.get("b").is_some_and(|m| m.record.weight == weight)).await;
    }
    drop(b);
    let b = within_start(options, "new").await;
    until(&a, "b's new zone", |v| v.members["b"].record.zone == "new" && v.members["b"].is_ready()).await;
    b.publish(|r| r.weight = 77);
    until(&a, "b's newest word", |v| v.members["b"].record.weight == 77).await;
    assert_eq!((b.record().zone.as_str(), b.view().members["b"].record.weight), ("new", 77));
}

/// A lost disk and a clock that went back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_a_lower_generation_gets_above_its_past() {
    let house = House::new(INTERVAL);
    let (a, seed) = house.node("a", 1, &[]).await;
    let listen = free_address();
    let high = u64::MAX / 2;
    let options = |generation| GossipOptions { seeds: vec![seed], ..house.options("b", listen, generation) };
    let b = Gossip::start(options(high), record("z")).await.unwrap();
    until(&a, "b", |v| v.members.get("b").is_some_and(|m| m.is_ready() && m.generation == high)).await;
    drop(b);
    let b = within_start(|| options(50), "z").await;
    until(&a, "the b of now", |v| v.members["b"].is_ready() && v.members["b"].generation == 50).await;
    assert!(b.health().generation() > high, "{}", b.health().generation());
    assert_eq!(b.health().task_restarts(), 0, "this is no alarm");
    assert!(b.rival().borrow().is_none(), "its own past is no rival");
}

/// A data directory that was copied to a second machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s14_a_name_given_twice_is_noticed_and_the_second_one_told() {
    let house = House::new(INTERVAL);
    let (a, seed) = house.node("a", 1, &[]).await;
    let (first, first_at) = house.node("b", 10, &[seed]).await;
    until(&a, "b", |v| v.members.get("b").is_some_and(|m| m.is_ready())).await;
    assert_eq!(a.health().doubles(), 0);
    let (second, second_at) = house.node("b", 11, &[seed]).await;
    let rival = |g: &Gossip| g.rival().borrow().clone();
    within("both know of each other", PATIENCE, || match (rival(&first), rival(&second)) {
        (Some(of_first), Some(of_second)) => {
            assert!(!of_first.i_am_second && of_second.i_am_second);
            assert_eq!((of_first.gossip, of_second.gossip), (second_at, first_at));
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })
    .await;
    let sees =
        |n: u64| if a.health().doubles() == n { Ok(()) } else { Err(a.health().doubles().to_string()) };
    within("a third node knows it too", PATIENCE, || sees(1)).await;
    drop(second);
    until(&a, "the first b is left", |v| v.members["b"].is_ready() && v.members["b"].generation == 10).await;
    within("nothing is double any more", PATIENCE, || sees(0)).await;
    let free = || rival(&first).map_or(Ok(()), |r| Err(format!("{r:?}")));
    within("the first one has no rival any more", PATIENCE, free).await;
}

/// The port of a service that was dropped is closed a moment later.
async fn within_start(options: impl Fn() -> GossipOptions, zone: &str) -> Gossip {
    for _ in 0..500 {
        if let Ok(g) = Gossip::start(options(), record(zone)).await {
            return g;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the port does not become free")
}
