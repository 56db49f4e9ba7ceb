//! Three nodes become nine and three again while samples are pushed, targets are scraped and questions asked.
//!
//! Scenario 40 with real processes on a network of their own. Every pushed sample is a function of its series and time, and every target counts
//! its scrapes, so one that is lost, doubled or taken from elsewhere is seen. What is moved is counted as samples that
//! were appended anywhere or uploaded, against the least that two slots and three copies can do with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::netns::Lab;
use koios_cluster_tests::push::{Push, ms, series};
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, until};
use serde_json::Value;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(90);
const DRAIN: Duration = Duration::from_secs(60);
const TARGETS: usize = 24;
const SERIES: usize = 6;
/// What a scrape says of itself beside the target's own series.
const REPORTED: usize = 5;
const WRITERS: usize = 3;
const WRITTEN: usize = 30;
const COPIES: usize = 3;
const SLOTS: u64 = 2;
const INTERVAL_MS: i64 = 1000;
/// A moment this long ago gets no more samples.
const SETTLED_S: f64 = 3.0;
/// Pushed and scraped for at least so long at each size.
const HOLD: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(200);
/// How much more than the least may be moved.
const MOVED_MAX: f64 = 1.2;

/// Whom the load goes to, and what came of it.
#[derive(Default)]
struct Load {
    open: Mutex<Vec<SocketAddr>>,
    over: AtomicBool,
    turn: AtomicU64,
    /// Times of acknowledged batches by writer.
    acked: Mutex<BTreeMap<usize, BTreeSet<i64>>>,
    /// Attempts that were not acknowledged and made again.
    again: AtomicU64,
    answers: AtomicU64,
    failed: Mutex<Vec<String>>,
}

impl Load {
    /// The next of the nodes that are not about to end.
    fn node(&self) -> SocketAddr {
        let open = locked(&self.open);
        open[self.turn.fetch_add(1, Ordering::Relaxed) as usize % open.len()]
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Acquire)
    }

    /// As a sender does: one moment after the other, each again until it is taken.
    async fn write(self: Arc<Self>, writer: usize) {
        while self.goes_on() {
            let t = ms();
            let batch = || {
                let row = |n: usize| {
                    let labels = [("__name__", "load"), ("n", &n.to_string()), ("w", &writer.to_string())];
                    series(&labels, &[(t, value(t, n))])
                };
                Push::v1((0..WRITTEN).map(row).collect())
            };
            until("the batch is taken", PATIENCE, || async {
                match batch().to(self.node()).await {
                    Ok(reply) if reply.status == 204 => Ok(()),
                    other => {
                        self.again.fetch_add(1, Ordering::Relaxed);
                        Err(format!("{other:?}"))
                    }
                }
            })
            .await;
            locked(&self.acked).entry(writer).or_default().insert(t);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Questions whose answers must be whole.
    async fn ask(self: Arc<Self>, query: &'static str) {
        while self.goes_on() {
            let node = self.node();
            match Api::new(node).query(query, now() - SETTLED_S).await {
                Ok(_) => drop(self.answers.fetch_add(1, Ordering::Relaxed)),
                Err(why) => locked(&self.failed).push(format!("{node}: {query}: {why}")),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A load that failed is noticed where it is joined.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn value(t: i64, n: usize) -> f64 {
    (t % 1_000_000) as f64 + n as f64
}

struct Cluster {
    specs: Vec<NodeSpec>,
    nodes: Vec<Node>,
    load: Arc<Load>,
}

impl Cluster {
    fn new(lab: &Lab, targets: &[Exporter]) -> Self {
        let dir = lab.dir.path();
        let list: Vec<String> = targets.iter().map(|t| format!("'{}'", t.addr)).collect();
        lab.configure(&format!("{{job_name: probe, static_configs: [{{targets: [{}]}}]}}", list.join(", ")));
        let bucket = dir.join("bucket.yml");
        let text = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", dir.join("shared").display());
        std::fs::write(&bucket, text).expect("bucket file");
        let objstore = format!("--objstore.config-file={}", bucket.display());
        let specs = (0..lab.hosts.len()).map(|id| lab.spec(id).arg(objstore.clone())).collect();
        Self { specs, nodes: Vec::new(), load: Arc::default() }
    }

    async fn grow(&mut self, to: usize) {
        let from = self.nodes.len();
        self.nodes.extend(self.specs[from..to].iter().map(NodeSpec::start));
        for node in &self.nodes {
            let api = node.api();
            until("all are ready", PATIENCE, || api.all_ready(to)).await;
        }
        *locked(&self.load.open) = self.nodes.iter().map(|n| n.spec.http()).collect();
    }

    /// One after the other, as an operator does.
    async fn shrink(&mut self, to: usize) {
        while self.nodes.len() > to {
            let Some(mut last) = self.nodes.pop() else { return };
            locked(&self.load.open).retain(|a| *a != last.spec.http());
            last.terminate();
            let (status, last) =
                tokio::task::spawn_blocking(move || (last.wait(DRAIN), last)).await.expect("a wait");
            assert!(status.is_some_and(|s| s.success()), "{}: {status:?}\n{}", last.spec.name, last.log());
            for node in &self.nodes {
                let api = node.api();
                until("all know that it left", PATIENCE, || async {
                    let nodes = api.nodes().await?;
                    if nodes[&last.spec.name] == "left" { Ok(()) } else { Err(format!("{nodes:?}")) }
                })
                .await;
            }
        }
    }
}

/// Points of every series that `selector` finds, by labels; with a warning or out of order it is an error.
async fn points(api: &Api, selector: &str, at: f64) -> Result<BTreeMap<String, Vec<(i64, f64)>>, String> {
    let data = api.query(&format!("{selector}[15m]"), at).await?;
    let mut out = BTreeMap::new();
    for s in data["result"].as_array().ok_or("no matrix")? {
        let read = |p: &Value| {
            let t = (p[0].as_f64().unwrap_or(0.0) * 1000.0).round() as i64;
            (t, p[1].as_str().and_then(|v| v.parse().ok()).unwrap_or(f64::NAN))
        };
        let list: Vec<(i64, f64)> = s["values"].as_array().ok_or("no floats")?.iter().map(read).collect();
        if list.windows(2).any(|w| w[0].0 >= w[1].0) {
            return Err(format!("{}: times do not rise", s["metric"]));
        }
        out.insert(s["metric"].to_string(), list);
    }
    Ok(out)
}

/// Samples in all blocks of the bucket; each is uploaded once and nothing merges them here.
fn uploaded(bucket: &Path) -> u64 {
    let entries = std::fs::read_dir(bucket).into_iter().flatten().flatten();
    let read = |e: std::fs::DirEntry| {
        let meta: Value = serde_json::from_slice(&std::fs::read(e.path().join("meta.json")).ok()?).ok()?;
        meta["stats"]["numSamples"].as_u64()
    };
    entries.filter_map(read).sum()
}

async fn appended(api: &Api) -> u64 {
    let (_, text) = api.get("/metrics", &[]).await.expect("metrics");
    let lines = text.lines().filter(|l| l.starts_with("prometheus_tsdb_head_samples_appended_total"));
    lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
}

async fn targets(lab: &Lab) -> Vec<Exporter> {
    let (mut list, at) = (Vec::new(), (lab.net.observer().v4(), 0).into());
    for i in 0..TARGETS {
        list.push(Exporter::start_at(at, &format!("t{i}"), Behaviour::Series(SERIES)).await);
    }
    list
}

#[tokio::test]
async fn s40_three_nine_three_under_load() {
    let Some(lab) = Lab::start(9, 40) else { return };
    let targets = targets(&lab).await;
    let mut cluster = Cluster::new(&lab, &targets);
    cluster.grow(3).await;
    let all_scrapes = || targets.iter().map(Exporter::scrapes).sum::<u64>();
    let (begun, before) = (ms(), all_scrapes());
    let load = cluster.load.clone();
    let mut tasks = JoinSet::new();
    (0..WRITERS).for_each(|w| drop(tasks.spawn(load.clone().write(w))));
    for query in
        ["sum(count_over_time(load[20s]))", "count(probe_value)", "sum by (n) (rate(probe_value[10s]))"]
    {
        tasks.spawn(load.clone().ask(query));
    }
    tokio::time::sleep(HOLD).await;
    cluster.grow(9).await;
    tokio::time::sleep(HOLD).await;
    cluster.shrink(3).await;
    tokio::time::sleep(HOLD).await;
    load.over.store(true, Ordering::Release);
    while let Some(task) = tasks.join_next().await {
        task.expect("no load gave up");
    }
    let (end, scrapes) = (ms(), all_scrapes() - before);

    let (failed, answers) = (locked(&load.failed).clone(), load.answers.load(Ordering::Relaxed));
    assert!(failed.is_empty() && answers > 50, "{answers} answers; {} failed: {failed:#?}", failed.len());
    let acked = locked(&load.acked).clone();
    for node in &cluster.nodes {
        check_pushed(&node.api(), &acked).await;
        check_scraped(&node.api()).await;
    }

    let pushed = acked.values().map(|t| t.len() * WRITTEN).sum::<usize>();
    let mut moved = uploaded(&lab.dir.path().join("shared"));
    for node in &cluster.nodes {
        moved += appended(&node.api()).await;
    }
    let seconds = (end - begun) as u64 / INTERVAL_MS as u64;
    let least_scrapes = TARGETS as u64 * SLOTS * seconds;
    let least = (COPIES * pushed) as u64 + least_scrapes * (SERIES + REPORTED) as u64;
    let (by_scrape, by_sample) = (scrapes as f64 / least_scrapes as f64, moved as f64 / least as f64);
    eprintln!(
        "{seconds} s: {pushed} samples pushed, {} batches sent again, {answers} answers; against the least: \
         {by_scrape:.3} scrapes, {by_sample:.3} samples appended or uploaded",
        load.again.load(Ordering::Relaxed)
    );
    assert!(by_scrape <= MOVED_MAX && by_sample <= MOVED_MAX, "{by_scrape} {by_sample}");
}

/// Everything that was acknowledged is there once, and nothing that was not sent.
async fn check_pushed(api: &Api, acked: &BTreeMap<usize, BTreeSet<i64>>) {
    let all = until("whole answers", PATIENCE, || points(api, "load", now())).await;
    assert_eq!(all.len(), WRITERS * WRITTEN);
    for (labels, list) in &all {
        let labels: Value = serde_json::from_str(labels).expect("labels");
        let number =
            |name: &str| labels[name].as_str().and_then(|v| v.parse::<usize>().ok()).expect("a number");
        let (n, w) = (number("n"), number("w"));
        assert!(list.iter().all(|(t, v)| *v == value(*t, n)), "{labels}: {list:?}");
        let times: BTreeSet<i64> = list.iter().map(|(t, _)| *t).collect();
        let lost: Vec<_> = acked[&w].difference(&times).collect();
        assert!(lost.is_empty() && times.len() == acked[&w].len(), "{labels}: {lost:?} are lost, {times:?}");
    }
}

/// Every series of every target has a sample for each interval, and counts its scrapes upwards.
async fn check_scraped(api: &Api) {
    let at = now() - SETTLED_S;
    let all = until("whole answers", PATIENCE, || points(api, "probe_value", at)).await;
    assert_eq!(all.len(), TARGETS * SERIES);
    for (labels, list) in &all {
        for pair in list.windows(2) {
            assert_eq!(
                pair[1].0 - pair[0].0,
                INTERVAL_MS,
                "{labels} between {:?} and {:?}",
                pair[0],
                pair[1]
            );
            assert!(pair[1].1 > pair[0].1, "{labels}: {pair:?}");
        }
    }
    let up = until("whole answers", PATIENCE, || points(api, "up", at)).await;
    assert!(up.len() == TARGETS && up.values().flatten().all(|(_, v)| *v == 1.0), "{up:?}");
}
