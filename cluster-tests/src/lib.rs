//! Real processes for tests: Koios nodes, exporters and peers on loopback; and a simulated cluster (`sim`).
//!
//! Owns starting them on free ports, waiting for conditions (never sleeping and hoping), and stopping what
//! was started, by its id, even when a test fails. Refuses mocks of Koios: a node here is the binary,
//! and a simulated node is made of the production cores.

pub mod acks;
pub mod api;
pub mod binary;
pub mod exporter;
pub mod generate;
pub mod made;
pub mod node;
pub mod peers;
pub mod push;
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

/// Free loopback ports. They are only known to be free a moment ago, which is good enough for tests.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: Vec<_> = (0..N)
        .map(|_| {
            // A port that is free for TCP and UDP alike.
            loop {
                let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
                let port = tcp.local_addr().expect("its number").port();
                if let Ok(udp) = std::net::UdpSocket::bind(("127.0.0.1", port)) {
                    return (tcp, udp, port);
                }
            }
        })
        .collect();
    std::array::from_fn(|i| listeners[i].2)
}
