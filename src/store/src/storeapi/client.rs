//! The client: one endpoint that speaks StoreAPI, a Thanos component or another Koios cluster.
//!
//! Owns the connection, what the endpoint said of itself (`EndpointInfo`), whether a question concerns it, and its answers as
//! series of chunks. Refuses to decide who is asked when: that is `federation`'s. Answers are checked, not trusted. Bounds: the
//! caller's patience, series and bytes; `CONNECT` to connect.

use std::time::Duration;

use koios_chunk::{Aggregate, Chunk, SeriesChunks};
use koios_model::{Labels, LabelsBuilder, MatchType, Matcher, Slot};
use koios_proto::thanos as pb;
use koios_proto::thanos::info::InfoRequest;
use koios_proto::thanos::info::info_client::InfoClient;
use koios_proto::thanos::store_client::StoreClient;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::served::REPLICA;
use crate::storeapi::frames::{aggregates_to_pb, chunk_from_pb, labels_from_pb};
use crate::storeapi::{SeriesAsk, Told, VIA, matchers_to_pb};

const CONNECT: Duration = Duration::from_secs(5);
/// A connection without a sign of life for so long is given up.
const ALIVE: Duration = Duration::from_secs(20);
/// Most series that a frame's batch is asked to have.
const BATCH: i64 = 64;
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
}

impl EndpointInfo {
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

/// One endpoint.
#[derive(Clone, Debug)]
pub struct EndpointClient {
    address: String,
    channel: Channel,
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
        Ok(Self { address: address.to_owned(), channel: endpoint.connect_lazy() })
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks what it is.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn info(&self, patience: Duration) -> Result<EndpointInfo, Status> {
        let mut client = InfoClient::new(self.channel.clone());
        let answer = within(patience, client.info(InfoRequest {})).await?;
        let is_koios = answer.metadata().get(KOIOS).is_some();
        let info = answer.into_inner();
        let labels = |set: &pb::LabelSet| labels_from_pb(&set.labels);
        let store = info.store;
        Ok(EndpointInfo {
            kind: info.component_type,
            label_sets: info.label_sets.iter().map(labels).collect(),
            mint: store.as_ref().map_or(i64::MAX, |s| s.min_time),
            maxt: store.as_ref().map_or(i64::MIN, |s| s.max_time),
            has_store: store.is_some(),
            is_koios,
        })
    }

    fn sign<T>(message: T, ask: &SeriesAsk, patience: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(patience);
        if let Ok(via) = MetadataValue::try_from(ask.via.join(",")) {
            request.metadata_mut().insert(VIA, via);
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
            let mut client = StoreClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
            let mut stream = client.series(Self::sign(request, ask, cost.patience)).await?.into_inner();
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
            let bytes: u64 = chunks.iter().map(|c| c.data.len() as u64 + 16).sum();
            if !(cost.take)(bytes) {
                return Err(Status::resource_exhausted("the answer has more bytes than the query may fetch"));
            }
            match told.found.last_mut() {
                Some(last) if last.labels == labels && last.slot == slot => last.chunks.extend(chunks),
                _ => told.found.push(SeriesChunks { labels, slot, chunks }),
            }
            if told.found.len() as u64 > cost.series_max {
                return Err(Status::resource_exhausted(
                    "the answer has more series than the query may fetch",
                ));
            }
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
        let mut client = StoreClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        let matchers = matchers_to_pb(&ask.matchers);
        let (start, end) = (ask.mint, ask.maxt);
        if name.is_empty() {
            let request = pb::LabelNamesRequest { start, end, matchers, ..Default::default() };
            let call = client.label_names(Self::sign(request, ask, patience));
            let answer = within(patience, call).await?.into_inner();
            return Ok(Told { found: answer.names, warnings: answer.warnings });
        }
        let label = name.to_owned();
        let request = pb::LabelValuesRequest { label, start, end, matchers, ..Default::default() };
        let call = client.label_values(Self::sign(request, ask, patience));
        let answer = within(patience, call).await?.into_inner();
        Ok(Told { found: answer.values, warnings: answer.warnings })
    }
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
