//! Questions to peers over gRPC.
//!
//! Owns one channel per peer address and what a call costs at most. A peer that cannot be reached is told to
//! `Reach`, so the next query leaves it alone at once. Bounds: answers by the scope's limits, messages of
//! 16 MiB, 1 s to connect, 1 s in all for a peer that was not reached lately.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use koios_cluster::{KeyRing, Member, Reach};
use koios_model::{Clock, Matcher};
use koios_proto::peer as pb;
use koios_proto::peer::peer_client::PeerClient;
use parking_lot::Mutex;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::limits::of_the_query;
use crate::pushing::{Evaluated, PartRequest};
use crate::scope::{Answer, Scope, Words};
use crate::{part_wire, wire};

/// Metadata key of the membership token.
pub const TOKEN: &str = "x-koios-token";
/// Metadata key of the cluster name.
pub const CLUSTER: &str = "x-koios-cluster";
/// Metadata key that marks a refusal for want of room.
pub const FULL: &str = "x-koios-full";
/// Largest message either way.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
const CONNECT: Duration = Duration::from_secs(1);
/// How long a peer gets that was not reached in the last ten seconds.
const PROBE: Duration = Duration::from_secs(1);

/// Why a peer gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// It cannot be reached, or stayed silent.
    Unreachable(String),
    /// It answered that it will not.
    Refused(String),
    /// The answer would exceed a limit.
    Limit(String),
    /// It has no room now; another node may have some.
    Full(String),
}

impl CallError {
    /// In words.
    pub fn text(&self) -> &str {
        match self {
            CallError::Unreachable(t) | CallError::Refused(t) | CallError::Limit(t) | CallError::Full(t) => t,
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

    /// Series of a scope at `node`, within `patience` and what others left of the query's bytes.
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
        (patience, spent): (Duration, &Spent),
    ) -> Result<Answer, CallError> {
        let patience = self.patience(node, patience);
        let request = pb::SelectRequest {
            scope: Some(wire::scope_to_pb(scope, node, ring_hash, patience.as_millis() as u64)),
            matchers: wire::matchers_to_pb(matchers),
            labels_only,
        };
        self.call(node, patience, async |mut client: PeerClient<Channel>| {
            let mut stream = client.select(self.sign(request, patience)).await?.into_inner();
            collect(&mut stream, scope, spent).await
        })
        .await
    }

    /// Rows of a part of a query at `node`, or why it declines.
    ///
    /// # Errors
    /// See `CallError`.
    pub async fn evaluate(
        &self,
        node: &Member,
        ring_hash: u64,
        part: &PartRequest,
        patience: Duration,
    ) -> Result<Evaluated, CallError> {
        let scope = wire::scope_to_pb(&part.scope, node, ring_hash, patience.as_millis() as u64);
        let request = part_wire::request_to_pb(part, scope);
        self.call(node, patience, async |mut client: PeerClient<Channel>| {
            let mut stream = client.evaluate(self.sign(request, patience)).await?.into_inner();
            let (mut rows, mut bytes) = (Vec::new(), 0);
            while let Some(reply) = stream.message().await? {
                for row in reply.rows {
                    bytes += row.values.len() as u64;
                    rows.push(part_wire::row_from_pb(row).map_err(Status::data_loss)?);
                }
                if bytes > part.scope.bytes_max || rows.len() as u64 > part.scope.series_max {
                    return Ok(Err("its rows are too many".to_owned()));
                }
                if let Some(end) = reply.end {
                    return Ok(part_wire::end_from_pb(end, rows));
                }
            }
            Err(Status::unavailable("the answer broke off"))
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
        let patience = self.patience(node, patience);
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

    /// Has `node` keep a copy of pushed samples, all copies of which may lie in `one_zone`: its answer, or why not now.
    ///
    /// # Errors
    /// See `CallError`; the samples may be kept all the same.
    pub async fn write(
        &self,
        node: &Member,
        batch: Vec<u8>,
        one_zone: bool,
        patience: Duration,
    ) -> Result<Result<Vec<u8>, String>, CallError> {
        let (name, generation) = (node.name.clone(), node.generation);
        let request = pb::WriteRequest { node: name, generation, batch, one_zone };
        self.call(node, patience, async |mut client: PeerClient<Channel>| {
            let reply = client.write(self.sign(request, patience)).await?.into_inner();
            Ok(if reply.not_now.is_empty() { Ok(reply.outcome) } else { Err(reply.not_now) })
        })
        .await
    }

    /// A peer that could not be reached a moment ago must prove quickly that it can be: it is asked because only it has its
    /// head, and gossip may say for ever that it lives.
    fn patience(&self, node: &Member, patience: Duration) -> Duration {
        if self.reach.is_ejected(&node.name, node.generation) { patience.min(PROBE) } else { patience }
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
                if status.metadata().contains_key(FULL) {
                    return Err(CallError::Full(text));
                }
                // The transport has codes of its own for what the peer never said: HTTP/2's ENHANCE_YOUR_CALM is no limit of
                // the query. Such a status has a source.
                let is_told = std::error::Error::source(&status).is_none();
                Err(match status.code() {
                    Code::ResourceExhausted if is_told => CallError::Limit(status.message().to_owned()),
                    Code::Unauthenticated
                    | Code::PermissionDenied
                    | Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::NotFound
                    | Code::Unimplemented
                        if is_told =>
                    {
                        CallError::Refused(text)
                    }
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

/// Chunk bytes that came for one select, from all holders, and how many may.
#[derive(Debug)]
pub struct Spent {
    bytes: AtomicU64,
    most: u64,
}

impl Spent {
    /// Nothing yet, and at most so many.
    pub fn of(most: u64) -> Self {
        Self { bytes: AtomicU64::new(0), most }
    }

    /// How many more may come.
    pub fn left(&self) -> u64 {
        self.most.saturating_sub(self.bytes.load(Ordering::Relaxed))
    }

    /// More came; whether all together still may.
    pub(crate) fn add(&self, bytes: u64) -> bool {
        self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= self.most
    }
}

/// Reads an answer to its end. What of it is dropped before that is not given back to the budget: it was fetched.
async fn collect(
    stream: &mut tonic::Streaming<pb::SelectReply>,
    scope: &Scope,
    spent: &Spent,
) -> Result<Answer, Status> {
    let mut answer = Answer::default();
    let mut ended = false;
    while let Some(reply) = stream.message().await? {
        let mut bytes = 0;
        for series in reply.series {
            let series = wire::series_from_pb(series).map_err(Status::data_loss)?;
            bytes += series.chunks.iter().map(|c| c.data.len() as u64).sum::<u64>();
            answer.series.push(series);
        }
        if !spent.add(bytes) {
            return Err(Status::resource_exhausted(of_the_query("bytes", spent.most, "max_bytes")));
        }
        if answer.series.len() as u64 > scope.series_max {
            return Err(Status::resource_exhausted(of_the_query("series", scope.series_max, "max_series")));
        }
        if let Some(trailer) = reply.trailer {
            wire::trailer_into(trailer, &mut answer).map_err(Status::data_loss)?;
            ended = true;
        }
    }
    if ended { Ok(answer) } else { Err(Status::unavailable("the answer broke off")) }
}

#[cfg(test)]
mod tests {
    use koios_model::SystemClock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A peer that ends every connection with ENHANCE_YOUR_CALM (RFC 9113, 7), as one does after many requests that
    /// were given up on a cut link and came all at once when it healed.
    async fn annoyed() -> SocketAddr {
        const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(&SETTINGS).await;
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&GOAWAY).await;
                let _ = stream.read(&mut [0; 4096]).await;
            }
        });
        addr
    }

    #[tokio::test]
    async fn what_the_transport_says_is_no_limit_of_the_query() {
        let clock = SystemClock::shared();
        let reach = Arc::new(Reach::new(clock.clone()));
        let peers = Peers::new(Arc::new(KeyRing::new("c", &[])), clock, reach.clone());
        let mut member = crate::testing::member("n", "b");
        member.record.rpc = annoyed().await;
        let answer = peers.report(&member, "x", Duration::from_secs(5)).await;
        assert!(matches!(answer, Err(CallError::Unreachable(_))), "{answer:?}");
        assert!(reach.is_ejected("n", 1));
    }
}
