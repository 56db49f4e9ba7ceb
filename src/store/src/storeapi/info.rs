//! What this endpoint says of itself: the producers whose data it has, and since when.

use std::sync::Arc;

use koios_model::Labels;
use koios_proto::thanos as pb;
use koios_proto::thanos::info as ipb;
use koios_proto::thanos::info::info_server::{Info, InfoServer};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use crate::storeapi::client::KOIOS;
use crate::storeapi::frames::labels_to_pb;
use crate::storeapi::{ClusterSource, Stream};

/// Most producers that are named one by one; with more, none is, and the endpoint is asked whatever the matchers.
const STREAMS_MAX: usize = 10_000;

/// Answers the question what this is.
pub struct InfoService {
    source: Arc<dyn ClusterSource>,
}

impl InfoService {
    /// Over the cluster's data.
    pub fn new(source: Arc<dyn ClusterSource>) -> Self {
        Self { source }
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

#[tonic::async_trait]
impl Info for InfoService {
    async fn info(&self, _: Request<ipb::InfoRequest>) -> Result<Response<ipb::InfoResponse>, Status> {
        let mut streams = self.source.streams();
        let mut store = store_info(&streams);
        if streams.len() > STREAMS_MAX {
            streams.clear();
            store.tsdb_infos.clear();
        }
        let mut response = Response::new(ipb::InfoResponse {
            label_sets: streams.iter().map(|s| label_set(&s.labels)).collect(),
            component_type: "query".to_owned(),
            store: Some(store),
            ..ipb::InfoResponse::default()
        });
        response.metadata_mut().insert(KOIOS, MetadataValue::from_static("1"));
        Ok(response)
    }
}
