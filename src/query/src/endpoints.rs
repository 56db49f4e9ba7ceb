//! Endpoints beside the cluster, as a query asks them.
//!
//! Owns which endpoints a question concerns, what they are asked, and what their silence means: an endpoint that was well lately
//! or is strict is named as missing, another one is left out. Their series are merged with the cluster's own, and lose the external
//! labels that the cluster gives to its own data too, as its blocks do. They are asked for facts in the same way. Refuses gossip and
//! fragments: an endpoint is asked once, as a whole. Bound: the query's budget of bytes and series, its patience.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use koios_chunk::Aggregate;
use koios_model::{Labels, LabelsBuilder, Matcher, Slot};
use koios_store::Dress;
use koios_store::federation::{Endpoint, Federation};
use koios_store::storeapi::client::{Cost, EndpointInfo};
use koios_store::storeapi::facts::FactsAsk;
use koios_store::storeapi::{SeriesAsk, Told};
use serde_json::Value;

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

/// One endpoint, and what it is asked.
struct Asked {
    endpoint: Arc<Endpoint>,
    info: EndpointInfo,
    ask: SeriesAsk,
    /// External labels of it that the cluster's own data have too; a series at home shows none of them.
    home: Labels,
}

/// Endpoints to ask, and who is missed.
#[derive(Default)]
struct Concerned {
    asked: Vec<Asked>,
    gaps: Vec<Gap>,
}

/// Labels that the cluster and all producers of an endpoint have with the same value.
fn shared(own: &Labels, info: &EndpointInfo) -> Labels {
    let common = |n: &str, v: &str| info.label_sets.iter().all(|set| set.get(n) == Some(v));
    match info.label_sets.is_empty() {
        true => Labels::empty(),
        false => Labels::from_pairs(own.iter().filter(|(n, v)| common(n, v))),
    }
}

/// The question without conditions on labels that the answer does not show; `None` when one of them fails.
fn narrowed(ask: &SeriesAsk, home: &Labels) -> Option<SeriesAsk> {
    let mut ask = ask.clone();
    let (hidden, left): (Vec<_>, _) = ask.matchers.into_iter().partition(|m| home.get(&m.name).is_some());
    ask.matchers = left;
    hidden.iter().all(|m| m.matches("")).then_some(ask)
}

fn gap(want: &Want, endpoint: &Endpoint, reason: String) -> Gap {
    Gap { from: want.mint, until: want.maxt, holders: vec![endpoint.called()], reason }
}

fn concerned(federation: &Federation, own: &Labels, want: &Want, labels_only: bool) -> Concerned {
    let mut found = Concerned::default();
    let Some(via) = onward(federation, &want.outside.via) else { return found };
    let ask = SeriesAsk {
        mint: want.mint,
        maxt: want.maxt,
        matchers: want.matchers.clone(),
        max_resolution_ms: want.max_resolution_ms,
        labels_only,
        via,
    };
    let wanted = |address: &str| {
        let value = |name: &str| if name == ADDRESS { address } else { "" };
        let all = |of: &Vec<Matcher>| of.iter().all(|m| m.matches(value(&m.name)));
        want.outside.stores.is_empty() || want.outside.stores.iter().any(all)
    };
    for (_, endpoint) in federation.view().iter().filter(|(a, _)| wanted(a)) {
        let home = match (&endpoint.info, want.dress) {
            (Some(info), Dress::Home) => shared(own, info),
            _ => Labels::empty(),
        };
        let Some(ask) = narrowed(&ask, &home) else { continue };
        match (&endpoint.info, &endpoint.error) {
            (Some(info), _) if !info.concerns(&ask) => {}
            (Some(info), None) => {
                found.asked.push(Asked { endpoint: endpoint.clone(), info: info.clone(), ask, home });
            }
            (_, Some(why)) if federation.misses(endpoint) => {
                found.gaps.push(gap(want, endpoint, format!("does not answer: {why}")));
            }
            _ => {}
        }
    }
    found
}

/// The clusters that a question came through, this one among them; `None` when it is not to go on.
fn onward(federation: &Federation, via: &[String]) -> Option<Vec<String>> {
    let circle = via.contains(&federation.cluster) || via.len() >= VIA_MAX;
    (!circle).then(|| via.iter().chain([&federation.cluster]).cloned().collect())
}

/// Whether a question concerns anybody outside.
pub(crate) fn concerns_any(federation: &Federation, own: &Labels, want: &Want) -> bool {
    // Most clusters have nobody beside them, and every select asks this.
    if federation.is_empty() {
        return false;
    }
    let found = concerned(federation, own, want, true);
    !found.asked.is_empty() || !found.gaps.is_empty()
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
    own: &Labels,
    want: &Want,
    form: Form,
    spent: &Spent,
) -> (Vec<Answer>, Vec<Gap>) {
    let Concerned { asked, mut gaps } = concerned(federation, own, want, form == Form::Labels);
    let (wanted, take) = (aggregates(want), |bytes: u64| spent.add(bytes));
    let cost = Cost { patience: patience(want), series_max: want.series_max, take: &take };
    let calls = asked.iter().map(|a| a.endpoint.client.series(&a.info, &a.ask, &wanted, &cost));
    let mut answers = Vec::new();
    for (told, a) in join_all(calls).await.into_iter().zip(&asked) {
        let Some(mut series) = heard(told, want, &a.endpoint, &mut gaps) else { continue };
        if a.endpoint.beside.is_some() {
            series.iter_mut().for_each(|s| s.slot = Slot::LIVE);
        }
        if !a.home.is_empty() {
            series.iter_mut().for_each(|s| s.labels = without(&s.labels, &a.home));
        }
        answers.push(Answer { series, ..Answer::default() });
    }
    (answers, gaps)
}

/// What was found; warnings and silence become gaps.
fn heard<T>(
    told: Result<Told<T>, tonic::Status>,
    want: &Want,
    endpoint: &Endpoint,
    gaps: &mut Vec<Gap>,
) -> Option<Vec<T>> {
    match told {
        Ok(told) => {
            gaps.extend(told.warnings.into_iter().map(|w| gap(want, endpoint, format!("warns: {w}"))));
            Some(told.found)
        }
        Err(e) => {
            gaps.push(gap(want, endpoint, format!("does not answer: {}", e.message())));
            None
        }
    }
}

fn without(labels: &Labels, home: &Labels) -> Labels {
    let mut builder = LabelsBuilder::from_labels(labels);
    home.iter().for_each(|(name, _)| {
        builder.del(name);
    });
    builder.build()
}

/// Label names (`name` empty) or values of a label from outside, and what is missing of them.
pub(crate) async fn words(
    federation: &Federation,
    own: &Labels,
    want: &Want,
    name: &str,
) -> (Vec<String>, Vec<Gap>) {
    let Concerned { mut asked, mut gaps } = concerned(federation, own, want, true);
    asked.retain(|a| a.home.get(name).is_none());
    let calls = asked.iter().map(|a| a.endpoint.client.words(&a.ask, name, patience(want)));
    let mut all = Vec::new();
    for (told, a) in join_all(calls).await.into_iter().zip(&asked) {
        let found = heard(told, want, &a.endpoint, &mut gaps).unwrap_or_default();
        all.extend(found.into_iter().filter(|w| !name.is_empty() || a.home.get(w).is_none()));
    }
    (all, gaps)
}

/// Facts from outside, one entry each from whoever knows some, and what is missing of them.
pub async fn facts(
    federation: &Federation,
    ask: &FactsAsk,
    via: &[String],
    patience: Duration,
) -> Told<Value> {
    let mut told = Told { found: Vec::new(), warnings: Vec::new() };
    let Some(via) = onward(federation, via) else { return told };
    let offer = ask.offer();
    let mut asked = Vec::new();
    for endpoint in federation.view().values() {
        match (&endpoint.info, &endpoint.error) {
            (Some(info), _) if !info.offers.contains(&offer) => {}
            (Some(_), None) => asked.push(endpoint.clone()),
            (_, Some(why)) if federation.misses(endpoint) => {
                told.warnings.push(format!(
                    "{} of {} are not shown: {why}",
                    offer.as_str(),
                    endpoint.called()
                ));
            }
            _ => {}
        }
    }
    let calls = asked.iter().map(|e| e.client.facts(ask.clone(), &via, patience));
    for (answer, endpoint) in join_all(calls).await.into_iter().zip(&asked) {
        match answer {
            Ok(more) => {
                told.found.extend(more.found);
                let called = endpoint.called();
                told.warnings.extend(more.warnings.into_iter().map(|w| format!("{called} warns: {w}")));
            }
            Err(e) => {
                let why = e.message();
                told.warnings.push(format!(
                    "{} of {} are not shown: {why}",
                    offer.as_str(),
                    endpoint.called()
                ));
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use koios_model::MatchType;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn labels_that_everything_at_home_has_are_not_shown() {
        let info = |sets: &[&[(&str, &str)]]| EndpointInfo {
            kind: String::new(),
            label_sets: sets.iter().map(|s| labels(s)).collect(),
            mint: 0,
            maxt: 1,
            has_store: true,
            is_koios: false,
            offers: Vec::new(),
        };
        let own = labels(&[("cluster", "eu"), ("zone", "1")]);
        let home = shared(
            &own,
            &info(&[&[("cluster", "eu"), ("replica", "a")], &[("cluster", "eu"), ("zone", "1")]]),
        );
        assert_eq!(home, labels(&[("cluster", "eu")]));
        assert_eq!(shared(&own, &info(&[])), Labels::empty());
        assert_eq!(shared(&own, &info(&[&[("cluster", "us")]])), Labels::empty());
        let asks = |kind, value: &str| {
            let matchers = [("cluster", kind, value), ("job", MatchType::Equal, "x")];
            let matchers = matchers.map(|(n, k, v)| Matcher::new(k, n, v).unwrap()).into();
            narrowed(&SeriesAsk { matchers, ..SeriesAsk::default() }, &home).map(|a| a.matchers.len())
        };
        assert_eq!(asks(MatchType::Equal, "eu"), None, "as with the cluster's own data");
        assert_eq!((asks(MatchType::NotEqual, "eu"), asks(MatchType::Equal, "")), (Some(1), Some(1)));
        let series = labels(&[("__name__", "m"), ("cluster", "eu")]);
        assert_eq!(without(&series, &home), labels(&[("__name__", "m")]));
    }
}
