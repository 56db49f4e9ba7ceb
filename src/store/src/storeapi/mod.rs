//! Thanos' StoreAPI, both sides.
//!
//! Owns what its messages mean: which matchers are settled by external labels, how replica labels are taken off and series
//! sorted, shards, strategies for answers that lack something (`server`, `info`), series as frames of chunks (`frames`), and
//! asking other endpoints (`client`), and the facts beside samples, such as rules and targets (`facts`). The data of the cluster
//! come through `ClusterSource`, so that one endpoint speaks for all nodes; a node asks another for what lies `Beside` it alone.
//!
//! Invariants: frames come sorted by the labels that the asker gets; an answer that lacks something says so in a warning, or
//! is an error when the asker wants that; what is not understood is refused with words.

pub mod client;
pub mod facts;
mod facts_wire;
pub mod frames;
pub mod info;
pub mod server;

use std::sync::Arc;

use async_trait::async_trait;
use koios_chunk::SeriesChunks;
use koios_model::{Labels, LabelsBuilder, MatchType, Matcher, Slot};
use koios_proto::thanos as pb;
use tonic::Request;
/// How a question fails; for those who answer some without gRPC.
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::served::REPLICA;
use crate::storeapi::client::EndpointInfo;
use crate::storeapi::facts::Facts;

/// Metadata key that names the Koios clusters a question came through, so that none is asked in a circle.
pub const VIA: &str = "x-koios-via";

/// Metadata key by which a node of the own cluster asks for what lies beside another one, and for nothing else. In the answer
/// it says that the other one has something beside it.
pub const BESIDE: &str = "x-koios-beside";

/// A question for series or words of the cluster.
#[derive(Clone, Debug, Default)]
pub struct SeriesAsk {
    /// First sample time, inclusive, milliseconds.
    pub mint: i64,
    /// Last sample time, inclusive, milliseconds.
    pub maxt: i64,
    /// Conditions, none of them on the replica slot.
    pub matchers: Vec<Matcher>,
    /// The coarsest blocks to read, milliseconds between samples; 0 for raw data alone.
    pub max_resolution_ms: i64,
    /// Only who the series are.
    pub labels_only: bool,
    /// Koios clusters that the question came through.
    pub via: Vec<String>,
}

/// What was found, and what is missing in words.
#[derive(Clone, Debug)]
pub struct Told<T> {
    /// Found.
    pub found: Vec<T>,
    /// One sentence for each thing that is missing.
    pub warnings: Vec<String>,
}

/// Blocks and heads of one producer: equal external labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// External labels, the replica among them.
    pub labels: Labels,
    /// First moment, milliseconds.
    pub mint: i64,
    /// Last moment, milliseconds; `i64::MAX` where more is coming.
    pub maxt: i64,
}

/// The data of the whole cluster.
#[async_trait]
pub trait ClusterSource: Send + Sync + 'static {
    /// Series with all external labels but the slot, which travels beside them; in any order.
    ///
    /// # Errors
    /// Only what ends the question as a whole.
    async fn series(&self, ask: SeriesAsk) -> Result<Told<SeriesChunks>, Status>;

    /// Label names (`name` empty) or values of label `name`, without the slot.
    ///
    /// # Errors
    /// As `series`.
    async fn words(&self, ask: SeriesAsk, name: &str) -> Result<Told<String>, Status>;

    /// The producers there are.
    fn streams(&self) -> Vec<Stream>;
}

/// A producer that lies beside one node and is reached through it: a Prometheus with its sidecar.
#[async_trait]
pub trait Beside: ClusterSource + Facts {
    /// What it is.
    ///
    /// # Errors
    /// Why it is away.
    async fn info(&self) -> Result<EndpointInfo, Status>;
}

/// Whom a question may be for.
#[derive(Clone)]
pub struct Sides {
    /// The samples of the cluster and of everything beside it.
    pub cluster: Arc<dyn ClusterSource>,
    /// The facts of the same.
    pub facts: Arc<dyn Facts>,
    /// What lies beside this node alone.
    pub beside: Option<Arc<dyn Beside>>,
}

/// Who answers a question.
#[derive(Clone)]
enum Side {
    Cluster(Arc<dyn ClusterSource>, Arc<dyn Facts>),
    Beside(Arc<dyn Beside>),
}

impl Side {
    fn source(&self) -> &dyn ClusterSource {
        match self {
            Side::Cluster(source, _) => &**source,
            Side::Beside(b) => &**b,
        }
    }

    fn facts(&self) -> &dyn Facts {
        match self {
            Side::Cluster(_, facts) => &**facts,
            Side::Beside(b) => &**b,
        }
    }
}

impl Sides {
    /// Who is asked.
    fn of<T>(&self, request: &Request<T>) -> Result<Side, Status> {
        match (request.metadata().contains_key(BESIDE), &self.beside) {
            (false, _) => Ok(Side::Cluster(self.cluster.clone(), self.facts.clone())),
            (true, Some(beside)) => Ok(Side::Beside(beside.clone())),
            (true, None) => Err(Status::failed_precondition("nothing lies beside this node")),
        }
    }
}

/// Koios clusters that a question came through.
fn via(metadata: &MetadataMap) -> Vec<String> {
    let text = metadata.get(VIA).and_then(|v| v.to_str().ok()).unwrap_or("");
    text.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect()
}

/// The labels of a series as the world outside sees them.
pub fn shown(labels: Labels, slot: Slot) -> Labels {
    if slot.is_foreign() {
        return labels;
    }
    let mut builder = LabelsBuilder::from_labels(&labels);
    builder.set(REPLICA, &slot.to_string());
    builder.build()
}

/// Conditions from the wire.
///
/// # Errors
/// `InvalidArgument` with the one that is wrong.
pub fn matchers_from_pb(matchers: &[pb::LabelMatcher]) -> Result<Vec<Matcher>, Status> {
    let one = |m: &pb::LabelMatcher| {
        let kind = match m.r#type() {
            pb::label_matcher::Type::Eq => MatchType::Equal,
            pb::label_matcher::Type::Neq => MatchType::NotEqual,
            pb::label_matcher::Type::Re => MatchType::Regex,
            pb::label_matcher::Type::Nre => MatchType::NotRegex,
        };
        let wrong = |e| Status::invalid_argument(format!("matcher on {:?}: {e}", m.name));
        Matcher::new(kind, &m.name, &m.value).map_err(wrong)
    };
    matchers.iter().map(one).collect()
}

/// Conditions for the wire.
pub fn matchers_to_pb(matchers: &[Matcher]) -> Vec<pb::LabelMatcher> {
    let one = |m: &Matcher| {
        let kind = match m.kind {
            MatchType::Equal => pb::label_matcher::Type::Eq,
            MatchType::NotEqual => pb::label_matcher::Type::Neq,
            MatchType::Regex => pb::label_matcher::Type::Re,
            MatchType::NotRegex => pb::label_matcher::Type::Nre,
        };
        pb::LabelMatcher { r#type: kind.into(), name: m.name.to_string(), value: m.value.to_string() }
    };
    matchers.iter().map(one).collect()
}
