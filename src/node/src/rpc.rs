//! The gRPC listener: peers, and whoever speaks Thanos' protocols, on one port.
//!
//! A connection that says nothing is no peer: it is cut after `FIRST_WORD`, and at most `SILENT_MAX` of them are
//! waited for at a time. One that has spoken is asked for a sign of life every `ALIVE`, and cut without one.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use koios_proto::DESCRIPTORS;
use koios_query::querying::QueryService;
use koios_query::{Front, PeerService};
use koios_store::storeapi::Sides;
use koios_store::storeapi::facts::FactsService;
use koios_store::storeapi::info::InfoService;
use koios_store::storeapi::server::StoreService;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::counted::{Counted, PeerBytes};

const FIRST_WORD: Duration = Duration::from_secs(5);
const SILENT_MAX: usize = 1024;
const ALIVE: Duration = Duration::from_secs(20);
/// How often health is looked at.
const HEALTH: Duration = Duration::from_millis(500);
/// Connections that have spoken and wait to be served.
const BACKLOG: usize = 64;

/// Services that say whether they are well, beside the node as a whole.
const SERVICES: [&str; 9] = [
    "",
    "thanos.Store",
    "thanos.info.Info",
    "thanos.Rules",
    "thanos.Targets",
    "thanos.Metadata",
    "thanos.Exemplars",
    "thanos.Status",
    "thanos.Query",
];

/// What is served.
pub struct Services {
    /// For nodes of this cluster.
    pub peer: PeerService,
    /// What is known of the cluster, for everybody else, and beside this node.
    pub sides: Sides,
    /// Evaluates for everybody else.
    pub front: Arc<Front>,
    /// Whether the node is ready.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// Serves until the runtime ends.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve(
    net: &Handle,
    listener: TcpListener,
    services: Services,
    bytes: Arc<PeerBytes>,
) -> Result<(), String> {
    let _entered = net.enter();
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| format!("gRPC listener: {e}"))?;
    let (spoken, speakers) = mpsc::channel(BACKLOG);
    let counted = move |stream: std::io::Result<TcpStream>| {
        Ok::<_, std::io::Error>(Counted { stream: stream?, bytes: bytes.clone() })
    };
    net.spawn(accept(listener, spoken, FIRST_WORD));
    let (reporter, health) = tonic_health::server::health_reporter();
    net.spawn(report_health(reporter, services.ready));
    let described =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let wrong = |e: tonic_reflection::server::Error| format!("gRPC reflection: {e}");
    let reflection = described().build_v1().map_err(wrong)?;
    let reflection_alpha = described().build_v1alpha().map_err(wrong)?;
    let facts = FactsService::new(services.sides.clone());
    let server = Server::builder()
        .http2_keepalive_interval(Some(ALIVE))
        .http2_keepalive_timeout(Some(ALIVE))
        .max_concurrent_streams(Some(256))
        .add_service(services.peer.into_server())
        .add_service(StoreService::new(services.sides.clone()).into_server())
        .add_service(InfoService::new(services.sides).into_server())
        .add_service(facts.rules())
        .add_service(facts.targets())
        .add_service(facts.metadata())
        .add_service(facts.exemplars())
        .add_service(facts.status())
        .add_service(QueryService::new(services.front).into_server())
        .add_service(health)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .serve_with_incoming(ReceiverStream::new(speakers).map(counted));
    net.spawn(async move {
        if let Err(e) = server.await {
            tracing::error!(error = %e, "gRPC server ended");
        }
    });
    Ok(())
}

/// Says over gRPC what `/-/ready` says over HTTP, for the node as a whole and for its store.
async fn report_health(reporter: HealthReporter, ready: Arc<dyn Fn() -> bool + Send + Sync>) {
    let mut shown = None;
    loop {
        let now = ready();
        if shown != Some(now) {
            let status = if now { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in SERVICES {
                reporter.set_service_status(service, status).await;
            }
            shown = Some(now);
        }
        tokio::time::sleep(HEALTH).await;
    }
}

/// Hands on connections once the other side has said something.
async fn accept(
    listener: tokio::net::TcpListener,
    spoken: mpsc::Sender<std::io::Result<TcpStream>>,
    patience: Duration,
) {
    let silent = Arc::new(Semaphore::new(SILENT_MAX));
    while !spoken.is_closed() {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = silent.clone().try_acquire_owned() else { continue };
        let spoken = spoken.clone();
        tokio::spawn(async move {
            let speaks = tokio::time::timeout(patience, stream.peek(&mut [0])).await;
            if matches!(speaks, Ok(Ok(n)) if n > 0) && stream.set_nodelay(true).is_ok() {
                let _ = spoken.send(Ok(stream)).await;
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn who_says_nothing_is_cut_and_who_speaks_is_served() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (spoken, mut speakers) = mpsc::channel(1);
        tokio::spawn(accept(listener, spoken, Duration::from_millis(300)));
        let mut silent = TcpStream::connect(addr).await.unwrap();
        let mut loud = TcpStream::connect(addr).await.unwrap();
        loud.write_all(b"PRI").await.unwrap();
        let mut served = speakers.recv().await.unwrap().unwrap();
        let mut word = [0; 3];
        served.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"PRI", "nothing of what it said is lost");
        assert_eq!(silent.read(&mut word).await.unwrap(), 0);
        assert!(speakers.try_recv().is_err());
    }
}
