//! A cluster in a network of its own.
//!
//! Owns names, addresses and the configuration that the nodes of a lab share: they scrape nothing
//! and listen where every node listens by default, which they can, because each has a machine of its own.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{Host, Net};
use crate::api::now;
use crate::binary::koios;
use crate::{Api, Node, NodeSpec, until};

/// HTTP, gRPC and cluster ports of every node in a lab.
pub const PORTS: [u16; 3] = [9090, 10_901, 7946];
/// Longest wait for a cluster to come together on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Longest wait for things to settle: a node that lost peers while all of them started claims more than a minute.
const SETTLES: Duration = Duration::from_secs(180);
/// Nothing has happened for this long when things have settled.
const STILL: Duration = Duration::from_secs(3);

/// Hosts, and where their nodes keep what they keep.
pub struct Lab {
    /// The network; its thread is this thread.
    pub net: Net,
    /// Hosts by number.
    pub hosts: Vec<Host>,
    /// Storage of nodes, configuration.
    pub dir: TempDir,
}

impl Lab {
    /// A network of `hosts` hosts without a node; `None` where namespaces are not permitted.
    pub fn start(hosts: usize, seed: u64) -> Option<Self> {
        let _ = koios();
        let net = Net::start(seed)?;
        let hosts = (0..hosts).map(|id| net.host(id)).collect();
        let lab = Self { net, hosts, dir: crate::scratch() };
        lab.configure("");
        Some(lab)
    }

    /// Replaces the configuration that nodes started later read; `jobs` are scrape configurations as YAML. One without
    /// targets is always there: it says how fast scraping, and with it a handover, is here.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, jobs: &str) {
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: none}}, {jobs}]\n"
        );
        std::fs::write(self.config(), text).expect("configuration");
    }

    /// Path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("lab.yml")
    }

    /// How the node `n<id>` starts on host `id`; joins the first one.
    pub fn spec(&self, id: usize) -> NodeSpec {
        let spec = self.lone(id);
        if id == 0 { spec } else { spec.arg(format!("--join={}:{}", self.hosts[0].v4(), PORTS[2])) }
    }

    /// How the node `n<id>` starts on host `id`, joining nobody.
    pub fn lone(&self, id: usize) -> NodeSpec {
        let host = &self.hosts[id];
        let spec = NodeSpec::at(&format!("n{id}"), self.dir.path(), host.v4(), PORTS);
        spec.inside(&host.space).config(&self.config())
    }

    /// Starts the nodes of these specifications and waits until each knows all as ready.
    pub async fn cluster(&self, specs: &[NodeSpec]) -> Vec<Node> {
        let nodes: Vec<Node> = specs.iter().map(NodeSpec::start).collect();
        all_ready(&nodes).await;
        nodes
    }

    /// The nodes `n0` and up on all hosts.
    pub async fn whole(&self) -> Vec<Node> {
        let specs: Vec<NodeSpec> = (0..self.hosts.len()).map(|id| self.spec(id)).collect();
        self.cluster(&specs).await
    }
}

/// Waits until every node says that all of them are ready, and no more.
pub async fn all_ready(nodes: &[Node]) {
    for node in nodes {
        let api = node.api();
        let what = format!("{} lists {} ready nodes", node.spec.name, nodes.len());
        until(&what, PATIENCE, || api.all_ready(nodes.len())).await;
    }
}

/// Waits until `api` says that `name` is in `state`.
pub async fn state_is(api: &Api, name: &str, state: &str) {
    until(&format!("{name} is {state}"), PATIENCE, || async {
        let states = api.nodes().await?;
        if states.get(name).is_some_and(|s| s == state) { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
}

/// Moments until which some node, or its zone, holds something alone; `None` while that goes on. With fewer than three
/// zones a zone always may.
fn claims(nodes: &Value) -> impl Iterator<Item = Option<i64>> + use<> {
    let nodes: Vec<&Value> = nodes.as_array().into_iter().flatten().collect();
    let zones: BTreeSet<&str> = nodes.iter().filter_map(|n| n["zone"].as_str()).collect();
    let kinds: &[&str] = if zones.len() < 3 { &["sole"] } else { &["sole", "zone_sole"] };
    let of = |n: &Value, kind: &str| -> Vec<Option<i64>> {
        n["head"][kind].as_array().into_iter().flatten().map(|r| r["until"].as_i64()).collect()
    };
    let all: Vec<Option<i64>> = nodes.iter().flat_map(|n| kinds.iter().flat_map(|k| of(n, k))).collect();
    all.into_iter()
}

/// Waits until nobody holds anything alone any more and nothing happens: what is pushed from now on has its copies.
pub async fn settled(nodes: &[Node]) {
    for node in nodes {
        let api = node.api();
        let last = Cell::new((0, Instant::now()));
        until(&format!("{} has seen things settle", node.spec.name), SETTLES, || {
            let api = api.clone();
            let last = &last;
            async move {
                let data = api.data("/api/v1/cluster/nodes", &[]).await?;
                let now = (now() * 1000.0) as i64;
                if claims(&data["nodes"]).any(|until| until.is_none_or(|t| t >= now)) {
                    return Err(data.to_string());
                }
                let data = api.data("/api/v1/cluster/events", &[]).await?;
                let events = data["events"].as_array().map_or(0, Vec::len);
                if events != last.get().0 {
                    last.set((events, Instant::now()));
                }
                if last.get().1.elapsed() > STILL { Ok(()) } else { Err(format!("{events} events")) }
            }
        })
        .await;
    }
}
