//! Real sealed gossip between several services on loopback: they meet, notice death, keep strangers out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use koios_cluster::keys::HeadSummary;
use koios_cluster::{ClusterView, Gossip, GossipOptions, KeyRing, NodeRecord, NodeState, Roles};
use koios_model::SystemClock;

const SECRET: &str = "0123456789abcdef";

fn record() -> NodeRecord {
    let any: SocketAddr = ([127, 0, 0, 1], 1).into();
    NodeRecord {
        version: "0".into(),
        roles: Roles::all(),
        weight: 1,
        zone: "z".into(),
        rpc: any,
        http: any,
        state: NodeState::Ready,
        since: 0,
        head: HeadSummary::default(),
        bucket: String::new(),
        catalogue: 0,
        ring_hash: 0,
    }
}

struct House {
    dir: tempfile::TempDir,
}

impl House {
    async fn node(
        &self,
        name: &str,
        secret: &str,
        generation: u64,
        seeds: &[SocketAddr],
    ) -> (Gossip, SocketAddr) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listen = socket.local_addr().unwrap();
        drop(socket);
        let options = GossipOptions {
            node: name.into(),
            listen,
            advertise: listen,
            seeds: seeds.to_vec(),
            interval: Duration::from_millis(100),
            phi: 8.0,
            dead_grace: Duration::from_secs(600),
            ring: Arc::new(KeyRing::new("test", &[secret.to_owned()])),
            state_dir: self.dir.path().join(name),
            clock: SystemClock::shared(),
            generation,
        };
        (Gossip::start(options, record()).await.unwrap(), listen)
    }
}

async fn until(gossip: &Gossip, what: &str, ok: impl Fn(&ClusterView) -> bool) {
    let mut rx = gossip.subscribe();
    let waited = tokio::time::timeout(Duration::from_secs(20), rx.wait_for(|v| ok(v))).await;
    assert!(waited.is_ok(), "never: {what}; last view: {:?}", gossip.view());
}

fn ready(v: &ClusterView) -> usize {
    v.members.values().filter(|m| m.is_ready()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_meet_one_dies_and_returns() {
    let house = House { dir: tempfile::tempdir().unwrap() };
    let (a, seed) = house.node("a", SECRET, 1, &[]).await;
    let (b, _) = house.node("b", SECRET, 1, &[seed]).await;
    let (c, _) = house.node("c", SECRET, 1, &[seed]).await;
    for g in [&a, &b, &c] {
        until(g, "three ready nodes", |v| ready(v) == 3).await;
    }
    let hashes: Vec<u64> = [&a, &b, &c].iter().map(|g| g.view().ring_hash()).collect();
    assert!(hashes.iter().all(|h| *h == hashes[0]));
    b.publish(|r| r.state = NodeState::Draining);
    until(&c, "b draining", |v| v.members["b"].record.state == NodeState::Draining).await;

    drop(b);
    until(&a, "b dead", |v| v.members["b"].shown_state() == "dead").await;
    let (b, _) = house.node("b", SECRET, 2, &[seed]).await;
    until(&a, "b alive again", |v| v.members["b"].is_ready() && v.members["b"].generation == 2).await;
    until(&b, "three ready nodes", |v| ready(v) == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_junk_change_nothing() {
    let house = House { dir: tempfile::tempdir().unwrap() };
    let (a, seed) = house.node("a", SECRET, 1, &[]).await;
    let (stranger, _) = house.node("x", "some other secret", 1, &[seed]).await;
    let (b, _) = house.node("b", SECRET, 1, &[seed]).await;
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
