//! A network of its own for a test: each node in a network namespace, and a router between them in this process.
//!
//! Owns namespaces, one TUN device in each, and the thread that carries packets between the devices and does to them
//! what the test says (`rules::Link`): lose, delay, double, reorder, filter, black-hole. No kernel module and no packet
//! filter is needed, and not one packet leaves this process: the addresses exist inside the namespaces only. The test's
//! own thread moves into a namespace too (the observer), so that its requests pass the router as well.
//!
//! Refuses to skip in CI: where namespaces are not permitted a test prints so and does nothing, but not with `CI=true`.
//! Namespaces are named after this process, deleted when dropped, and those of processes that are gone are deleted by
//! the next one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub mod flood;
pub mod lab;
pub mod oracle;
pub mod packet;
pub mod router;
pub mod rules;
pub mod space;

pub use lab::Lab;
pub use oracle::{Answer, Writer};
pub use router::Router;
pub use rules::{Cut, Link};
pub use space::Space;

/// Most hosts of one network.
pub const HOSTS_MAX: usize = 32;
/// Largest packet of the devices, bytes; a link may let through less.
pub const MTU: u16 = 1500;

/// One machine of the network.
#[derive(Clone)]
pub struct Host {
    /// Number, also of its links.
    pub id: usize,
    /// Its namespace.
    pub space: Arc<Space>,
}

impl Host {
    /// Its IPv4 address.
    pub fn v4(&self) -> IpAddr {
        v4(self.id)
    }

    /// Its IPv6 address, of the private range.
    pub fn v6(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.id as u16 + 1))
    }
}

/// IPv4 address of host `id`.
pub fn v4(id: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, id as u8 + 1))
}

/// A network; taken down when dropped. The thread that makes it is in the observer's namespace until then.
pub struct Net {
    /// Carries the packets.
    pub router: Arc<Router>,
    observer: Host,
    _home: space::Home,
}

impl Net {
    /// A network with the observer alone, and this thread inside; `None` when namespaces are not permitted here.
    ///
    /// # Panics
    /// With `CI=true` where namespaces are not permitted.
    pub fn start(seed: u64) -> Option<Self> {
        space::delete_leftovers();
        let home = space::Home::here();
        let router = Arc::new(Router::start(seed));
        let observer = match host(&router, HOSTS_MAX - 1) {
            Ok(host) => host,
            Err(why) => {
                assert!(
                    std::env::var("CI").as_deref() != Ok("true"),
                    "no network namespaces, and CI must not skip: {why}"
                );
                eprintln!("NOT TESTED: network namespaces are not permitted here ({why})");
                return None;
            }
        };
        observer.space.enter();
        Some(Self { router, observer, _home: home })
    }

    /// Adds a host.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn host(&self, id: usize) -> Host {
        assert!(id < HOSTS_MAX - 1, "host {id}");
        host(&self.router, id).unwrap_or_else(|e| panic!("host {id}: {e}"))
    }

    /// Where the test's own thread is.
    pub fn observer(&self) -> &Host {
        &self.observer
    }
}

fn host(router: &Router, id: usize) -> Result<Host, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let space = Space::make(NEXT.fetch_add(1, Ordering::Relaxed))?;
    let device = space.run(|| {
        let builder = tun_rs::DeviceBuilder::new().name("net0").mtu(MTU);
        builder.build_sync().map_err(|e| format!("a TUN device: {e}"))
    })?;
    device.set_nonblocking(true).map_err(|e| e.to_string())?;
    let host = Host { id, space: Arc::new(space) };
    host.space.ip(&["link", "set", "lo", "up"])?;
    host.space.ip(&["link", "set", "net0", "up"])?;
    host.space.ip(&["addr", "add", &format!("{}/24", host.v4()), "dev", "net0"])?;
    host.space.ip(&["-6", "addr", "add", &format!("{}/64", host.v6()), "dev", "net0", "nodad"])?;
    router.attach(id, device);
    Ok(host)
}
