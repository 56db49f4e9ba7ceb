//! The Prometheus beside this node as a producer: its series, words and facts, with its external labels.
//!
//! External labels win over labels of the same name, and are settled before it is asked, because it does not store them (the rules
//! are those of Thanos' sidecar). Rules, targets and exemplars get them too. Bounds: those of the node's queries for series.

use std::sync::Arc;

use async_trait::async_trait;
use koios_chunk::SeriesChunks;
use koios_http::facts::pick_groups;
use koios_model::{Clock, Labels, MatchType, Matcher, Slot};
use koios_remote::read::ReadQuery;
use koios_remote::read::asking::AnswerLimits;
use koios_store::served::{dressed, settle};
use koios_store::storeapi::client::EndpointInfo;
use koios_store::storeapi::facts::{Facts, FactsAsk, Offer};
use koios_store::storeapi::{Beside, ClusterSource, SeriesAsk, Stream, Told};
use serde_json::{Map, Value, json};
use tonic::Status;

use super::Since;
use super::prometheus::Prometheus;
use super::watch::Watch;

/// No sample lies further in the future than this, milliseconds.
const FUTURE_MS: i64 = 366 * 86_400_000;

/// The source.
pub struct Sidecar {
    prometheus: Arc<Prometheus>,
    watch: Arc<Watch>,
    since: Since,
    limits: AnswerLimits,
    clock: Arc<dyn Clock>,
}

/// What a question comes to at the Prometheus itself.
struct Inner {
    external: Labels,
    matchers: Vec<Matcher>,
    mint: i64,
    maxt: i64,
}

fn away(why: String) -> Status {
    Status::unavailable(why)
}

/// Seconds as a parameter.
fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

fn selector(matchers: &[Matcher]) -> String {
    let texts: Vec<String> = matchers.iter().map(Matcher::to_string).collect();
    format!("{{{}}}", texts.join(","))
}

/// Conditions that an API takes, which refuses to be asked for everything.
fn at_least_one(mut matchers: Vec<Matcher>) -> Vec<Matcher> {
    if !matchers.iter().any(|m| !m.matches("")) {
        matchers.push(Matcher::new(MatchType::NotEqual, "__name__", "").expect("BUG: no regexp to be wrong"));
    }
    matchers
}

fn strings(v: &Value) -> Vec<String> {
    v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Sidecar {
    /// Over a watched Prometheus.
    pub(super) fn new(
        prometheus: Arc<Prometheus>,
        watch: Arc<Watch>,
        since: Since,
        limits: AnswerLimits,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { prometheus, watch, since, limits, clock }
    }

    fn external(&self) -> Result<Labels, Status> {
        let known = self.watch.known();
        known.external.ok_or_else(|| away(known.away.unwrap_or_default()))
    }

    /// `None` when the question does not concern it.
    fn inner(&self, ask: &SeriesAsk) -> Result<Option<Inner>, Status> {
        let external = self.external()?;
        let now = self.clock.now_ms();
        let mint = ask.mint.max(self.since.at(now)).max(0);
        let maxt = ask.maxt.min(now.saturating_add(FUTURE_MS));
        let matchers = settle(&external, &ask.matchers).filter(|_| mint <= maxt);
        Ok(matchers.map(|m| Inner { external, matchers: at_least_one(m), mint, maxt }))
    }

    async fn label_sets(&self, inner: &Inner) -> Result<Told<SeriesChunks>, String> {
        let params = [
            ("match[]", selector(&inner.matchers)),
            ("start", seconds(inner.mint)),
            ("end", seconds(inner.maxt)),
        ];
        let (data, warnings) = self.prometheus.get("/api/v1/series", &params).await?;
        let sets = data.as_array().into_iter().flatten().filter_map(Value::as_object);
        let labels = |set: &Map<String, Value>| {
            Labels::from_pairs(set.iter().filter_map(|(n, v)| Some((n.as_str(), v.as_str()?))))
        };
        let one = |set| SeriesChunks { labels: labels(set), slot: Slot::FOREIGN, chunks: Vec::new() };
        let found: Vec<SeriesChunks> = sets.map(one).collect();
        match found.len() as u64 > self.limits.series {
            true => Err(format!("the answer has more than {} series", self.limits.series)),
            false => Ok(Told { found, warnings }),
        }
    }

    async fn names_or_values(&self, inner: &Inner, name: &str) -> Result<Told<String>, String> {
        let params = [
            ("match[]", selector(&inner.matchers)),
            ("start", seconds(inner.mint)),
            ("end", seconds(inner.maxt)),
        ];
        let external = inner.external.get(name);
        let path = match name {
            _ if external.is_some() => "/api/v1/labels".to_owned(),
            "" => "/api/v1/labels".to_owned(),
            name => format!("/api/v1/label/{name}/values"),
        };
        let (data, warnings) = self.prometheus.get(&path, &params).await?;
        let mut found = strings(&data);
        match external {
            Some(value) if !found.is_empty() => found = vec![value.to_owned()],
            None if name.is_empty() && !found.is_empty() => {
                found.extend(inner.external.iter().map(|(n, _)| n.to_owned()));
            }
            _ => {}
        }
        Ok(Told { found, warnings })
    }

    async fn fact(&self, ask: FactsAsk, external: &Labels) -> Result<(Value, Vec<String>), String> {
        let p = &self.prometheus;
        Ok(match ask {
            FactsAsk::Rules(r) => {
                let (data, warnings) = p.get("/api/v1/rules", &[]).await?;
                let mut groups = data["groups"].clone();
                for rule in each(&mut groups).flat_map(|g| each(&mut g["rules"])) {
                    put_labels(&mut rule["labels"], external);
                    each(&mut rule["alerts"]).for_each(|a| put_labels(&mut a["labels"], external));
                }
                (pick_groups(groups, &r)?, warnings)
            }
            FactsAsk::Targets(r) => {
                let state = ["any", "active", "dropped"].get(r.state as usize).copied().unwrap_or("any");
                let (mut data, warnings) = p.get("/api/v1/targets", &[("state", state.to_owned())]).await?;
                each(&mut data["activeTargets"]).for_each(|t| put_labels(&mut t["labels"], external));
                for list in ["activeTargets", "droppedTargets"] {
                    each(&mut data[list]).for_each(|t| put_labels(&mut t["discoveredLabels"], external));
                }
                (json!({ "active": data["activeTargets"], "dropped": data["droppedTargets"] }), warnings)
            }
            FactsAsk::Metadata(r) => {
                let limit = if r.limit < 0 { String::new() } else { r.limit.to_string() };
                let params: Vec<_> = [("metric", r.metric), ("limit", limit)].into();
                let params: Vec<_> = params.into_iter().filter(|(_, v)| !v.is_empty()).collect();
                p.get("/api/v1/metadata", &params).await?
            }
            FactsAsk::Exemplars(r) => {
                let Some(query) = without_external(&r.query, external)? else {
                    return Ok((json!([]), Vec::new()));
                };
                let (start, end) = (r.start.max(0), r.end.min(self.clock.now_ms().saturating_add(FUTURE_MS)));
                let params = [("query", query), ("start", seconds(start)), ("end", seconds(end.max(start)))];
                let (mut data, warnings) = p.get("/api/v1/query_exemplars", &params).await?;
                each(&mut data).for_each(|s| put_labels(&mut s["seriesLabels"], external));
                (data, warnings)
            }
            FactsAsk::Status(r) => {
                let limit = if r.limit > 0 { r.limit } else { 10 };
                let (data, warnings) = p.get("/api/v1/status/tsdb", &[("limit", limit.to_string())]).await?;
                (json!({ external.to_string(): data }), warnings)
            }
        })
    }
}

fn each(list: &mut Value) -> impl Iterator<Item = &mut Value> {
    list.as_array_mut().into_iter().flatten()
}

fn put_labels(labels: &mut Value, external: &Labels) {
    if !labels.is_object() {
        *labels = json!({});
    }
    external.iter().for_each(|(n, v)| labels[n] = Value::from(v));
}

/// The selectors of an expression as the Prometheus can answer them; `None` when none concerns it.
fn without_external(query: &str, external: &Labels) -> Result<Option<String>, String> {
    let expr = koios_promql::parse(query).map_err(|e| e.to_string())?;
    let inner = expr.selectors().into_iter().filter_map(|s| settle(external, s));
    let texts: Vec<String> = inner.map(|m| selector(&at_least_one(m))).collect();
    Ok((!texts.is_empty()).then(|| texts.join(" or ")))
}

#[async_trait]
impl ClusterSource for Sidecar {
    async fn series(&self, ask: SeriesAsk) -> Result<Told<SeriesChunks>, Status> {
        let Some(inner) = self.inner(&ask)? else {
            return Ok(Told { found: Vec::new(), warnings: Vec::new() });
        };
        let mut told = if ask.labels_only {
            self.label_sets(&inner).await.map_err(away)?
        } else {
            let query = ReadQuery { mint: inner.mint, maxt: inner.maxt, matchers: inner.matchers };
            let found = self.prometheus.read(&query, self.limits).await.map_err(away)?;
            Told { found, warnings: Vec::new() }
        };
        told.found
            .iter_mut()
            .for_each(|s| s.labels = dressed(&inner.external, std::mem::take(&mut s.labels)));
        Ok(told)
    }

    async fn words(&self, ask: SeriesAsk, name: &str) -> Result<Told<String>, Status> {
        match self.inner(&ask)? {
            Some(inner) => self.names_or_values(&inner, name).await.map_err(away),
            None => Ok(Told { found: Vec::new(), warnings: Vec::new() }),
        }
    }

    fn streams(&self) -> Vec<Stream> {
        let mint = self.since.at(self.clock.now_ms());
        let external = self.watch.known().external;
        external.into_iter().map(|labels| Stream { labels, mint, maxt: i64::MAX }).collect()
    }
}

#[async_trait]
impl Facts for Sidecar {
    async fn facts(&self, ask: FactsAsk, _: Vec<String>) -> Result<Told<Value>, Status> {
        let external = self.external()?;
        let (fact, warnings) = self.fact(ask, &external).await.map_err(away)?;
        Ok(Told { found: vec![fact], warnings })
    }

    fn offers(&self) -> Vec<Offer> {
        Offer::ALL.into()
    }
}

#[async_trait]
impl Beside for Sidecar {
    async fn info(&self) -> Result<EndpointInfo, Status> {
        self.watch.looked().await;
        let known = self.watch.known();
        let (Some(external), None) = (known.external, &known.away) else {
            return Err(away(known.away.unwrap_or_default()));
        };
        Ok(EndpointInfo {
            kind: "sidecar".to_owned(),
            label_sets: vec![external],
            mint: self.since.at(self.clock.now_ms()),
            maxt: i64::MAX,
            has_store: true,
            is_koios: false,
            offers: self.offers(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_for_exemplars_loses_external_labels() {
        let external = Labels::from_pairs([("cluster", "eu")]);
        let asked = |q| without_external(q, &external).unwrap();
        assert_eq!(
            asked("rate(a_bucket{cluster=\"eu\", le=~\"1|2\"}[5m])").as_deref(),
            Some("{le=~\"1|2\",__name__=\"a_bucket\"}")
        );
        assert_eq!(asked("a{cluster=\"us\"} + b").as_deref(), Some("{__name__=\"b\"}"));
        assert_eq!(asked("{cluster=\"eu\"}").as_deref(), Some("{__name__!=\"\"}"));
        assert_eq!(asked("a{cluster!=\"eu\"}"), None);
        assert!(without_external("(", &external).is_err());
        assert_eq!(seconds(1_234), "1.234");
    }
}
