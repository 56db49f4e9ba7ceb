//! Listeners are bound before anything else runs, so that a taken port is the first thing a user learns.

use std::net::{SocketAddr, TcpListener};

/// The TCP listeners of a node.
pub struct Listeners {
    pub web: TcpListener,
    pub grpc: TcpListener,
    pub doorbell: TcpListener,
}

/// Binds an address that a flag named.
///
/// # Errors
/// The step, the cause and the fix.
pub fn bind(flag: &str, addr: SocketAddr) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(addr).map_err(|e| {
        let fix = match e.kind() {
            std::io::ErrorKind::AddrInUse => "stop the process that uses the port, or choose another",
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need privileges; choose another",
            _ => "give an address of this machine",
        };
        format!("step listen: --{flag}={addr} cannot be opened ({e}); fix: {fix} with --{flag}")
    })?;
    listener.set_nonblocking(true).map_err(|e| format!("step listen: --{flag}={addr}: {e}"))?;
    Ok(listener)
}
