//! The client: one endpoint that speaks StoreAPI, a Thanos component or another Koios cluster.
//!
//! Owns the connection, what the endpoint said of itself (`EndpointInfo`), whether a question concerns it, its answers as
//! series of chunks, and the facts it knows. What lies beside a node of the own cluster is reached through that node in the same
//! way, and what lies beside this node without a wire. Refuses to decide who is asked when: that is `federation`'s. Answers are checked, not trusted. Bounds: the
//! caller's patience, series and bytes; `CONNECT` to connect.

use std::sync::Arc;
use std::time::Duration;

use koios_chunk::{Aggregate, Chunk, SeriesChunks};
use koios_model::{Labels, LabelsBuilder, MatchType, Matcher, Slot};
use koios_proto::thanos as pb;
use koios_proto::thanos::info::info_client::InfoClient;
use koios_proto::thanos::info::{InfoRequest, InfoResponse};
use koios_proto::thanos::store_client::StoreClient;
use serde_json::Value;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::served::REPLICA;
use crate::storeapi::facts::{FactsAsk, Offer};
use crate::storeapi::frames::{aggregates_to_pb, chunk_from_pb, labels_from_pb};
use crate::storeapi::{BESIDE, Beside, SeriesAsk, Told, VIA, facts_wire, matchers_to_pb};

const CONNECT: Duration = Duration::from_secs(5);
/// A connection without a sign of life for so long is given up.
const ALIVE: Duration = Duration::from_secs(20);
/// Most series that a frame's batch is asked to have.
const BATCH: i64 = 64;
/// Most parts of an answer of facts.
const FACTS_MAX: usize = 100_000;
/// Metadata key by which a Koios endpoint is known.
pub const KOIOS: &str = "x-koios";

/// What an endpoint said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointInfo {
    /// Component, in Thanos' words.
    pub kind: String,
    /// External labels of its producers; empty: it may have anything.
    pub label_sets: Vec<Labels>,
    /// First moment, milliseconds.
    pub mint: i64,
    /// Last moment, milliseconds.
    pub maxt: i64,
    /// Whether it serves series at all.
    pub has_store: bool,
    /// Whether it is another Koios: its replica labels are slots, which fold exactly.
    pub is_koios: bool,
    /// Facts that it offers.
    pub offers: Vec<Offer>,
}

impl EndpointInfo {
    fn from_pb(info: InfoResponse, is_koios: bool) -> Self {
        let labels = |set: &pb::LabelSet| labels_from_pb(&set.labels);
        let offered = [
            info.rules.is_some(),
            info.targets.is_some(),
            info.metric_metadata.is_some(),
            info.exemplars.is_some(),
            info.status.is_some(),
        ];
        let store = info.store;
        Self {
            kind: info.component_type,
            label_sets: info.label_sets.iter().map(labels).collect(),
            mint: store.as_ref().map_or(i64::MAX, |s| s.min_time),
            maxt: store.as_ref().map_or(i64::MIN, |s| s.max_time),
            has_store: store.is_some(),
            is_koios,
            offers: Offer::ALL.into_iter().zip(offered).filter(|(_, is)| *is).map(|(o, _)| o).collect(),
        }
    }

    /// Whether a question may find something there: the times overlap, and some label set contradicts no condition.
    pub fn concerns(&self, ask: &SeriesAsk) -> bool {
        let fits = |set: &Labels| ask.matchers.iter().all(|m| set.get(&m.name).is_none_or(|v| m.matches(v)));
        let labels = self.label_sets.is_empty() || self.label_sets.iter().any(fits);
        self.has_store && self.mint <= ask.maxt && ask.mint <= self.maxt && labels
    }

    /// The conditions to send. Stores refuse a question that has none beside those on external labels.
    fn conditions(&self, ask: &SeriesAsk) -> Vec<pb::LabelMatcher> {
        let mut out = matchers_to_pb(&ask.matchers);
        let external = |name: &str| self.label_sets.iter().any(|set| set.get(name).is_some());
        if ask.matchers.iter().all(|m| external(&m.name)) {
            let any = Matcher::new(MatchType::NotEqual, "__name__", "").expect("BUG: no regexp to be wrong");
            out.extend(matchers_to_pb(&[any]));
        }
        out
    }
}

/// What an answer may cost.
pub struct Cost<'a> {
    /// Longest wait.
    pub patience: Duration,
    /// Most series.
    pub series_max: u64,
    /// Takes so many bytes, unless they are too many.
    pub take: &'a (dyn Fn(u64) -> bool + Send + Sync),
}

impl Cost<'_> {
    fn pay(&self, chunks: &[Chunk]) -> Result<(), Status> {
        match (self.take)(chunks.iter().map(|c| c.data.len() as u64 + 16).sum()) {
            true => Ok(()),
            false => Err(Status::resource_exhausted("the answer has more bytes than the query may fetch")),
        }
    }

    fn bear(&self, series: usize) -> Result<(), Status> {
        match series as u64 <= self.series_max {
            true => Ok(()),
            false => Err(Status::resource_exhausted("the answer has more series than the query may fetch")),
        }
    }
}

/// How an endpoint is reached.
#[derive(Clone)]
enum Way {
    Wire(Channel),
    /// What lies beside the node at the other end.
    Beside(Channel),
    Here(Arc<dyn Beside>),
}

/// One endpoint.
#[derive(Clone)]
pub struct EndpointClient {
    address: String,
    way: Way,
}

impl std::fmt::Debug for EndpointClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.address)
    }
}

impl EndpointClient {
    /// Towards `address` (`host:port`); connects when it is asked first.
    ///
    /// # Errors
    /// When the address is none, or the TLS settings cannot be used.
    pub fn new(address: &str, tls: Option<ClientTlsConfig>) -> Result<Self, String> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|e| format!("{address}: {e}"))?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(ALIVE)
            .keep_alive_timeout(ALIVE);
        if let Some(tls) = tls {
            endpoint = endpoint.tls_config(tls).map_err(|e| format!("{address}: {e}"))?;
        }
        Ok(Self { address: address.to_owned(), way: Way::Wire(endpoint.connect_lazy()) })
    }

    /// Towards what lies beside the node of the own cluster at `address`.
    ///
    /// # Errors
    /// As `new`.
    pub fn beside(address: &str) -> Result<Self, String> {
        let client = Self::new(address, None)?;
        let way = match client.way {
            Way::Wire(channel) => Way::Beside(channel),
            other => other,
        };
        Ok(Self { way, ..client })
    }

    /// What lies beside this node, whose own address is `address`.
    pub fn here(address: &str, source: Arc<dyn Beside>) -> Self {
        Self { address: address.to_owned(), way: Way::Here(source) }
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks what it is.
    ///
    /// # Errors
    /// When it does not answer in time. `FailedPrecondition` when nothing lies beside the node that was asked for that.
    pub async fn info(&self, patience: Duration) -> Result<EndpointInfo, Status> {
        let (channel, beside) = match &self.way {
            Way::Wire(channel) => (channel, false),
            Way::Beside(channel) => (channel, true),
            Way::Here(source) => return within(patience, source.info()).await,
        };
        let mut client = InfoClient::new(channel.clone());
        let answer = within(patience, client.info(self.sign(InfoRequest {}, &[], patience))).await?;
        // A node that does not know the word speaks for the whole cluster.
        if beside && !answer.metadata().contains_key(BESIDE) {
            return Err(Status::failed_precondition("the node is of a version that has nothing beside it"));
        }
        let is_koios = answer.metadata().contains_key(KOIOS);
        Ok(EndpointInfo::from_pb(answer.into_inner(), is_koios))
    }

    fn sign<T>(&self, message: T, via: &[String], patience: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(patience);
        if let Ok(via) = MetadataValue::try_from(via.join(",")) {
            request.metadata_mut().insert(VIA, via);
        }
        if matches!(self.way, Way::Beside(_)) {
            request.metadata_mut().insert(BESIDE, MetadataValue::from_static("1"));
        }
        request
    }

    /// Its series; of downsampled chunks the aggregates `wanted`.
    ///
    /// # Errors
    /// When it does not answer in time, or the answer is damaged or too large.
    pub async fn series(
        &self,
        info: &EndpointInfo,
        ask: &SeriesAsk,
        wanted: &[Aggregate],
        cost: &Cost<'_>,
    ) -> Result<Told<SeriesChunks>, Status> {
        let channel = match &self.way {
            Way::Wire(channel) | Way::Beside(channel) => channel,
            Way::Here(source) => return here(&**source, ask, cost).await,
        };
        let request = pb::SeriesRequest {
            min_time: ask.mint,
            max_time: ask.maxt,
            matchers: info.conditions(ask),
            max_resolution_window: ask.max_resolution_ms,
            aggregates: match ask.max_resolution_ms {
                0 => vec![pb::Aggr::Raw.into()],
                _ => aggregates_to_pb(wanted),
            },
            partial_response_strategy: pb::PartialResponseStrategy::Warn.into(),
            skip_chunks: ask.labels_only,
            response_batch_size: BATCH,
            ..pb::SeriesRequest::default()
        };
        within(cost.patience, async {
            let mut client = StoreClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
            let mut stream = client.series(self.sign(request, &ask.via, cost.patience)).await?.into_inner();
            let mut told = Told { found: Vec::new(), warnings: Vec::new() };
            while let Some(response) = stream.message().await? {
                self.absorb(response, info, &mut told, cost)?;
            }
            told.found.iter_mut().for_each(|s| tidy(&mut s.chunks));
            Ok(told)
        })
        .await
    }

    fn absorb(
        &self,
        response: pb::SeriesResponse,
        info: &EndpointInfo,
        told: &mut Told<SeriesChunks>,
        cost: &Cost<'_>,
    ) -> Result<(), Status> {
        use pb::series_response::Result as Part;
        let frames = match response.result {
            Some(Part::Series(one)) => vec![one],
            Some(Part::Batch(batch)) => batch.series,
            Some(Part::Warning(words)) => {
                told.warnings.push(words);
                return Ok(());
            }
            Some(Part::Hints(_)) | None => return Ok(()),
        };
        for frame in frames {
            let (labels, slot) = place(labels_from_pb(&frame.labels), info.is_koios);
            let mut chunks = Vec::with_capacity(frame.chunks.len());
            for chunk in frame.chunks {
                let read = chunk_from_pb(chunk).map_err(|e| Status::data_loss(format!("{labels}: {e}")))?;
                chunks.extend(read);
            }
            cost.pay(&chunks)?;
            match told.found.last_mut() {
                Some(last) if last.labels == labels && last.slot == slot => last.chunks.extend(chunks),
                _ => told.found.push(SeriesChunks { labels, slot, chunks }),
            }
            cost.bear(told.found.len())?;
        }
        Ok(())
    }

    /// Its label names (`name` empty) or values of label `name`.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn words(
        &self,
        ask: &SeriesAsk,
        name: &str,
        patience: Duration,
    ) -> Result<Told<String>, Status> {
        let channel = match &self.way {
            Way::Wire(channel) | Way::Beside(channel) => channel,
            Way::Here(source) => return within(patience, source.words(ask.clone(), name)).await,
        };
        let mut client = StoreClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let matchers = matchers_to_pb(&ask.matchers);
        let (start, end) = (ask.mint, ask.maxt);
        if name.is_empty() {
            let request = pb::LabelNamesRequest { start, end, matchers, ..Default::default() };
            let call = client.label_names(self.sign(request, &ask.via, patience));
            let answer = within(patience, call).await?.into_inner();
            return Ok(Told { found: answer.names, warnings: answer.warnings });
        }
        let label = name.to_owned();
        let request = pb::LabelValuesRequest { label, start, end, matchers, ..Default::default() };
        let call = client.label_values(self.sign(request, &ask.via, patience));
        let answer = within(patience, call).await?.into_inner();
        Ok(Told { found: answer.values, warnings: answer.warnings })
    }

    /// Facts that it knows, in the shape that `FactsAsk` says.
    ///
    /// # Errors
    /// When it does not answer in time, or has more than `FACTS_MAX` parts.
    pub async fn facts(
        &self,
        ask: FactsAsk,
        via: &[String],
        patience: Duration,
    ) -> Result<Told<Value>, Status> {
        let channel = match &self.way {
            Way::Wire(channel) | Way::Beside(channel) => channel.clone(),
            Way::Here(source) => return within(patience, source.facts(ask, via.to_vec())).await,
        };
        within(patience, self.facts_over(channel, ask, via, patience)).await
    }

    async fn facts_over(
        &self,
        channel: Channel,
        ask: FactsAsk,
        via: &[String],
        patience: Duration,
    ) -> Result<Told<Value>, Status> {
        use pb::exemplars_response::Result as Exemplars;
        use pb::metric_metadata_response::Result as Metadata;
        use pb::rules_response::Result as Rules;
        use pb::targets_response::Result as Targets;
        use pb::tsdb_statistics_response::Result as Statistics;
        match ask {
            FactsAsk::Rules(r) => {
                let mut client = pb::rules_client::RulesClient::new(channel);
                let stream = client.rules(self.sign(r, via, patience)).await?.into_inner();
                let told = gather(stream, |m| match m.result? {
                    Rules::Group(g) => Some(Ok(facts_wire::group_json(&g))),
                    Rules::Warning(w) => Some(Err(w)),
                });
                let told = told.await?;
                Ok(Told { found: vec![Value::Array(told.found)], warnings: told.warnings })
            }
            FactsAsk::Targets(r) => {
                let mut client = pb::targets_client::TargetsClient::new(channel);
                let stream = client.targets(self.sign(r, via, patience)).await?.into_inner();
                gather(stream, |m| match m.result? {
                    Targets::Targets(t) => Some(Ok(facts_wire::targets_json(&t))),
                    Targets::Warning(w) => Some(Err(w)),
                })
                .await
            }
            FactsAsk::Metadata(r) => {
                let mut client = pb::metadata_client::MetadataClient::new(channel);
                let stream = client.metric_metadata(self.sign(r, via, patience)).await?.into_inner();
                gather(stream, |m| match m.result? {
                    Metadata::Metadata(t) => Some(Ok(facts_wire::metadata_json(&t))),
                    Metadata::Warning(w) => Some(Err(w)),
                })
                .await
            }
            FactsAsk::Exemplars(r) => {
                let mut client = pb::exemplars_client::ExemplarsClient::new(channel);
                let stream = client.exemplars(self.sign(r, via, patience)).await?.into_inner();
                let told = gather(stream, |m| match m.result? {
                    Exemplars::Data(d) => Some(Ok(facts_wire::exemplars_json(&d))),
                    Exemplars::Warning(w) => Some(Err(w)),
                });
                let told = told.await?;
                Ok(Told { found: vec![Value::Array(told.found)], warnings: told.warnings })
            }
            FactsAsk::Status(r) => {
                let mut client = pb::status_client::StatusClient::new(channel);
                let stream = client.tsdb_statistics(self.sign(r, via, patience)).await?.into_inner();
                gather(stream, |m| match m.result? {
                    Statistics::Statistics(s) => Some(Ok(facts_wire::statistics_json(&s))),
                    Statistics::Warning(w) => Some(Err(w)),
                })
                .await
            }
        }
    }
}

/// All parts of an answer, facts and warnings apart.
async fn gather<M>(
    mut stream: Streaming<M>,
    read: impl Fn(M) -> Option<Result<Value, String>>,
) -> Result<Told<Value>, Status> {
    let mut told = Told { found: Vec::new(), warnings: Vec::new() };
    while let Some(message) = stream.message().await? {
        match read(message) {
            Some(Ok(fact)) => told.found.push(fact),
            Some(Err(words)) => told.warnings.push(words),
            None => {}
        }
        if told.found.len() + told.warnings.len() > FACTS_MAX {
            return Err(Status::resource_exhausted(format!("the answer has more than {FACTS_MAX} parts")));
        }
    }
    Ok(told)
}

/// Series of what lies beside this node.
async fn here(source: &dyn Beside, ask: &SeriesAsk, cost: &Cost<'_>) -> Result<Told<SeriesChunks>, Status> {
    let told = within(cost.patience, source.series(ask.clone())).await?;
    cost.bear(told.found.len())?;
    told.found.iter().try_for_each(|s| cost.pay(&s.chunks))?;
    Ok(told)
}

/// In time order, each once.
fn tidy(chunks: &mut Vec<Chunk>) {
    chunks.sort_by(|a, b| (a.min_time, a.max_time, &a.data).cmp(&(b.min_time, b.max_time, &b.data)));
    chunks.dedup();
}

/// The slot of another Koios' series travels beside its labels here too.
fn place(labels: Labels, is_koios: bool) -> (Labels, Slot) {
    let slot = labels.get(REPLICA).filter(|_| is_koios).and_then(|v| v.parse::<u8>().ok());
    match slot.filter(|s| *s < Slot::MAX) {
        Some(slot) => {
            let mut builder = LabelsBuilder::from_labels(&labels);
            builder.del(REPLICA);
            (builder.build(), Slot(slot))
        }
        None => (labels, Slot::FOREIGN),
    }
}

async fn within<T>(patience: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let waited = tokio::time::timeout(patience, call).await;
    waited.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {patience:?}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(sets: &[&[(&str, &str)]]) -> EndpointInfo {
        EndpointInfo {
            kind: "sidecar".into(),
            label_sets: sets.iter().map(|s| Labels::from_pairs(s.iter().copied())).collect(),
            mint: 100,
            maxt: 200,
            has_store: true,
            is_koios: false,
            offers: Vec::new(),
        }
    }

    fn ask(mint: i64, maxt: i64, name: &str, value: &str) -> SeriesAsk {
        let matchers = vec![Matcher::new(MatchType::Equal, name, value).unwrap()];
        SeriesAsk { mint, maxt, matchers, ..SeriesAsk::default() }
    }

    #[test]
    fn who_is_concerned() {
        let eu = info(&[&[("cluster", "eu"), ("replica", "a")], &[("cluster", "us")]]);
        assert!(eu.concerns(&ask(0, 100, "job", "x")) && eu.concerns(&ask(200, 300, "job", "x")));
        assert!(!eu.concerns(&ask(0, 99, "job", "x")) && !eu.concerns(&ask(201, 300, "job", "x")));
        assert!(eu.concerns(&ask(0, 300, "cluster", "us")) && !eu.concerns(&ask(0, 300, "cluster", "ap")));
        assert!(
            eu.concerns(&ask(0, 300, "replica", "zz")),
            "a label that one set does not have excludes nothing"
        );
        assert!(info(&[]).concerns(&ask(0, 300, "cluster", "ap")), "it may have anything");
        assert_eq!(eu.conditions(&ask(0, 1, "job", "x")).len(), 1);
        assert_eq!(
            eu.conditions(&ask(0, 1, "cluster", "eu")).len(),
            2,
            "stores want one on their own labels"
        );
    }

    #[test]
    fn slots_of_another_koios_stay_slots() {
        let labels = Labels::from_pairs([("a", "b"), (REPLICA, "1")]);
        assert_eq!(place(labels.clone(), true), (Labels::from_pairs([("a", "b")]), Slot(1)));
        assert_eq!(place(labels.clone(), false), (labels, Slot::FOREIGN));
        let named = Labels::from_pairs([(REPLICA, "a")]);
        assert_eq!(place(named.clone(), true), (named, Slot::FOREIGN));
    }
}
