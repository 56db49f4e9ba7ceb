//! The server: series and words of the whole cluster for whoever speaks StoreAPI.
//!
//! The rules are Thanos' (its StoreAPI): external labels are settled first, replica labels are taken off before sorting and
//! before shards are told apart, limits count series, and what is missing is a warning or an error as the asker says.
//! Bounds: `REQUESTS_MAX` questions at a time, `MATCHERS_MAX` conditions.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use koios_chunk::{Aggregate, SeriesChunks};
use koios_model::{Labels, LabelsBuilder, Matcher};
use koios_proto::thanos as pb;
use koios_proto::thanos::store_server::{Store, StoreServer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use crate::served::REPLICA;
use crate::shard::SeriesShard;
use crate::storeapi::frames::{aggregates_from_pb, chunk_to_pb, frames};
use crate::storeapi::{ClusterSource, SeriesAsk, Sides, Told, matchers_from_pb, shown, via};

/// Most questions at a time.
pub const REQUESTS_MAX: usize = 64;
/// Most conditions of a question.
const MATCHERS_MAX: usize = 1000;
/// Largest question, bytes.
const QUESTION_BYTES_MAX: usize = 4 << 20;
/// Most series in a batch.
const BATCH_MAX: usize = 1000;

/// Answers for the cluster.
pub struct StoreService {
    sides: Sides,
    room: Arc<Semaphore>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<pb::SeriesResponse, Status>> + Send>>;

impl StoreService {
    /// Over the cluster's data, and what lies beside this node.
    pub fn new(sides: Sides) -> Self {
        Self { sides, room: Arc::new(Semaphore::new(REQUESTS_MAX)) }
    }

    /// As a service of a gRPC server.
    pub fn into_server(self) -> StoreServer<Self> {
        StoreServer::new(self)
            .max_decoding_message_size(QUESTION_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    fn admit(&self) -> Result<OwnedSemaphorePermit, Status> {
        let full =
            |_| Status::resource_exhausted(format!("{REQUESTS_MAX} questions are being answered already"));
        self.room.clone().try_acquire_owned().map_err(full)
    }
}

/// Conditions, those on the slot apart; the latter can only be tried on whole label sets.
fn matchers(asked: &[pb::LabelMatcher]) -> Result<(Vec<Matcher>, Vec<Matcher>), Status> {
    if asked.len() > MATCHERS_MAX {
        return Err(Status::invalid_argument(format!("more than {MATCHERS_MAX} matchers")));
    }
    Ok(matchers_from_pb(asked)?.into_iter().partition(|m| &*m.name != REPLICA))
}

/// A question for series must have a condition on more than external labels, as at every Thanos store.
fn has_inner(source: &dyn ClusterSource, matchers: &[Matcher]) -> Result<(), Status> {
    // A name is no external label; most questions end here, and producers need not be gone through.
    if matchers.iter().any(|m| &*m.name == "__name__") {
        return Ok(());
    }
    let streams = source.streams();
    let external = |name: &str| {
        name == REPLICA || (!streams.is_empty() && streams.iter().all(|s| s.labels.get(name).is_some()))
    };
    match matchers.iter().any(|m| !external(&m.name)) {
        true => Ok(()),
        false => Err(Status::invalid_argument("no matchers specified (excluding external labels)")),
    }
}

async fn found(
    source: &dyn ClusterSource,
    ask: SeriesAsk,
    slots: &[Matcher],
) -> Result<Told<(Labels, SeriesChunks)>, Status> {
    let told = source.series(ask).await?;
    let dress = |mut s: SeriesChunks| {
        let labels = shown(std::mem::take(&mut s.labels), s.slot);
        let wanted = slots.iter().all(|m| m.matches(labels.get(REPLICA).unwrap_or("")));
        wanted.then_some((labels, s))
    };
    Ok(Told { found: told.found.into_iter().filter_map(dress).collect(), warnings: told.warnings })
}

/// Label sets of a question for words, where conditions or words are about the slot.
async fn label_sets(
    source: &dyn ClusterSource,
    ask: SeriesAsk,
    slots: &[Matcher],
) -> Result<Told<Labels>, Status> {
    let told = found(source, SeriesAsk { labels_only: true, ..ask }, slots).await?;
    Ok(Told { found: told.found.into_iter().map(|(l, _)| l).collect(), warnings: told.warnings })
}

/// Whether an answer that lacks something is an error.
pub(super) fn aborts(disabled: bool, strategy: pb::PartialResponseStrategy) -> bool {
    disabled || strategy == pb::PartialResponseStrategy::Abort
}

pub(super) fn judged(warnings: &[String], abort: bool) -> Result<(), Status> {
    match warnings.first() {
        Some(first) if abort => Err(Status::aborted(first.clone())),
        _ => Ok(()),
    }
}

fn without(labels: Labels, names: &[String]) -> Labels {
    if !names.iter().any(|n| labels.get(n).is_some()) {
        return labels;
    }
    let mut builder = LabelsBuilder::from_labels(&labels);
    names.iter().for_each(|n| {
        builder.del(n);
    });
    builder.build()
}

/// Some of the series, from the wire.
///
/// # Errors
/// `InvalidArgument` for a shard that is none of those.
pub fn shard_from_pb(shard: Option<pb::ShardInfo>) -> Result<Option<SeriesShard>, Status> {
    let Some(s) = shard.filter(|s| s.total_shards >= 1) else { return Ok(None) };
    if !(0..s.total_shards).contains(&s.shard_index) {
        return Err(Status::invalid_argument(format!("shard {} of {}", s.shard_index, s.total_shards)));
    }
    let (index, count) = (s.shard_index as u64, s.total_shards as u64);
    Ok(Some(SeriesShard { index, count, by: s.by, labels: s.labels }))
}

/// What becomes of the series of an answer.
struct Shape {
    replica_labels: Vec<String>,
    shard: Option<SeriesShard>,
    wanted: Vec<Aggregate>,
    limit: usize,
    batch: usize,
}

impl Shape {
    /// Sorted as the asker sees them, and no more than it wants.
    fn sorted(&self, found: Vec<(Labels, SeriesChunks)>) -> Vec<(Labels, SeriesChunks)> {
        let bare = |(labels, s)| (without(labels, &self.replica_labels), s);
        let mut series: Vec<(Labels, SeriesChunks)> = found.into_iter().map(bare).collect();
        if let Some(shard) = &self.shard {
            series.retain(|(labels, _)| shard.holds(labels));
        }
        // Stable: replicas stay in the order of their own labels.
        series.sort_by(|a, b| a.0.cmp(&b.0));
        if self.limit > 0 {
            series.truncate(self.limit);
        }
        series
    }

    fn of_one(&self, (labels, s): (Labels, SeriesChunks)) -> Result<Vec<pb::Series>, Status> {
        let chunks = s.chunks.iter().map(|c| chunk_to_pb(c, &self.wanted)).collect::<Result<Vec<_>, _>>();
        let chunks = chunks.map_err(|e| Status::data_loss(format!("{labels}: {e}")))?;
        Ok(frames(&labels, chunks))
    }
}

/// Frames one after the other, in batches where the asker can take them; then what is missing.
fn responses(
    series: Vec<(Labels, SeriesChunks)>,
    shape: Shape,
    warnings: Vec<String>,
    permit: OwnedSemaphorePermit,
) -> Responses {
    use pb::series_response::Result as Part;
    let mut series = series.into_iter();
    let mut ready = std::collections::VecDeque::new();
    let size = shape.batch.clamp(1, BATCH_MAX);
    let frames = std::iter::from_fn(move || {
        let _held = &permit;
        while ready.len() < size {
            let Some(one) = series.next() else { break };
            match shape.of_one(one) {
                Ok(frames) => ready.extend(frames),
                Err(e) => return Some(Err(e)),
            }
        }
        if size > 1 && !ready.is_empty() {
            let batch: Vec<pb::Series> = ready.drain(..ready.len().min(size)).collect();
            return Some(Ok(Part::Batch(pb::SeriesBatch { series: batch })));
        }
        ready.pop_front().map(|one| Ok(Part::Series(one)))
    });
    let words = warnings.into_iter().map(|w| Ok(Part::Warning(w)));
    let parts = frames.chain(words).map(|r| r.map(|part| pb::SeriesResponse { result: Some(part) }));
    Box::pin(futures::stream::iter(parts))
}

#[tonic::async_trait]
impl Store for StoreService {
    type SeriesStream = Responses;

    async fn series(&self, request: Request<pb::SeriesRequest>) -> Result<Response<Responses>, Status> {
        let permit = self.admit()?;
        let (side, via) = (self.sides.of(&request)?, via(request.metadata()));
        let (source, r) = (side.source(), request.into_inner());
        let abort = aborts(r.partial_response_disabled, r.partial_response_strategy());
        let (matchers, slots) = matchers(&r.matchers)?;
        has_inner(source, &matchers)?;
        let shape = Shape {
            shard: shard_from_pb(r.shard_info)?,
            wanted: aggregates_from_pb(&r.aggregates),
            replica_labels: r.without_replica_labels,
            limit: r.limit.max(0) as usize,
            batch: r.response_batch_size.max(1) as usize,
        };
        let ask = SeriesAsk {
            mint: r.min_time,
            maxt: r.max_time,
            matchers,
            max_resolution_ms: r.max_resolution_window.max(0),
            labels_only: r.skip_chunks,
            via,
        };
        let told = found(source, ask, &slots).await?;
        judged(&told.warnings, abort)?;
        let series = shape.sorted(told.found);
        Ok(Response::new(responses(series, shape, told.warnings, permit)))
    }

    async fn label_names(
        &self,
        request: Request<pb::LabelNamesRequest>,
    ) -> Result<Response<pb::LabelNamesResponse>, Status> {
        let _permit = self.admit()?;
        let (side, via) = (self.sides.of(&request)?, via(request.metadata()));
        let (source, r) = (side.source(), request.into_inner());
        let abort = aborts(r.partial_response_disabled, r.partial_response_strategy());
        let (matchers, slots) = matchers(&r.matchers)?;
        let bare = matchers.is_empty() && slots.is_empty();
        let ask = SeriesAsk { mint: r.start, maxt: r.end, matchers, via, ..SeriesAsk::default() };
        let mut told = if bare {
            let mut told = source.words(ask, "").await?;
            let has_slot = |s: &super::Stream| s.labels.get(REPLICA).is_some();
            if !told.found.is_empty() && source.streams().iter().any(has_slot) {
                told.found.push(REPLICA.to_owned());
            }
            told
        } else {
            let sets = label_sets(source, ask, &slots).await?;
            let names = sets.found.iter().flat_map(|l| l.iter().map(|(n, _)| n.to_owned()));
            Told { found: names.collect::<BTreeSet<_>>().into_iter().collect(), warnings: sets.warnings }
        };
        judged(&told.warnings, abort)?;
        told.found.retain(|n| !r.without_replica_labels.contains(n));
        let names = cut(told.found, r.limit);
        Ok(Response::new(pb::LabelNamesResponse { names, warnings: told.warnings, hints: None }))
    }

    async fn label_values(
        &self,
        request: Request<pb::LabelValuesRequest>,
    ) -> Result<Response<pb::LabelValuesResponse>, Status> {
        let _permit = self.admit()?;
        let (side, via) = (self.sides.of(&request)?, via(request.metadata()));
        let (source, r) = (side.source(), request.into_inner());
        if r.label.is_empty() {
            return Err(Status::invalid_argument("label name parameter cannot be empty"));
        }
        let abort = aborts(r.partial_response_disabled, r.partial_response_strategy());
        let (matchers, slots) = matchers(&r.matchers)?;
        if r.without_replica_labels.contains(&r.label) {
            return Ok(Response::new(pb::LabelValuesResponse::default()));
        }
        let ask = SeriesAsk { mint: r.start, maxt: r.end, matchers, via, ..SeriesAsk::default() };
        let told = if slots.is_empty() && r.label != REPLICA {
            source.words(ask, &r.label).await?
        } else {
            let sets = label_sets(source, ask, &slots).await?;
            let values = sets.found.iter().filter_map(|l| l.get(&r.label)).map(str::to_owned);
            Told { found: values.collect::<BTreeSet<_>>().into_iter().collect(), warnings: sets.warnings }
        };
        judged(&told.warnings, abort)?;
        let values = cut(told.found, r.limit);
        Ok(Response::new(pb::LabelValuesResponse { values, warnings: told.warnings, hints: None }))
    }
}

/// Sorted, once each, and no more than wanted.
fn cut(mut words: Vec<String>, limit: i64) -> Vec<String> {
    words.sort_unstable();
    words.dedup();
    if limit > 0 {
        words.truncate(limit as usize);
    }
    words
}
