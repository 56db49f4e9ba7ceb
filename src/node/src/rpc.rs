//! The gRPC listener, and how many bytes go over the connections that peers open to it.

use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::StreamExt;
use koios_query::PeerService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Bytes between this node and the peers that asked it something. Each connection is counted on the side that was
/// called, so the sum over all nodes is what goes between them.
#[derive(Debug, Default)]
pub struct PeerBytes {
    /// Questions and pushed samples.
    pub received: AtomicU64,
    /// Answers.
    pub sent: AtomicU64,
}

/// Serves peers until the runtime ends.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(
    net: &Handle,
    listener: TcpListener,
    service: PeerService,
    bytes: Arc<PeerBytes>,
) -> Result<(), String> {
    let _entered = net.enter();
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| format!("gRPC listener: {e}"))?;
    let incoming = TcpListenerStream::new(listener).map(move |accepted| {
        let stream = accepted?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(Counted { stream, bytes: bytes.clone() })
    });
    let server = Server::builder()
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(20)))
        .max_concurrent_streams(Some(256))
        .add_service(service.into_server())
        .serve_with_incoming(incoming);
    net.spawn(async move {
        if let Err(e) = server.await {
            tracing::error!(error = %e, "gRPC server ended");
        }
    });
    Ok(())
}

/// A connection whose bytes are counted.
struct Counted {
    stream: TcpStream,
    bytes: Arc<PeerBytes>,
}

impl Connected for Counted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let more = buf.filled().len() - before;
        self.bytes.received.fetch_add(more as u64, Ordering::Relaxed);
        read
    }
}

impl Counted {
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = &written {
            self.bytes.sent.fetch_add(*n as u64, Ordering::Relaxed);
        }
        written
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
