//! Real processes for tests: Koios nodes, exporters and peers on loopback, or in a network that a test can spoil
//! (`netns`); and a simulated cluster (`sim`).
//!
//! Owns starting them on free ports, waiting for conditions (never sleeping and hoping), and stopping what
//! was started, by its id, even when a test fails. Refuses mocks of Koios: a node here is the binary,
//! and a simulated node is made of the production cores.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};

use parking_lot::Mutex;

pub mod acks;
pub mod api;
pub mod binary;
pub mod exporter;
pub mod generate;
pub mod made;
pub mod netns;
pub mod node;
pub mod peers;
pub mod push;
pub mod recorded;
pub mod sim;
pub mod wait;

pub use api::Api;
pub use exporter::Exporter;
pub use node::{Node, NodeSpec};
pub use wait::{until, within};

/// A directory for one test; kept when the test fails and `KOIOS_KEEP` is set.
pub fn scratch() -> tempfile::TempDir {
    let mut dir = tempfile::tempdir().expect("a scratch directory");
    dir.disable_cleanup(std::env::var_os("KOIOS_KEEP").is_some());
    dir
}

/// Loopback ports that are free for TCP and UDP, and were given to nobody else in this process: what asked first may
/// not have opened its ports yet. Not of those that the system gives to clients: a node that is down for a while must
/// find its port again.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let mut given = GIVEN.lock();
    let mut held = Vec::with_capacity(N);
    let mut tried = 0;
    while held.len() < N {
        tried += 1;
        assert!(tried < 100_000, "no free port in {PORTS:?}");
        let random = RandomState::new().hash_one(held.len());
        let port = PORTS.start + (random % u64::from(PORTS.end - PORTS.start)) as u16;
        let tcp = std::net::TcpListener::bind(("127.0.0.1", port));
        if let (Ok(tcp), Ok(udp)) = (tcp, std::net::UdpSocket::bind(("127.0.0.1", port)))
            && given.insert(port)
        {
            held.push((tcp, udp, port));
        }
    }
    std::array::from_fn(|i| held[i].2)
}

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
const PORTS: std::ops::Range<u16> = 10_000..32_000;
