//! The gRPC listener.

use std::net::TcpListener;

use koios_query::PeerService;
use tokio::runtime::Handle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// Serves peers until the runtime ends.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(net: &Handle, listener: TcpListener, service: PeerService) -> Result<(), String> {
    let _entered = net.enter();
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| format!("gRPC listener: {e}"))?;
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(20)))
        .max_concurrent_streams(Some(256))
        .add_service(service.into_server())
        .serve_with_incoming(TcpListenerStream::new(listener));
    net.spawn(async move {
        if let Err(e) = server.await {
            tracing::error!(error = %e, "gRPC server ended");
        }
    });
    Ok(())
}
