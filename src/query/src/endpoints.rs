//! Endpoints beside the cluster, as a query asks them.
//!
//! Owns which endpoints a question concerns, what they are asked, and what their silence means: an endpoint that was well lately
//! or is strict is named as missing, another one is left out. Their series are merged with the cluster's own. Refuses gossip and
//! fragments: an endpoint is asked once, as a whole. Bound: the query's budget of bytes and series, its patience.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use koios_chunk::Aggregate;
use koios_model::Matcher;
use koios_store::federation::{Endpoint, Federation};
use koios_store::storeapi::SeriesAsk;
use koios_store::storeapi::client::{Cost, EndpointInfo};

use crate::client::Spent;
use crate::completeness::Gap;
use crate::lens::Reads;
use crate::rounds::Want;
use crate::scope::{Answer, Form};
use crate::terms::ADDRESS;

/// What a question means outside of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// Only endpoints that match any of these by their address; empty for all.
    pub stores: Arc<[Vec<Matcher>]>,
    /// Koios clusters that the question came through.
    pub via: Vec<String>,
}

/// Most clusters that a question goes through.
const VIA_MAX: usize = 8;

/// Endpoints to ask, what each said of itself, and who is missed.
struct Concerned {
    ask: SeriesAsk,
    endpoints: Vec<(Arc<Endpoint>, EndpointInfo)>,
    gaps: Vec<Gap>,
}

fn gap(want: &Want, endpoint: &str, reason: String) -> Gap {
    Gap { from: want.mint, until: want.maxt, holders: vec![format!("endpoint {endpoint}")], reason }
}

fn concerned(federation: &Federation, want: &Want, labels_only: bool) -> Concerned {
    let mut via = want.outside.via.clone();
    let circle = via.contains(&federation.cluster) || via.len() >= VIA_MAX;
    via.push(federation.cluster.clone());
    let ask = SeriesAsk {
        mint: want.mint,
        maxt: want.maxt,
        matchers: want.matchers.clone(),
        max_resolution_ms: want.max_resolution_ms,
        labels_only,
        via,
    };
    let mut found = Concerned { ask, endpoints: Vec::new(), gaps: Vec::new() };
    let wanted = |address: &str| {
        let value = |name: &str| if name == ADDRESS { address } else { "" };
        let all = |of: &Vec<Matcher>| of.iter().all(|m| m.matches(value(&m.name)));
        want.outside.stores.is_empty() || want.outside.stores.iter().any(all)
    };
    for (address, endpoint) in federation.view().iter().filter(|(a, _)| !circle && wanted(a)) {
        match (&endpoint.info, &endpoint.error) {
            (Some(info), _) if !info.concerns(&found.ask) => {}
            (Some(info), None) => found.endpoints.push((endpoint.clone(), info.clone())),
            (_, Some(why)) if federation.misses(endpoint) => {
                found.gaps.push(gap(want, address, format!("does not answer: {why}")));
            }
            _ => {}
        }
    }
    found
}

/// Whether a question concerns anybody outside.
pub(crate) fn concerns_any(federation: &Federation, want: &Want) -> bool {
    // Most clusters have nobody beside them, and every select asks this.
    if federation.is_empty() {
        return false;
    }
    let found = concerned(federation, want, true);
    !found.endpoints.is_empty() || !found.gaps.is_empty()
}

/// Less than the query has: who is late is missing, and the query goes on without it.
fn patience(want: &Want) -> Duration {
    want.patience.mul_f64(0.9)
}

fn aggregates(want: &Want) -> Vec<Aggregate> {
    use Aggregate::{Count, Counter, Max, Min, Sum};
    match want.lens.reads {
        _ if want.lens.plain => vec![Count, Sum, Min, Max, Counter],
        Reads::Average => vec![Count, Sum],
        Reads::One(one) => vec![one],
    }
}

/// Series from outside, and what is missing of them.
pub(crate) async fn series(
    federation: &Federation,
    want: &Want,
    form: Form,
    spent: &Spent,
) -> (Vec<Answer>, Vec<Gap>) {
    let Concerned { ask, endpoints, mut gaps } = concerned(federation, want, form == Form::Labels);
    let (wanted, take) = (aggregates(want), |bytes: u64| spent.add(bytes));
    let cost = Cost { patience: patience(want), series_max: want.series_max, take: &take };
    let calls = endpoints.iter().map(|(e, info)| e.client.series(info, &ask, &wanted, &cost));
    let mut answers = Vec::new();
    for (told, (endpoint, _)) in join_all(calls).await.into_iter().zip(&endpoints) {
        let address = endpoint.client.address();
        match told {
            Ok(told) => {
                gaps.extend(told.warnings.into_iter().map(|w| gap(want, address, format!("warns: {w}"))));
                answers.push(Answer { series: told.found, ..Answer::default() });
            }
            Err(e) => gaps.push(gap(want, address, format!("does not answer: {}", e.message()))),
        }
    }
    (answers, gaps)
}

/// Label names (`name` empty) or values of a label from outside, and what is missing of them.
pub(crate) async fn words(federation: &Federation, want: &Want, name: &str) -> (Vec<String>, Vec<Gap>) {
    let Concerned { ask, endpoints, mut gaps } = concerned(federation, want, true);
    let calls = endpoints.iter().map(|(e, _)| e.client.words(&ask, name, patience(want)));
    let mut all = Vec::new();
    for (told, (endpoint, _)) in join_all(calls).await.into_iter().zip(&endpoints) {
        let address = endpoint.client.address();
        match told {
            Ok(told) => {
                gaps.extend(told.warnings.into_iter().map(|w| gap(want, address, format!("warns: {w}"))));
                all.extend(told.found);
            }
            Err(e) => gaps.push(gap(want, address, format!("does not answer: {}", e.message()))),
        }
    }
    (all, gaps)
}
