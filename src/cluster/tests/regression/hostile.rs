//! Senders without the secret, with frames from elsewhere, and members that speak another version or say too much.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chitchat::transport::{Transport, UdpTransport};
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, ProtocolVersion, spawn_chitchat,
};
use koios_cluster::transport::{SealedTransport, TransportStats};
use koios_cluster::{Gossip, NodeState};
use koios_model::SystemClock;

use crate::house::{House, PATIENCE, SECRET, free_address, ready, record, ring, until, within};

const INTERVAL: Duration = Duration::from_millis(100);

pub fn sealed() -> SealedTransport {
    SealedTransport::new(ring(&[SECRET]), SystemClock::shared(), Arc::new(TransportStats::default()))
}

/// The engine alone, without what this crate puts around it.
pub async fn bare(
    name: &str,
    (generation, seed): (u64, SocketAddr),
    protocol_version: ProtocolVersion,
    transport: &dyn Transport,
    pairs: Vec<(String, String)>,
) -> ChitchatHandle {
    let listen_addr = free_address();
    let config = ChitchatConfig {
        chitchat_id: ChitchatId::new(name, generation, listen_addr),
        cluster_id: "test".into(),
        gossip_interval: INTERVAL,
        listen_addr,
        seed_nodes: vec![seed.to_string()],
        failure_detector_config: FailureDetectorConfig { initial_interval: INTERVAL, ..Default::default() },
        marked_for_deletion_grace_period: Duration::from_secs(600),
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version,
    };
    spawn_chitchat(config, pairs, transport).await.unwrap()
}

pub fn pairs() -> Vec<(String, String)> {
    record("z").to_pairs().into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn rejected(g: &Gossip) -> u64 {
    g.stats().rejected.load(Ordering::Relaxed)
}

/// With the engine's own transport any of these messages overwrites addresses, kills peers or ends the task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_real_messages_without_the_seal_junk_and_replays_change_nothing() {
    let house = House::new(INTERVAL);
    // A listener that is given as a seed gets frames that are real.
    let ear = UdpSocket::bind("127.0.0.1:0").unwrap();
    ear.set_read_timeout(Some(PATIENCE)).unwrap();
    let (a, seed) = house.node("a", 7, &[ear.local_addr().unwrap()]).await;
    let (b, _) = house.node("b", 7, &[seed]).await;
    until(&a, "a and b", |v| ready(v) == 2).await;
    // A plain node of the same cluster that calls itself b, and a younger b.
    let forger = bare("b", (u64::MAX - 1, seed), ProtocolVersion::V1, &UdpTransport, pairs()).await;
    let mut buf = [0u8; 2048];
    let frames: Vec<Vec<u8>> = (0..3)
        .map(|_| {
            let n = ear.recv(&mut buf).unwrap();
            buf[..n].to_vec()
        })
        .collect();
    let before = rejected(&a);
    let mouth = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut bad = 0;
    for round in 0..200usize {
        for frame in &frames {
            mouth.send_to(frame, seed).unwrap();
            let mut flipped = frame.clone();
            flipped[round % frame.len()] ^= 1 << (round % 8);
            mouth.send_to(&flipped, seed).unwrap();
            mouth.send_to(&frame[..round % frame.len()], seed).unwrap();
            mouth.send_to(&[frame.as_slice(), &[0; 900]].concat(), seed).unwrap();
            bad += 3;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let counted = || match rejected(&a) - before {
        n if n > bad / 2 => Ok(()),
        n => Err(format!("{n} rejected of {bad}; a busy system may drop some itself")),
    };
    within("bad frames are counted", PATIENCE, counted).await;
    b.publish(|r| r.state = NodeState::Draining);
    until(&a, "a still hears b", |v| v.members["b"].record.state == NodeState::Draining).await;
    assert_eq!(a.view().members["b"].generation, 7);
    assert_eq!((a.view().members.len(), b.view().members.len()), (2, 2));
    assert_eq!((a.health().task_restarts(), b.health().task_restarts()), (0, 0));
    drop(forger);
}

/// Before an upgrade of all nodes some speak the older format.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_both_wire_formats_meet() {
    let house = House::new(INTERVAL);
    let (a, seed) = house.node("a", 1, &[]).await;
    let (b, _) = house.node("b", 1, &[seed]).await;
    let old = bare("old", (1, seed), ProtocolVersion::V0, &sealed(), pairs()).await;
    for g in [&a, &b] {
        until(g, "three ready nodes", |v| ready(v) == 3).await;
    }
    b.publish(|r| r.weight = 5);
    let mut heard = None;
    for _ in 0..300 {
        heard = old
            .with_chitchat(|c| {
                let b = c.node_states().iter().find(|(id, _)| &*id.node_id == "b");
                b.and_then(|(_, s)| s.get("r").map(str::to_owned))
            })
            .await;
        if heard.as_deref().is_some_and(|r| r.ends_with("|5")) {
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    panic!("the old one last heard {heard:?}");
}

/// One value that fits into no datagram would hold back all that its node says later, while the node looks alive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_66_kilobytes_does_not_leave_its_node() {
    let house = House::new(INTERVAL);
    let (a, seed) = house.node("a", 1, &[]).await;
    let (b, _) = house.node("b", 1, &[seed]).await;
    until(&a, "a and b", |v| ready(v) == 2).await;
    b.publish(|r| r.version = "x".repeat(66_000));
    b.publish(|r| r.weight = 5);
    until(&a, "what b says after it", |v| v.members["b"].record.weight == 5).await;
    assert!(b.health().values_blocked() > 0);
    assert_eq!(a.view().members["b"].record.version, "0", "the last good one stays");
}

/// A member with the secret and without this crate's bounds: contained to itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s35_a_member_that_talks_nonsense_is_not_seen_and_harms_nobody() {
    let house = House::new(INTERVAL);
    let (a, seed) = house.node("a", 1, &[]).await;
    let (b, _) = house.node("b", 1, &[seed]).await;
    let mut nonsense = pairs();
    nonsense.push(("h".into(), "x".repeat(66_000)));
    nonsense.iter_mut().filter(|(k, _)| k == "a").for_each(|(_, v)| *v = "1|nowhere|at all".into());
    let fool = bare("fool", (1, seed), ProtocolVersion::V1, &sealed(), nonsense).await;
    until(&a, "a and b", |v| ready(v) == 2).await;
    within("the fool is known", PATIENCE, || if a.health().ids() == 3 { Ok(()) } else { Err(String::new()) })
        .await;
    for weight in 2..12 {
        b.publish(|r| r.weight = weight);
        until(&a, "what b says", |v| v.members["b"].record.weight == weight).await;
    }
    assert!(!a.view().members.contains_key("fool"));
    assert_eq!(a.health().task_restarts() + b.health().task_restarts(), 0);
    drop(fool);
}
