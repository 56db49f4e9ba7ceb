//! Answers to peers over gRPC.
//!
//! Owns the checks on who asks (token and cluster name), on whether this node and this start of it is meant,
//! and the batching of answers. Refuses to plan: it serves the scope it was given and says what it could not.

use std::sync::Arc;

use futures::Stream;
use koios_cluster::KeyRing;
use koios_model::{Clock, Code, Coded, Matcher};
use koios_proto::peer as pb;
use koios_proto::peer::peer_server::{Peer, PeerServer};
use tokio::sync::Semaphore;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use crate::client::{CLUSTER, FULL, MESSAGE_BYTES_MAX, TOKEN};
use crate::error::QueryError;
use crate::local::LocalParts;
use crate::ports::{Keeper, Reports};
use crate::pushing::Evaluated;
use crate::scope::{Answer, Form, Scope};
use crate::stats::QueryStats;
use crate::{part_wire, wire};

/// Bytes of chunks after which a batch is sent.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_SERIES: usize = 2000;
/// Peer requests at a time.
pub const REQUESTS_MAX: usize = 64;
/// Batches of peers that are written at a time; each is at most a message.
pub const WRITES_MAX: usize = 64;

/// The service behind a node's gRPC address.
pub struct PeerService {
    /// This node's name.
    pub node: String,
    /// This start of it.
    pub generation: u64,
    /// Who belongs here.
    pub ring: Arc<KeyRing>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What there is to serve.
    pub parts: LocalParts,
    /// What can be reported.
    pub reports: Arc<dyn Reports>,
    /// Where pushed samples go; none when this node takes none.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// Room for requests.
    pub room: Arc<Semaphore>,
    /// Room for pushed batches.
    pub writes: Arc<Semaphore>,
}

impl PeerService {
    /// As a tonic service.
    pub fn into_server(self) -> PeerServer<Self> {
        PeerServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// That there is no room: another node may have some. Askers of before take it for a node that is away.
    fn full(&self) -> Status {
        QueryStats::count(&self.parts.served.full);
        no_room(format!("{} answers {REQUESTS_MAX} requests already", self.node))
    }

    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let text = |key| request.metadata().get(key).and_then(|v| v.to_str().ok()).unwrap_or("");
        if text(CLUSTER) != self.ring.cluster() {
            return Err(Status::permission_denied(format!(
                "this node belongs to cluster {:?}",
                self.ring.cluster()
            )));
        }
        if !self.ring.verify_rpc_token(text(TOKEN), self.clock.now_ms()) {
            return Err(Status::unauthenticated("the cluster secret differs, or a clock is minutes off"));
        }
        Ok(())
    }

    /// Whether the asker means this start of this node.
    fn is_meant(&self, node: &str, generation: u64) -> Result<(), Status> {
        if node == self.node && generation == self.generation {
            return Ok(());
        }
        Err(Status::unavailable(format!(
            "asked {node} generation {generation}, this is {} generation {}",
            self.node, self.generation
        )))
    }

    fn read(
        &self,
        scope: Option<pb::Scope>,
        matchers: &[pb::Matcher],
    ) -> Result<(Scope, Vec<Matcher>), Status> {
        let scope = scope.ok_or_else(|| Status::invalid_argument("no scope"))?;
        self.is_meant(&scope.node, scope.generation)?;
        let scope = wire::scope_from_pb(&scope).map_err(Status::invalid_argument)?;
        let matchers = wire::matchers_from_pb(matchers).map_err(Status::invalid_argument)?;
        Ok((scope, matchers))
    }
}

fn no_room(why: String) -> Status {
    let mut status = Status::unavailable(why);
    status.metadata_mut().insert(FULL, MetadataValue::from_static("1"));
    status
}

pub(crate) fn status(e: &QueryError) -> Status {
    match (e, e.code()) {
        (QueryError::Overloaded(_), _) => no_room(e.to_string()),
        (QueryError::Limit(_), _) => Status::resource_exhausted(e.to_string()),
        (_, Code::BadData) => Status::invalid_argument(e.to_string()),
        (_, Code::Timeout) => Status::deadline_exceeded(e.to_string()),
        (_, Code::Unavailable) => Status::unavailable(e.to_string()),
        _ => Status::internal(e.to_string()),
    }
}

type Rows = std::pin::Pin<Box<dyn Stream<Item = Result<pb::EvaluateReply, Status>> + Send>>;
type Replies = std::pin::Pin<Box<dyn Stream<Item = Result<pb::SelectReply, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type SelectStream = Replies;

    async fn select(&self, request: Request<pb::SelectRequest>) -> Result<Response<Replies>, Status> {
        self.check(&request)?;
        let permit = self.room.clone().try_acquire_owned().map_err(|_| self.full())?;
        let request = request.into_inner();
        let (scope, matchers) = self.read(request.scope, &request.matchers)?;
        let form = if request.labels_only { Form::Labels } else { Form::Chunks };
        let answer = self.parts.select(&scope, matchers, form).await.map_err(|e| status(&e))?;
        let replies = batches(answer).map(move |r| {
            let _held = &permit;
            Ok(r)
        });
        Ok(Response::new(Box::pin(futures::stream::iter(replies))))
    }

    type EvaluateStream = Rows;

    async fn evaluate(&self, request: Request<pb::EvaluateRequest>) -> Result<Response<Rows>, Status> {
        self.check(&request)?;
        let permit = self.room.clone().try_acquire_owned().map_err(|_| self.full())?;
        let mut request = request.into_inner();
        let (scope, _) = self.read(request.scope.take(), &[])?;
        let part = part_wire::request_from_pb(request, scope).map_err(Status::invalid_argument)?;
        let evaluated = self.parts.evaluate(&part).await.map_err(|e| status(&e))?;
        let replies = row_batches(evaluated).map(move |r| {
            let _held = &permit;
            Ok(r)
        });
        Ok(Response::new(Box::pin(futures::stream::iter(replies))))
    }

    async fn labels(&self, request: Request<pb::LabelsRequest>) -> Result<Response<pb::LabelsReply>, Status> {
        self.check(&request)?;
        let _permit = self.room.try_acquire().map_err(|_| self.full())?;
        let request = request.into_inner();
        let (scope, matchers) = self.read(request.scope, &request.matchers)?;
        let words = self.parts.words(&scope, request.name, matchers).await.map_err(|e| status(&e))?;
        let trailer = wire::trailer_to_pb(&words.served, &words.missing, &words.moved, Vec::new());
        Ok(Response::new(pb::LabelsReply { values: words.values, trailer: Some(trailer) }))
    }

    async fn report(&self, request: Request<pb::ReportRequest>) -> Result<Response<pb::ReportReply>, Status> {
        self.check(&request)?;
        let kind = request.into_inner().kind;
        let body =
            self.reports.report(&kind).ok_or_else(|| Status::not_found(format!("no report {kind:?}")))?;
        Ok(Response::new(pb::ReportReply { body: body.into_bytes() }))
    }

    async fn act(&self, request: Request<pb::ActRequest>) -> Result<Response<pb::ActReply>, Status> {
        self.check(&request)?;
        self.reports.act(&request.into_inner().body).await.map_err(Status::failed_precondition)?;
        Ok(Response::new(pb::ActReply {}))
    }

    async fn write(&self, request: Request<pb::WriteRequest>) -> Result<Response<pb::WriteReply>, Status> {
        self.check(&request)?;
        let request = request.into_inner();
        self.is_meant(&request.node, request.generation)?;
        let not_now = |why: String| Ok(Response::new(pb::WriteReply { outcome: Vec::new(), not_now: why }));
        let Some(keeper) = &self.keeper else { return not_now("takes no pushed samples".to_owned()) };
        let Ok(_permit) = self.writes.try_acquire() else {
            return not_now(format!("{WRITES_MAX} batches of peers are being written"));
        };
        match keeper.keep(request.batch, request.one_zone).await {
            Ok(outcome) => Ok(Response::new(pb::WriteReply { outcome, not_now: String::new() })),
            Err(why) => not_now(why),
        }
    }
}

/// Cuts rows into messages; the last one has the end.
fn row_batches(evaluated: Evaluated) -> impl Iterator<Item = pb::EvaluateReply> {
    let (rows, end) = part_wire::end_to_pb(evaluated);
    let (mut rows, mut end) = (rows.into_iter().peekable(), Some(end));
    std::iter::from_fn(move || {
        end.as_ref()?;
        let mut reply = pb::EvaluateReply::default();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && reply.rows.len() < BATCH_SERIES {
            let Some(row) = rows.next() else { break };
            bytes += row.values.len() * 8 + 16;
            reply.rows.push(part_wire::row_to_pb(row));
        }
        if rows.peek().is_none() {
            reply.end = end.take();
        }
        Some(reply)
    })
}

/// Cuts an answer into messages; the last one carries the trailer.
fn batches(answer: Answer) -> impl Iterator<Item = pb::SelectReply> {
    let trailer = wire::trailer_to_pb(&answer.served, &answer.missing, &answer.moved, answer.warnings);
    let trailer = pb::Trailer { split_into: answer.split, ..trailer };
    let mut series = answer.series.into_iter().peekable();
    let mut trailer = Some(trailer);
    std::iter::from_fn(move || {
        trailer.as_ref()?;
        let mut reply = pb::SelectReply::default();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && reply.series.len() < BATCH_SERIES {
            let Some(s) = series.next() else { break };
            bytes += s.chunks.iter().map(|c| c.data.len() + 16).sum::<usize>();
            reply.series.push(wire::series_to_pb(s));
        }
        if series.peek().is_none() {
            reply.trailer = trailer.take();
        }
        Some(reply)
    })
}
