//! Serving: the HTTP workers, and signals until one says stop.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, middleware, web};
use koios_http::{ApiState, NodePort};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::port::Port;

/// Seconds that open connections get at the end.
const HTTP_DRAIN_S: u64 = 5;
const HTTP_CONNECTIONS_MAX: usize = 512;
/// How long an idle connection is kept: longer than Grafana and other clients keep theirs, so that they end it and no
/// request of theirs meets a connection that is just being closed here.
const HTTP_IDLE: Duration = Duration::from_secs(300);

/// Starts the HTTP workers.
///
/// # Errors
/// When the listener cannot be used.
pub fn http(listener: TcpListener, state: web::Data<ApiState>) -> Result<ServerHandle, String> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let server = HttpServer::new(move || {
        App::new()
            .wrap(middleware::Compress::default())
            .configure(|config| koios_http::configure(config, state.clone()))
    })
    .workers(workers)
    .max_connections(HTTP_CONNECTIONS_MAX)
    .keep_alive(HTTP_IDLE)
    // Otherwise the last part of a long answer waits 40 ms for the client's delayed acknowledgement of the rest.
    .tcp_nodelay(true)
    .shutdown_timeout(HTTP_DRAIN_S)
    // A client that goes away takes its query with it.
    .h1_allow_half_closed(false)
    .disable_signals()
    .listen(listener)
    .map_err(|e| format!("HTTP listener: {e}"))?
    .run();
    let handle = server.handle();
    actix::spawn(async move {
        if let Err(e) = server.await {
            tracing::error!(error = %e, "HTTP server ended");
        }
    });
    Ok(handle)
}

/// The signals a node listens to.
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Starts listening.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> Result<Self, String> {
        let on = |kind| signal(kind).map_err(|e| format!("signals: {e}"));
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
            hup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the process.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Reloads on SIGHUP until a signal, or somebody over HTTP, ends the process.
    pub async fn serve(&mut self, port: &Arc<Port>) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                () = port.told_to_drain.notified() => return,
                _ = self.hup.recv() => {
                    // The outcome is logged and shown on /api/v1/status/runtimeinfo.
                    let _ = port.reload().await;
                }
            }
        }
    }
}
