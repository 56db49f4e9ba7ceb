//! Questions to peers over gRPC.
//!
//! Owns one channel per peer address and what a call costs at most. A peer that cannot be reached is told to
//! `Reach`, so the next query leaves it alone at once. Bounds: answers by the scope's limits, messages of
//! 16 MiB, 1 s to connect.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use koios_cluster::{KeyRing, Member, Reach};
use koios_model::{Clock, Matcher};
use koios_proto::peer as pb;
use koios_proto::peer::peer_client::PeerClient;
use parking_lot::Mutex;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::scope::{Answer, Scope, Words};
use crate::wire;

/// Metadata key of the membership token.
pub const TOKEN: &str = "x-koios-token";
/// Metadata key of the cluster name.
pub const CLUSTER: &str = "x-koios-cluster";
/// Largest message either way.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
const CONNECT: Duration = Duration::from_secs(1);

/// Why a peer gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// It cannot be reached, or stayed silent.
    Unreachable(String),
    /// It answered that it will not.
    Refused(String),
    /// The answer would exceed a limit.
    Limit(String),
}

impl CallError {
    /// In words.
    pub fn text(&self) -> &str {
        match self {
            CallError::Unreachable(t) | CallError::Refused(t) | CallError::Limit(t) => t,
        }
    }
}

/// Channels to all peers.
pub struct Peers {
    ring: Arc<KeyRing>,
    clock: Arc<dyn Clock>,
    reach: Arc<Reach>,
    channels: Mutex<HashMap<SocketAddr, Channel>>,
}

impl Peers {
    /// No channel open yet.
    pub fn new(ring: Arc<KeyRing>, clock: Arc<dyn Clock>, reach: Arc<Reach>) -> Self {
        Self { ring, clock, reach, channels: Mutex::default() }
    }

    /// Who could not be reached lately.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Series of a scope at `node`.
    ///
    /// # Errors
    /// See `CallError`.
    pub async fn select(
        &self,
        node: &Member,
        ring_hash: u64,
        scope: &Scope,
        matchers: &[Matcher],
        labels_only: bool,
        patience: Duration,
    ) -> Result<Answer, CallError> {
        let request = pb::SelectRequest {
            scope: Some(wire::scope_to_pb(scope, node, ring_hash, patience.as_millis() as u64)),
            matchers: wire::matchers_to_pb(matchers),
            labels_only,
        };
        self.call(node, patience, async |mut client: PeerClient<Channel>| {
            let mut stream = client.select(self.sign(request, patience)).await?.into_inner();
            collect(&mut stream, scope).await
        })
        .await
    }

    /// Label names or values of a scope at `node`.
    ///
    /// # Errors
    /// See `CallError`.
    pub async fn words(
        &self,
        node: &Member,
        ring_hash: u64,
        scope: &Scope,
        name: &str,
        matchers: &[Matcher],
        patience: Duration,
    ) -> Result<Words, CallError> {
        let request = pb::LabelsRequest {
            scope: Some(wire::scope_to_pb(scope, node, ring_hash, patience.as_millis() as u64)),
            matchers: wire::matchers_to_pb(matchers),
            name: name.to_owned(),
            limit: 0,
        };
        self.call(node, patience, async |mut client: PeerClient<Channel>| {
            let reply = client.labels(self.sign(request, patience)).await?.into_inner();
            let mut account = Answer::default();
            let trailer = reply.trailer.ok_or_else(|| Status::data_loss("answer without a trailer"))?;
            wire::trailer_into(trailer, &mut account).map_err(Status::data_loss)?;
            Ok(Words {
                values: reply.values,
                served: account.served,
                missing: account.missing,
                moved: account.moved,
            })
        })
        .await
    }

    /// A report of `node`, as JSON.
    ///
    /// # Errors
    /// See `CallError`.
    pub async fn report(&self, node: &Member, kind: &str, patience: Duration) -> Result<Vec<u8>, CallError> {
        let request = pb::ReportRequest { kind: kind.to_owned() };
        self.call(node, patience, async |mut client: PeerClient<Channel>| {
            Ok(client.report(self.sign(request, patience)).await?.into_inner().body)
        })
        .await
    }

    /// Has `node` do its part of something.
    ///
    /// # Errors
    /// See `CallError`.
    pub async fn act(&self, node: &Member, body: &str, patience: Duration) -> Result<(), CallError> {
        let request = pb::ActRequest { body: body.as_bytes().to_vec() };
        self.call(node, patience, async |mut client: PeerClient<Channel>| {
            client.act(self.sign(request, patience)).await.map(drop)
        })
        .await
    }

    /// Has `node` keep a copy of pushed samples: its answer, or why not now.
    ///
    /// # Errors
    /// See `CallError`; the samples may be kept all the same.
    pub async fn write(
        &self,
        node: &Member,
        batch: Vec<u8>,
        patience: Duration,
    ) -> Result<Result<Vec<u8>, String>, CallError> {
        let request = pb::WriteRequest { node: node.name.clone(), generation: node.generation, batch };
        self.call(node, patience, async |mut client: PeerClient<Channel>| {
            let reply = client.write(self.sign(request, patience)).await?.into_inner();
            Ok(if reply.not_now.is_empty() { Ok(reply.outcome) } else { Err(reply.not_now) })
        })
        .await
    }

    async fn call<T>(
        &self,
        node: &Member,
        patience: Duration,
        work: impl AsyncFnOnce(PeerClient<Channel>) -> Result<T, Status>,
    ) -> Result<T, CallError> {
        let client = self.client(node.record.rpc)?;
        let result = tokio::time::timeout(patience, work(client)).await;
        let (name, generation) = (node.name.as_str(), node.generation);
        match result {
            Ok(Ok(answer)) => {
                self.reach.answered(name, generation);
                Ok(answer)
            }
            Ok(Err(status)) => {
                let text = format!("{name}: {}", status.message());
                Err(match status.code() {
                    Code::ResourceExhausted => CallError::Limit(status.message().to_owned()),
                    Code::Unauthenticated
                    | Code::PermissionDenied
                    | Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::NotFound
                    | Code::Unimplemented => CallError::Refused(text),
                    _ => {
                        self.reach.failed(name, generation);
                        CallError::Unreachable(text)
                    }
                })
            }
            Err(_) => {
                self.reach.failed(name, generation);
                Err(CallError::Unreachable(format!("{name}: no answer within {} ms", patience.as_millis())))
            }
        }
    }

    fn client(&self, addr: SocketAddr) -> Result<PeerClient<Channel>, CallError> {
        let mut channels = self.channels.lock();
        if channels.len() > 4096 {
            channels.clear();
        }
        if let std::collections::hash_map::Entry::Vacant(slot) = channels.entry(addr) {
            let endpoint = Endpoint::from_shared(format!("http://{addr}"))
                .map_err(|e| CallError::Refused(e.to_string()))?
                .connect_timeout(CONNECT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(Duration::from_secs(20))
                .keep_alive_timeout(Duration::from_secs(5));
            slot.insert(endpoint.connect_lazy());
        }
        let client = PeerClient::new(channels[&addr].clone());
        Ok(client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn sign<T>(&self, message: T, patience: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(patience);
        let token = self.ring.rpc_token(self.clock.now_ms());
        if let (Ok(token), Ok(cluster)) = (token.parse::<MetadataValue<_>>(), self.ring.cluster().parse()) {
            request.metadata_mut().insert(TOKEN, token);
            request.metadata_mut().insert(CLUSTER, cluster);
        }
        request
    }
}

async fn collect(stream: &mut tonic::Streaming<pb::SelectReply>, scope: &Scope) -> Result<Answer, Status> {
    let mut answer = Answer::default();
    let mut bytes = 0u64;
    let mut ended = false;
    while let Some(reply) = stream.message().await? {
        for series in reply.series {
            let series = wire::series_from_pb(series).map_err(Status::data_loss)?;
            bytes += series.chunks.iter().map(|c| c.data.len() as u64).sum::<u64>();
            answer.series.push(series);
        }
        if bytes > scope.bytes_max || answer.series.len() as u64 > scope.series_max {
            return Err(Status::resource_exhausted(
                "the query would fetch more than its limits allow; narrow it",
            ));
        }
        if let Some(trailer) = reply.trailer {
            wire::trailer_into(trailer, &mut answer).map_err(Status::data_loss)?;
            ended = true;
        }
    }
    if ended { Ok(answer) } else { Err(Status::unavailable("the answer broke off")) }
}
