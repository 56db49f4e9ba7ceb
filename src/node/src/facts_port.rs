//! Facts of the whole cluster for the gRPC services: the plug between `http`, which merges what nodes and endpoints say, and
//! `store`, which speaks the protocol. Owns only that a question which is wrong is `INVALID_ARGUMENT`.

use async_trait::async_trait;
use koios_http::facts::ClusterFacts;
use koios_store::storeapi::Told;
use koios_store::storeapi::facts::{Facts, FactsAsk, Offer};
use serde_json::Value;
use tonic::Status;

/// What the cluster knows.
pub struct FactsOfAll(pub ClusterFacts);

#[async_trait]
impl Facts for FactsOfAll {
    async fn facts(&self, ask: FactsAsk, via: Vec<String>) -> Result<Told<Value>, Status> {
        self.0.told(ask, via).await.map_err(Status::invalid_argument)
    }

    fn offers(&self) -> Vec<Offer> {
        Offer::ALL.into()
    }
}
