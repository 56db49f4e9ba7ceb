//! Facts beside samples: rules, targets, metadata, exemplars and the sizes of heads, as Thanos' services ask for them.
//!
//! Owns the question, the word for its answer, and the gRPC services. An answer is JSON in the shape of Prometheus' HTTP API: that
//! is what a Prometheus says and what the cluster's own API says, so messages exist only on the wire (`facts_wire`). Refuses to
//! merge: who has several answers does that. Invariant: what is missing is a warning, or an error when the asker wants that.

use std::pin::Pin;

use async_trait::async_trait;
use futures::{Stream, stream};
use koios_proto::thanos as pb;
use pb::exemplars_server::{Exemplars, ExemplarsServer};
use pb::metadata_server::{Metadata, MetadataServer};
use pb::rules_server::{Rules, RulesServer};
use pb::status_server::{Status as StatusRpc, StatusServer};
use pb::targets_server::{Targets, TargetsServer};
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::facts_wire as wire;
use super::server::{aborts, judged};
use super::{Sides, Told, via};

/// A kind of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Offer {
    /// Groups of rules, and their alerts.
    Rules,
    /// Targets.
    Targets,
    /// What targets say about metric families.
    Metadata,
    /// Exemplars.
    Exemplars,
    /// Sizes of heads.
    Status,
}

impl Offer {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Rules, Self::Targets, Self::Metadata, Self::Exemplars, Self::Status];

    /// In words, for warnings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Targets => "targets",
            Self::Metadata => "metadata",
            Self::Exemplars => "exemplars",
            Self::Status => "TSDB statistics",
        }
    }
}

/// A question for facts. The answer is JSON, whose shape is said with each.
#[derive(Clone, Debug, PartialEq)]
pub enum FactsAsk {
    /// A list of groups as in `/api/v1/rules`.
    Rules(pb::RulesRequest),
    /// `{"active": […], "dropped": […]}`, entries as in `/api/v1/targets`.
    Targets(pb::TargetsRequest),
    /// As `data` of `/api/v1/metadata`.
    Metadata(pb::MetricMetadataRequest),
    /// As `data` of `/api/v1/query_exemplars`.
    Exemplars(pb::ExemplarsRequest),
    /// By name of the head: as `data` of `/api/v1/status/tsdb`.
    Status(pb::TsdbStatisticsRequest),
}

impl FactsAsk {
    /// What kind of facts is asked for.
    pub fn offer(&self) -> Offer {
        match self {
            Self::Rules(_) => Offer::Rules,
            Self::Targets(_) => Offer::Targets,
            Self::Metadata(_) => Offer::Metadata,
            Self::Exemplars(_) => Offer::Exemplars,
            Self::Status(_) => Offer::Status,
        }
    }
}

/// Whoever knows facts.
#[async_trait]
pub trait Facts: Send + Sync + 'static {
    /// The facts of one question, one entry each from whoever knows some, and what is missing in words. `via` names
    /// Koios clusters that the question came through.
    ///
    /// # Errors
    /// Only what ends the question as a whole.
    async fn facts(&self, ask: FactsAsk, via: Vec<String>) -> Result<Told<Value>, Status>;

    /// What may be asked for.
    fn offers(&self) -> Vec<Offer>;
}

/// Answers the five services.
#[derive(Clone)]
pub struct FactsService {
    sides: Sides,
}

type Parts<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl FactsService {
    /// Over what is known here.
    pub fn new(sides: Sides) -> Self {
        Self { sides }
    }

    /// As services of a gRPC server.
    pub fn rules(&self) -> RulesServer<Self> {
        RulesServer::new(self.clone())
    }

    /// As `rules`.
    pub fn targets(&self) -> TargetsServer<Self> {
        TargetsServer::new(self.clone())
    }

    /// As `rules`.
    pub fn metadata(&self) -> MetadataServer<Self> {
        MetadataServer::new(self.clone())
    }

    /// As `rules`.
    pub fn exemplars(&self) -> ExemplarsServer<Self> {
        ExemplarsServer::new(self.clone())
    }

    /// As `rules`.
    pub fn status(&self) -> StatusServer<Self> {
        StatusServer::new(self.clone())
    }

    async fn told<T, M: Send + 'static>(
        &self,
        request: Request<T>,
        strategy: impl Fn(&T) -> pb::PartialResponseStrategy,
        ask: impl Fn(T) -> FactsAsk,
        found: impl Fn(&Value) -> Vec<M>,
        warning: impl Fn(String) -> M,
    ) -> Result<Response<Parts<M>>, Status> {
        let side = self.sides.of(&request)?;
        let via = via(request.metadata());
        let question = request.into_inner();
        let abort = aborts(false, strategy(&question));
        let told = side.facts().facts(ask(question), via).await?;
        judged(&told.warnings, abort)?;
        let mut parts: Vec<M> = told.found.iter().flat_map(found).collect();
        parts.extend(told.warnings.into_iter().map(warning));
        Ok(Response::new(Box::pin(stream::iter(parts.into_iter().map(Ok)))))
    }
}

#[tonic::async_trait]
impl Rules for FactsService {
    type RulesStream = Parts<pb::RulesResponse>;

    async fn rules(&self, r: Request<pb::RulesRequest>) -> Result<Response<Self::RulesStream>, Status> {
        use pb::rules_response::Result as Part;
        let part = |p| pb::RulesResponse { result: Some(p) };
        let groups = |v: &Value| wire::groups(v).into_iter().map(|g| part(Part::Group(g))).collect();
        self.told(r, |r| r.partial_response_strategy(), FactsAsk::Rules, groups, |w| part(Part::Warning(w)))
            .await
    }
}

#[tonic::async_trait]
impl Targets for FactsService {
    type TargetsStream = Parts<pb::TargetsResponse>;

    async fn targets(&self, r: Request<pb::TargetsRequest>) -> Result<Response<Self::TargetsStream>, Status> {
        use pb::targets_response::Result as Part;
        let part = |p| pb::TargetsResponse { result: Some(p) };
        let targets = |v: &Value| vec![part(Part::Targets(wire::targets(v)))];
        self.told(
            r,
            |r| r.partial_response_strategy(),
            FactsAsk::Targets,
            targets,
            |w| part(Part::Warning(w)),
        )
        .await
    }
}

#[tonic::async_trait]
impl Metadata for FactsService {
    type MetricMetadataStream = Parts<pb::MetricMetadataResponse>;

    async fn metric_metadata(
        &self,
        r: Request<pb::MetricMetadataRequest>,
    ) -> Result<Response<Self::MetricMetadataStream>, Status> {
        use pb::metric_metadata_response::Result as Part;
        let part = |p| pb::MetricMetadataResponse { result: Some(p) };
        let metadata = |v: &Value| vec![part(Part::Metadata(wire::metadata(v)))];
        self.told(
            r,
            |r| r.partial_response_strategy(),
            FactsAsk::Metadata,
            metadata,
            |w| part(Part::Warning(w)),
        )
        .await
    }
}

#[tonic::async_trait]
impl Exemplars for FactsService {
    type ExemplarsStream = Parts<pb::ExemplarsResponse>;

    async fn exemplars(
        &self,
        r: Request<pb::ExemplarsRequest>,
    ) -> Result<Response<Self::ExemplarsStream>, Status> {
        use pb::exemplars_response::Result as Part;
        let part = |p| pb::ExemplarsResponse { result: Some(p) };
        let data = |v: &Value| wire::exemplars(v).into_iter().map(|d| part(Part::Data(d))).collect();
        self.told(r, |r| r.partial_response_strategy(), FactsAsk::Exemplars, data, |w| part(Part::Warning(w)))
            .await
    }
}

#[tonic::async_trait]
impl StatusRpc for FactsService {
    type TSDBStatisticsStream = Parts<pb::TsdbStatisticsResponse>;

    async fn tsdb_statistics(
        &self,
        r: Request<pb::TsdbStatisticsRequest>,
    ) -> Result<Response<Self::TSDBStatisticsStream>, Status> {
        use pb::tsdb_statistics_response::Result as Part;
        let part = |p| pb::TsdbStatisticsResponse { result: Some(p) };
        let all = |v: &Value| vec![part(Part::Statistics(wire::statistics(v)))];
        self.told(r, |r| r.partial_response_strategy(), FactsAsk::Status, all, |w| part(Part::Warning(w)))
            .await
    }
}
