//! From `--join` words to addresses that were seen to fit.
//!
//! Owns resolving seeds, ringing them, and the choice of the address this node advertises. Refuses to hang
//! in silence: each attempt ends in an address or in a `JoinProblem`.

use std::net::{IpAddr, SocketAddr};

use crate::doorbell;
use crate::error::{ClusterError, JoinProblem};
use crate::secret::KeyRing;

/// Port added to a seed given without one.
pub const DEFAULT_PORT: u16 = 7946;

/// One try at one seed.
#[derive(Debug)]
pub enum Attempt {
    /// Fits; the node behind it and where it gossips.
    Peer(SocketAddr, String),
    /// The seed is this very node.
    Myself,
}

/// Resolves a seed and rings each address until one fits.
///
/// # Errors
/// The problem of the last address tried.
pub async fn attempt(seed: &str, me: &str, keys: &KeyRing) -> Result<Attempt, JoinProblem> {
    let resolve = |detail: String| JoinProblem::Resolve { seed: seed.to_owned(), detail };
    let target = with_port(seed);
    let addrs: Vec<SocketAddr> =
        tokio::net::lookup_host(target.as_str()).await.map_err(|e| resolve(e.to_string()))?.collect();
    let mut problem = resolve("the name has no address".into());
    for addr in addrs {
        match doorbell::ring(addr, seed, me, keys).await {
            Ok(answer) if answer.node == me => return Ok(Attempt::Myself),
            Ok(answer) => return Ok(Attempt::Peer(addr, answer.node)),
            Err(p) => problem = p,
        }
    }
    Err(problem)
}

/// Adds the default port to a seed that has none.
pub fn with_port(seed: &str) -> String {
    let has_port = match seed.rfind(':') {
        Some(i) => {
            !seed[i + 1..].is_empty()
                && seed[i + 1..].bytes().all(|b| b.is_ascii_digit())
                && (!seed[..i].contains(':') || seed[..i].ends_with(']'))
        }
        None => false,
    };
    if has_port {
        return seed.to_owned();
    }
    if seed.contains(':') && !seed.starts_with('[') {
        return format!("[{seed}]:{DEFAULT_PORT}");
    }
    format!("{seed}:{DEFAULT_PORT}")
}

/// The address peers shall use: the listen address, or, when that is a wildcard, the address this machine
/// would send from towards `towards` (no packet is sent), or loopback when there is no route.
pub fn advertised(listen: SocketAddr, towards: Option<SocketAddr>) -> SocketAddr {
    if !listen.ip().is_unspecified() {
        return listen;
    }
    let probe = towards.unwrap_or_else(|| SocketAddr::from(([192, 0, 2, 1], 9)));
    let bind: SocketAddr = if probe.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let source = std::net::UdpSocket::bind(bind).and_then(|s| {
        s.connect(probe)?;
        s.local_addr()
    });
    let ip = source.map_or(IpAddr::from([127, 0, 0, 1]), |a| a.ip());
    let ip = if ip.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { ip };
    SocketAddr::new(ip, listen.port())
}

/// Without a secret, gossip may use loopback and private ranges only.
///
/// # Errors
/// `ClusterError::PublicWithoutSecret`.
pub fn check_exposure(addr: SocketAddr, keys: &KeyRing) -> Result<(), ClusterError> {
    let private = match addr.ip() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || (ip.segments()[0] & 0xfe00) == 0xfc00 || (ip.segments()[0] & 0xffc0) == 0xfe80
        }
    };
    if private || keys.has_secret() { Ok(()) } else { Err(ClusterError::PublicWithoutSecret { addr }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_added_once() {
        for (seed, want) in [
            ("host", "host:7946"),
            ("host:1", "host:1"),
            ("10.0.0.1", "10.0.0.1:7946"),
            ("::1", "[::1]:7946"),
            ("[::1]", "[::1]:7946"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(with_port(seed), want);
        }
    }

    #[test]
    fn public_addresses_need_a_secret() {
        let none = KeyRing::new("c", &[]);
        let some = KeyRing::new("c", &["0123456789abcdef".into()]);
        assert!(check_exposure("10.1.2.3:1".parse().unwrap(), &none).is_ok());
        assert!(check_exposure("8.8.8.8:1".parse().unwrap(), &none).is_err());
        assert!(check_exposure("8.8.8.8:1".parse().unwrap(), &some).is_ok());
        assert_eq!(advertised("10.1.2.3:9".parse().unwrap(), None), "10.1.2.3:9".parse().unwrap());
        let towards_loopback = advertised("0.0.0.0:9".parse().unwrap(), Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(towards_loopback, "127.0.0.1:9".parse().unwrap());
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_a_resolve_problem() {
        let e = attempt("no-such-host.invalid", "me", &KeyRing::new("c", &[])).await.unwrap_err();
        assert!(matches!(e, JoinProblem::Resolve { .. }) && e.to_string().contains("fix:"), "{e}");
    }
}
