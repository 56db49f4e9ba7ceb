//! What this endpoint says of itself: the producers whose data it has, and since when, and which facts it knows.

use koios_model::Labels;
use koios_proto::thanos as pb;
use koios_proto::thanos::info as ipb;
use koios_proto::thanos::info::info_server::{Info, InfoServer};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use crate::storeapi::client::{EndpointInfo, KOIOS};
use crate::storeapi::facts::Offer;
use crate::storeapi::frames::labels_to_pb;
use crate::storeapi::{BESIDE, Side, Sides, Stream};

/// Most producers that are named one by one; with more, none is, and the endpoint is asked whatever the matchers.
const STREAMS_MAX: usize = 10_000;

/// Answers the question what this is.
pub struct InfoService {
    sides: Sides,
}

impl InfoService {
    /// Over the cluster's data, and what lies beside this node.
    pub fn new(sides: Sides) -> Self {
        Self { sides }
    }

    /// As a service of a gRPC server.
    pub fn into_server(self) -> InfoServer<Self> {
        InfoServer::new(self)
    }
}

fn label_set(labels: &Labels) -> pb::LabelSet {
    pb::LabelSet { labels: labels_to_pb(labels) }
}

fn store_info(streams: &[Stream]) -> ipb::StoreInfo {
    let tsdb =
        |s: &Stream| ipb::TsdbInfo { labels: Some(label_set(&s.labels)), min_time: s.mint, max_time: s.maxt };
    ipb::StoreInfo {
        // Nothing yet: a range that overlaps none.
        min_time: streams.iter().map(|s| s.mint).min().unwrap_or(i64::MAX),
        max_time: streams.iter().map(|s| s.maxt).max().unwrap_or(i64::MIN),
        supports_sharding: true,
        supports_without_replica_labels: true,
        tsdb_infos: streams.iter().map(tsdb).collect(),
        supports_projections: false,
    }
}

/// The parts that say which facts are known.
fn with_offers(info: ipb::InfoResponse, offers: &[Offer], range: (i64, i64)) -> ipb::InfoResponse {
    let has = |offer| offers.contains(&offer);
    ipb::InfoResponse {
        rules: has(Offer::Rules).then_some(ipb::RulesInfo {}),
        targets: has(Offer::Targets).then_some(ipb::TargetsInfo {}),
        metric_metadata: has(Offer::Metadata).then_some(ipb::MetricMetadataInfo {}),
        exemplars: has(Offer::Exemplars)
            .then_some(ipb::ExemplarsInfo { min_time: range.0, max_time: range.1 }),
        status: has(Offer::Status).then_some(ipb::StatusInfo {}),
        ..info
    }
}

/// What lies beside this node alone.
fn beside(known: EndpointInfo) -> ipb::InfoResponse {
    let stream = |l: &Labels| Stream { labels: l.clone(), mint: known.mint, maxt: known.maxt };
    let streams: Vec<Stream> = known.label_sets.iter().map(stream).collect();
    let info = ipb::InfoResponse {
        label_sets: known.label_sets.iter().map(label_set).collect(),
        component_type: known.kind,
        store: known.has_store.then(|| ipb::StoreInfo {
            min_time: known.mint,
            max_time: known.maxt,
            ..store_info(&streams)
        }),
        ..ipb::InfoResponse::default()
    };
    with_offers(info, &known.offers, (known.mint, known.maxt))
}

#[tonic::async_trait]
impl Info for InfoService {
    async fn info(&self, request: Request<ipb::InfoRequest>) -> Result<Response<ipb::InfoResponse>, Status> {
        let (cluster, facts) = match self.sides.of(&request)? {
            Side::Cluster(cluster, facts) => (cluster, facts),
            Side::Beside(source) => {
                let marked = |metadata: &mut tonic::metadata::MetadataMap| {
                    metadata.insert(BESIDE, MetadataValue::from_static("1"));
                };
                let mut response = Response::new(beside(source.info().await.map_err(|mut away| {
                    marked(away.metadata_mut());
                    away
                })?));
                marked(response.metadata_mut());
                return Ok(response);
            }
        };
        let mut streams = cluster.streams();
        let mut store = store_info(&streams);
        if streams.len() > STREAMS_MAX {
            streams.clear();
            store.tsdb_infos.clear();
        }
        let info = ipb::InfoResponse {
            label_sets: streams.iter().map(|s| label_set(&s.labels)).collect(),
            component_type: "query".to_owned(),
            store: Some(store),
            query: Some(ipb::QueryApiInfo {}),
            ..ipb::InfoResponse::default()
        };
        let range = (0, i64::MAX);
        let mut response = Response::new(with_offers(info, &facts.offers(), range));
        response.metadata_mut().insert(KOIOS, MetadataValue::from_static("1"));
        Ok(response)
    }
}
