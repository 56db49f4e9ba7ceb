//! A house of real gossip services on loopback, for the tests of this directory.
#![allow(dead_code, reason = "each test file uses its own part of the house")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use koios_cluster::{ClusterView, Gossip, GossipOptions, KeyRing, NodeRecord, NodeState};
use koios_model::{Clock, SystemClock};

pub const SECRET: &str = "0123456789abcdef";
/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn record(zone: &str) -> NodeRecord {
    let any: SocketAddr = ([127, 0, 0, 1], 1).into();
    NodeRecord { version: "0".into(), state: NodeState::Ready, ..NodeRecord::new(zone, any, any) }
}

pub fn ring(secrets: &[&str]) -> Arc<KeyRing> {
    let secrets: Vec<String> = secrets.iter().map(|s| (*s).to_owned()).collect();
    Arc::new(KeyRing::new("test", &secrets))
}

/// Loopback addresses that are free for UDP, and stay so for who comes back to one.
pub fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let mut held = Vec::with_capacity(count);
    for attempt in 0..10_000u32 {
        let mut random = [0u8; 2];
        aws_lc_rs::rand::fill(&mut random).expect("randomness");
        let port = 10_000 + (u16::from_be_bytes(random) ^ attempt as u16) % 22_000;
        held.extend(std::net::UdpSocket::bind(("127.0.0.1", port)));
        if held.len() == count {
            return held.iter().map(|s| s.local_addr().expect("its address")).collect();
        }
    }
    panic!("no free ports in ten thousand tries")
}

pub fn free_address() -> SocketAddr {
    free_addresses(1)[0]
}

pub struct House {
    pub dir: tempfile::TempDir,
    pub interval: Duration,
    pub grace: Duration,
}

impl House {
    pub fn new(interval: Duration) -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), interval, grace: Duration::from_secs(600) }
    }

    pub fn options(&self, name: &str, listen: SocketAddr, generation: u64) -> GossipOptions {
        GossipOptions {
            node: name.into(),
            listen,
            advertise: listen,
            seeds: Vec::new(),
            interval: self.interval,
            phi: 8.0,
            dead_grace: self.grace,
            ring: ring(&[SECRET]),
            state_dir: self.dir.path().join(name),
            clock: SystemClock::shared(),
            generation,
            weather: None,
        }
    }

    pub async fn node(&self, name: &str, generation: u64, seeds: &[SocketAddr]) -> (Gossip, SocketAddr) {
        let listen = free_address();
        let options = GossipOptions { seeds: seeds.to_vec(), ..self.options(name, listen, generation) };
        (Gossip::start(options, record("z")).await.expect("gossip starts"), listen)
    }
}

/// Measures time.
pub struct Watch {
    clock: Arc<dyn Clock>,
    since_ns: u64,
}

impl Watch {
    pub fn start() -> Self {
        let clock = SystemClock::shared();
        Self { since_ns: clock.mono_ns(), clock }
    }

    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.clock.mono_ns() - self.since_ns)
    }
}

/// Waits until a node's view satisfies a condition.
pub async fn until(gossip: &Gossip, what: &str, ok: impl Fn(&ClusterView) -> bool) {
    let mut rx = gossip.subscribe();
    let waited = tokio::time::timeout(PATIENCE, rx.wait_for(|v| ok(v))).await;
    assert!(waited.is_ok(), "never: {what}; last view: {}", shown(&gossip.view()));
}

/// Waits for a condition; how long it took.
pub async fn within(what: &str, patience: Duration, mut ok: impl FnMut() -> Result<(), String>) -> Duration {
    let start = Watch::start();
    loop {
        match ok() {
            Ok(()) => return start.elapsed(),
            Err(why) => assert!(start.elapsed() < patience, "not within {patience:?}: {what}; last: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub fn ready(v: &ClusterView) -> usize {
    v.members.values().filter(|m| m.is_ready()).count()
}

pub fn shown(v: &ClusterView) -> String {
    let line = |m: &koios_cluster::Member| format!("{}@{} {}", m.name, m.generation, m.shown_state());
    v.members.values().map(|m| line(m)).collect::<Vec<_>>().join(", ")
}

pub fn sent_bytes(g: &Gossip) -> u64 {
    g.stats().sent_bytes.load(Ordering::Relaxed)
}
