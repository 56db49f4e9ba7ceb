//! The node as HTTP and peers see it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use koios_actors::ingest::HeadViews;
use koios_actors::kit::Mailroom;
use koios_actors::scrape::discovery::Discovery;
use koios_actors::scrape::{Apply, TargetBoard};
use koios_cluster::events::{EventLog, Kind, News};
use koios_cluster::secret::Turned;
use koios_cluster::{Gossip, KeyRing};
use koios_http::NodePort;
use koios_http::state::RuntimeFacts;
use koios_model::Clock;
use koios_query::{Peers, Reports};
use koios_telemetry::Registry;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::cli::RunArgs;
use crate::reports::OwnReports;
use crate::settings::Settings;
use crate::{status, wire};

const PEER_PATIENCE: Duration = Duration::from_secs(2);
const APPLY_PATIENCE: Duration = Duration::from_secs(10);
const ACT_PATIENCE: Duration = Duration::from_secs(120);

/// Everything a node shows beside queries.
pub struct Port {
    pub args: RunArgs,
    pub board: Arc<TargetBoard>,
    pub heads: Arc<HeadViews>,
    pub registry: Arc<Registry>,
    pub gossip: Arc<Gossip>,
    pub peers: Arc<Peers>,
    pub discovery: Mailroom<Discovery>,
    pub keys: Arc<KeyRing>,
    pub runtime: Arc<RwLock<RuntimeFacts>>,
    pub config_yaml: RwLock<String>,
    pub clock: Arc<dyn Clock>,
    pub reports: Arc<OwnReports>,
    /// Rung by whoever asks for a drain over HTTP.
    pub told_to_drain: Notify,
    pub events: Arc<EventLog>,
}

impl Port {
    /// Reads the file again and applies its scrape jobs, and the secret file; everything else needs a restart and keeps
    /// its value.
    async fn read_again(&self) -> Result<(), String> {
        let read = Settings::read(self.args.clone());
        let applied = match read {
            Ok(settings) => match self.turn_keys(settings.secret_file.as_deref()) {
                Ok(()) => {
                    let told = self.discovery.ask(Apply(wire::jobs(&settings)), APPLY_PATIENCE).await;
                    told.map(|()| settings).map_err(|e| e.to_string())
                }
                Err(e) => Err(e),
            },
            Err(e) => Err(e),
        };
        let mut runtime = self.runtime.write();
        match applied {
            Ok(settings) => {
                *self.config_yaml.write() = settings.config.redacted_yaml();
                runtime.reload_ok = true;
                runtime.config_time_ms = self.clock.now_ms();
                tracing::info!("configuration reloaded");
                Ok(())
            }
            Err(e) => {
                runtime.reload_ok = false;
                tracing::error!(error = e, "configuration not reloaded; the old one stays");
                Err(e)
            }
        }
    }

    /// From now on the first secret of the file seals and all of them open.
    fn turn_keys(&self, secret_file: Option<&Path>) -> Result<(), String> {
        let Some(path) = secret_file else { return Ok(()) };
        let turned = self.keys.turn(path).map_err(|e| e.to_string())?;
        if turned != Turned::default() {
            let Turned { primary, added, removed } = turned;
            tracing::info!(primary, added, removed, "cluster secrets changed");
            let node = self.gossip.view().me.clone();
            let first = if primary { "another one seals" } else { "the same one seals" };
            let what = format!("the cluster secrets of {node} changed: {added} new, {removed} gone, {first}");
            self.events.add(News { kind: Kind::Node, node, what, why: String::new() });
        }
        Ok(())
    }
}

#[async_trait]
impl NodePort for Port {
    fn targets(&self) -> String {
        self.board.to_json()
    }

    fn config_yaml(&self) -> String {
        self.config_yaml.read().clone()
    }

    fn tsdb_status(&self, limit: usize) -> String {
        status::tsdb(&self.heads, limit)
    }

    fn runtime(&self) -> RuntimeFacts {
        self.runtime.read().clone()
    }

    fn metrics(&self) -> String {
        self.registry.render_text()
    }

    async fn reload(&self) -> Result<(), String> {
        let outcome = self.read_again().await;
        let (what, why) = match &outcome {
            Ok(()) => ("the configuration was read again", String::new()),
            Err(e) => ("the configuration could not be read again, the old one stays", e.clone()),
        };
        let node = self.gossip.view().me.clone();
        self.events.add(News { kind: Kind::Node, node, what: what.to_owned(), why });
        outcome
    }

    fn impediment(&self) -> Option<&'static str> {
        let why = "the gossip task ended and is being started again; until then this node does not know who is there";
        (!self.gossip.health().is_running()).then_some(why)
    }

    fn drain(&self) {
        self.told_to_drain.notify_one();
    }

    fn report(&self, kind: &str) -> Option<String> {
        self.reports.report(kind)
    }

    /// This node first: when it refuses, nothing was done anywhere.
    async fn act(&self, body: &str) -> Result<(), String> {
        self.reports.act(body.as_bytes()).await?;
        let view = self.gossip.view();
        let others = view.members.values().filter(|m| m.name != view.me);
        let asks = others.map(|m| async move {
            let done = match m.answers() {
                true => self.peers.act(m, body, ACT_PATIENCE).await.map_err(|e| e.text().to_owned()),
                false => Err(format!("is {}", m.shown_state())),
            };
            done.map_err(|why| format!("{}: {why}", m.name))
        });
        let faults: Vec<String> =
            futures::future::join_all(asks).await.into_iter().filter_map(Result::err).collect();
        match faults.is_empty() {
            true => Ok(()),
            false => {
                Err(format!("done on {}, not done on {}; asking again is safe", view.me, faults.join(", ")))
            }
        }
    }

    async fn snapshot(&self, head: bool) -> Result<String, String> {
        self.reports.admin.snapshot(head).await
    }

    fn wal_replay(&self) -> (u64, u64, u64) {
        let head = self.args.storage_path.join("head");
        let shards = (0..self.heads.shards()).map(|n| head.join(format!("shard-{n}")).join("wal"));
        let found: Vec<(u64, u64)> = shards.filter_map(|dir| koios_tsdb::segment_numbers(&dir)).collect();
        let min = found.iter().map(|f| f.0).min().unwrap_or(0);
        let max = found.iter().map(|f| f.1).max().unwrap_or(0);
        (min, max, if self.heads.all().is_ok() { max } else { min })
    }

    async fn collect(&self, kind: &str) -> Vec<(String, Result<String, String>)> {
        let view = self.gossip.view();
        let others: Vec<_> =
            view.members.values().filter(|m| m.name != view.me && m.answers()).cloned().collect();
        let asks = others.into_iter().map(|m| async move {
            let report = self.peers.report(&m, kind, PEER_PATIENCE).await;
            let text = report
                .map_err(|e| e.text().to_owned())
                .and_then(|b| String::from_utf8(b).map_err(|e| e.to_string()));
            (m.name.clone(), text)
        });
        futures::future::join_all(asks).await
    }
}
