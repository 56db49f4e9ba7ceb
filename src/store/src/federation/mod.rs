//! Endpoints beside the cluster: Thanos components and other Koios clusters, reached by address.
//!
//! Owns which there are (`spec`, looked up by `resolve`), what each said of itself last, and who is asked. Each endpoint is asked
//! what it is every `CHECK`; one that did not answer the last time is left out of questions and named as missing when it is strict
//! or was well within `FORGET`; after that only strict ones are named. What lies beside single nodes of the own cluster (`beside`) is
//! an endpoint too, and always strict. Refuses gossip: the data of the own cluster are not reached this way, and who its nodes
//! are is told by others.
//! Invariants: published views are immutable; a question that came through this cluster already is not sent on in a circle.

pub mod beside;
pub mod resolve;
pub mod spec;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use koios_model::Clock;
use parking_lot::{Mutex, RwLock};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::federation::beside::{Beings, Neighbour};
use crate::federation::spec::{EndpointSpec, EndpointTls, read_targets};
use crate::storeapi::Beside;
use crate::storeapi::client::{EndpointClient, EndpointInfo};

/// How often an endpoint is asked what it is, and how long it may take to answer.
pub const CHECK: Duration = Duration::from_secs(5);
/// How often names are looked up again.
const LOOKUP_MS: i64 = 30_000;
/// How long an endpoint that is gone is remembered.
pub const FORGET_MS: i64 = 300_000;
/// Most endpoints.
const ENDPOINTS_MAX: usize = 4096;
const CHECKS_IN_FLIGHT: usize = 64;

/// One endpoint as it is known now.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its connection.
    pub client: EndpointClient,
    /// The node of the own cluster beside which it lies.
    pub beside: Option<String>,
    /// Whether its absence must show.
    pub strict: bool,
    /// What it said last.
    pub info: Option<EndpointInfo>,
    /// Why it is not well; `None` when it answered the last time.
    pub error: Option<String>,
    /// When it was asked last, milliseconds since the epoch.
    pub checked_ms: i64,
    /// When it answered last.
    pub well_ms: Option<i64>,
}

impl Endpoint {
    /// What it is called in words to people.
    pub fn called(&self) -> String {
        match &self.beside {
            Some(node) => format!("the Prometheus beside node {node}"),
            None => format!("endpoint {}", self.client.address()),
        }
    }
}

/// All endpoints, by address.
pub type Endpoints = BTreeMap<String, Arc<Endpoint>>;

#[derive(Default)]
struct Names {
    looked_up_ms: Option<i64>,
    /// Addresses behind each entry, kept when a lookup fails.
    behind: BTreeMap<EndpointSpec, Vec<String>>,
}

/// Keeps track of endpoints.
pub struct Federation {
    /// Name of the own cluster.
    pub cluster: String,
    fixed: Vec<EndpointSpec>,
    files: Vec<PathBuf>,
    names: Mutex<Names>,
    beings: Beings,
    /// One refresh at a time.
    turn: tokio::sync::Mutex<()>,
    view: RwLock<Arc<Endpoints>>,
    clock: Arc<dyn Clock>,
}

impl Federation {
    /// Over fixed entries and files of targets.
    pub fn new(
        cluster: String,
        fixed: Vec<EndpointSpec>,
        files: Vec<PathBuf>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (names, beings, turn) = (Mutex::default(), Beings::default(), tokio::sync::Mutex::default());
        Self { cluster, fixed, files, names, beings, turn, view: RwLock::default(), clock }
    }

    /// Something lies beside this node.
    pub fn put_beside(&self, me: Neighbour, source: Arc<dyn Beside>) {
        self.beings.put_here(me, source);
    }

    /// What lies beside this node.
    pub fn beside_me(&self) -> Option<Arc<dyn Beside>> {
        self.beings.here()
    }

    /// Asks nodes of the own cluster that were not asked yet what lies beside them, and forgets those that are not in the
    /// list. Whether there is nobody left who did not answer.
    pub async fn meet(&self, nodes: Vec<Neighbour>) -> bool {
        let (changed, all) = self.beings.meet(nodes).await;
        if changed {
            self.refresh().await;
        }
        all
    }

    /// Nobody.
    pub fn none(cluster: String, clock: Arc<dyn Clock>) -> Self {
        Self::new(cluster, Vec::new(), Vec::new(), clock)
    }

    /// Whether an endpoint's absence shows in answers: it is strict, or was well a while ago.
    pub fn misses(&self, endpoint: &Endpoint) -> bool {
        let lately = |at: i64| self.clock.now_ms().saturating_sub(at) < FORGET_MS;
        endpoint.strict || endpoint.well_ms.is_some_and(lately)
    }

    /// Whether there is anybody to ask.
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.files.is_empty() && self.beings.is_empty()
    }

    /// The endpoints as they are known now.
    pub fn view(&self) -> Arc<Endpoints> {
        self.view.read().clone()
    }

    /// Looks names up when it is time, asks every endpoint what it is, and publishes what came of it.
    pub async fn refresh(&self) {
        let _turn = self.turn.lock().await;
        self.look_up().await;
        let mut wanted: BTreeMap<String, Origin> = {
            let names = self.names.lock();
            let all = names
                .behind
                .iter()
                .flat_map(|(s, found)| found.iter().map(move |a| (a.clone(), Origin::Named(s.clone()))));
            all.collect::<BTreeMap<_, _>>().into_iter().take(ENDPOINTS_MAX).collect()
        };
        wanted.extend(self.beings.all().into_iter().map(|n| (n.address.clone(), Origin::Beside(n))));
        let last = self.view();
        let checks = wanted.into_iter().map(|(address, origin)| {
            let last = last.get(&address).cloned();
            async move {
                let checked = self.check(&address, &origin, last).await?;
                Some((address, Arc::new(checked)))
            }
        });
        let next: Endpoints = stream::iter(checks)
            .buffer_unordered(CHECKS_IN_FLIGHT)
            .filter_map(std::future::ready)
            .collect()
            .await;
        *self.view.write() = Arc::new(next);
    }

    async fn look_up(&self) {
        let now = self.clock.now_ms();
        if self.names.lock().looked_up_ms.is_some_and(|at| now.saturating_sub(at) < LOOKUP_MS) {
            return;
        }
        let mut specs = self.fixed.clone();
        for file in &self.files {
            match std::fs::read_to_string(file).map_err(|e| e.to_string()).and_then(|t| read_targets(&t)) {
                Ok(found) => specs.extend(found),
                Err(e) => {
                    tracing::warn!(file = %file.display(), error = %e, "file of endpoints; the last list stays");
                    specs.extend(self.names.lock().behind.keys().cloned());
                }
            }
        }
        specs.sort();
        specs.dedup();
        let mut behind = BTreeMap::new();
        for spec in specs {
            let found = match resolve::resolve(&spec).await {
                Ok(found) => found,
                Err(e) => {
                    tracing::warn!(error = %e, "endpoint lookup; what was found before stays");
                    self.names.lock().behind.get(&spec).cloned().unwrap_or_default()
                }
            };
            behind.insert(spec, found);
        }
        *self.names.lock() = Names { looked_up_ms: Some(now), behind };
    }

    async fn check(&self, address: &str, origin: &Origin, last: Option<Arc<Endpoint>>) -> Option<Endpoint> {
        let client = match &last {
            Some(last) => last.client.clone(),
            None => match self.client(address, origin) {
                Ok(client) => client,
                Err(e) => {
                    tracing::warn!(endpoint = address, error = %e, "endpoint cannot be used");
                    return None;
                }
            },
        };
        let asked = client.info(CHECK).await;
        let now = self.clock.now_ms();
        let (info, error, well_ms) = match asked {
            Ok(info) => (Some(info), None, Some(now)),
            Err(e) => {
                let last = last.as_ref();
                let words = format!("{}: {}", e.code(), e.message());
                (last.and_then(|l| l.info.clone()), Some(words), last.and_then(|l| l.well_ms))
            }
        };
        let (beside, strict) = match origin {
            Origin::Named(spec) => (None, spec.strict),
            Origin::Beside(node) => (Some(node.name.clone()), true),
        };
        Some(Endpoint { client, beside, strict, info, error, checked_ms: now, well_ms })
    }

    fn client(&self, address: &str, origin: &Origin) -> Result<EndpointClient, String> {
        match origin {
            Origin::Named(spec) => EndpointClient::new(address, tls(spec.tls.as_ref())?),
            Origin::Beside(node) => self.beings.client(node),
        }
    }
}

/// Why an endpoint is asked.
enum Origin {
    /// It was named.
    Named(EndpointSpec),
    /// It lies beside a node.
    Beside(Neighbour),
}

fn tls(tls: Option<&EndpointTls>) -> Result<Option<ClientTlsConfig>, String> {
    let Some(tls) = tls else { return Ok(None) };
    let read = |file: &PathBuf| std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()));
    let mut config = ClientTlsConfig::new();
    config = match &tls.ca_file {
        Some(file) => config.ca_certificate(Certificate::from_pem(read(file)?)),
        None => config.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    Ok(Some(config))
}
