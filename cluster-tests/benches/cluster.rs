//! What a cluster costs beside one node: CPU and bytes of replicated samples, and the latency of small queries.
//!
//! `KOIOS_BIN=<release binary> cargo bench -p koios-cluster-tests --bench cluster`. `KOIOS_BENCH_SERIES` (default 5000)
//! and `KOIOS_BENCH_PUSHES` (60) size the writing, `KOIOS_BENCH_QUESTIONS` (400) the asking. All nodes are processes on
//! this machine and share its cores, so wall times of a cluster are those of a crowded machine; CPU time is what counts.
//! CPU is user and system time of all threads of all nodes, less what the same nodes take while nothing is pushed.
//! Bytes between nodes are what their gRPC listeners count.

use std::path::Path;
use std::time::{Duration, Instant};

use koios_cluster_tests::api::now;
use koios_cluster_tests::push::{Push, ms, series};
use koios_cluster_tests::{Api, Node, NodeSpec, scratch, until};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a cluster is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(10);
/// Samples of a series in a push.
const BATCH: i64 = 4;

/// Nodes that scrape nothing.
async fn start(dir: &Path, nodes: usize, koios: &str) -> Vec<Node> {
    std::fs::create_dir_all(dir).expect("directory");
    let config = dir.join("nodes.yml");
    let text = format!("scrape_configs: []\nkoios: {{{koios}}}\n");
    std::fs::write(&config, text).expect("configuration");
    let first = NodeSpec::new("n0", dir).config(&config);
    let rest = (1..nodes).map(|i| NodeSpec::new(&format!("n{i}"), dir).config(&config).join(&first));
    let specs: Vec<NodeSpec> = std::iter::once(first.clone()).chain(rest).collect();
    let running: Vec<Node> = specs.iter().map(NodeSpec::start).collect();
    for node in &running {
        let api = node.api();
        until("all nodes are ready", PATIENCE, || api.all_ready(nodes)).await;
    }
    running
}

/// CPU time of all threads so far, seconds.
fn cpu_s(nodes: &[Node]) -> f64 {
    let one = |node: &Node| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).into_iter().flatten().flatten();
        let ns = tasks.filter_map(|t| {
            let text = std::fs::read_to_string(t.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<f64>().ok()
        });
        ns.sum::<f64>() / 1e9
    };
    nodes.iter().map(one).sum()
}

/// Bytes that the nodes' gRPC listeners counted so far.
async fn peer_bytes(nodes: &[Node]) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        let (_, text) = node.api().get("/metrics", &[]).await.expect("metrics");
        let lines = text.lines().filter(|l| l.starts_with("koios_peer_bytes_total"));
        sum += lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    sum
}

fn number(name: &str, default: usize) -> usize {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_string());
    text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is not a number"))
}

/// Pushes `pushes` times a batch of samples of every series to the nodes in turn: microseconds of CPU and bytes
/// between nodes per sample, and seconds it took.
async fn write(nodes: &[Node], count: usize, pushes: usize) -> (f64, f64, f64) {
    let names: Vec<(String, String)> =
        (0..count).map(|i| (format!("host{}:9100", i / 50), format!("/{}/items", i % 50))).collect();
    let body = |first: i64| {
        let samples = |i: usize| -> Vec<(i64, f64)> {
            (0..BATCH)
                .map(|k| (first + k * 15_000, ((first / 15_000 + k) * (i as i64 % 90 + 1)) as f64))
                .collect()
        };
        let one = |(i, (host, path)): (usize, &(String, String))| {
            let labels = [("__name__", "bench_total"), ("instance", host), ("job", "bench"), ("path", path)];
            series(&labels, &samples(i))
        };
        Push::v1(names.iter().enumerate().map(one).collect())
    };
    let start = ms() / 15_000 * 15_000 - (pushes as i64 + 2) * BATCH * 15_000;
    // Series are made first: what is measured is samples.
    for node in nodes {
        assert_eq!(body(start).to(node.spec.http()).await.expect("an answer").status / 100, 2);
    }
    let idle = (cpu_s(nodes), Instant::now());
    tokio::time::sleep(IDLE).await;
    let idle_per_s = (cpu_s(nodes) - idle.0) / idle.1.elapsed().as_secs_f64();
    let (cpu, bytes, begun) = (cpu_s(nodes), peer_bytes(nodes).await, Instant::now());
    for n in 0..pushes {
        let push = body(start + (n as i64 + 1) * BATCH * 15_000);
        let reply = push.to(nodes[n % nodes.len()].spec.http()).await.expect("an answer");
        assert_eq!(reply.status / 100, 2, "{}", reply.body);
    }
    let took = begun.elapsed().as_secs_f64();
    let samples = (pushes * count) as f64 * BATCH as f64;
    let cpu = cpu_s(nodes) - cpu - idle_per_s * took;
    (cpu * 1e6 / samples, (peer_bytes(nodes).await - bytes) / samples, took)
}

/// Median and 99th percentile of the answers to one question, milliseconds.
async fn latency(api: &Api, path: &str, params: &[(&str, &str)], questions: usize) -> (f64, f64) {
    let mut took = Vec::with_capacity(questions);
    for i in 0..questions + questions / 10 {
        let begun = Instant::now();
        let data = api.data(path, params).await.expect("an answer");
        assert!(data["result"].as_array().is_some_and(|r| r.len() == 1), "{data}");
        // The first tenth warms up.
        if i >= questions / 10 {
            took.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
    }
    took.sort_by(f64::total_cmp);
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

async fn run() {
    let dir = scratch();
    let (count, pushes) = (number("KOIOS_BENCH_SERIES", 5000), number("KOIOS_BENCH_PUSHES", 60));
    let questions = number("KOIOS_BENCH_QUESTIONS", 400);
    println!("{count} series, {pushes} pushes of {BATCH} samples each; {questions} questions");
    println!("{:34} {:>10} {:>12} {:>8}", "writing", "us/sample", "bytes/sample", "s");
    for (name, nodes, koios) in [
        ("one node", 1, ""),
        ("three nodes, replication 3", 3, "cluster: {replication_factor: 3}, query: {hedging: false}"),
        ("three nodes, replication 3, hedging", 3, "cluster: {replication_factor: 3}"),
    ] {
        let nodes = start(&dir.path().join(name), nodes, koios).await;
        let (cpu, bytes, took) = write(&nodes, count, pushes).await;
        println!("{name:34} {cpu:10.3} {bytes:12.2} {took:8.1}");
        let (time, begin) = (format!("{:.0}", now() - 60.0), format!("{:.0}", now() - 960.0));
        let query = "bench_total{instance=\"host1:9100\",path=\"/7/items\"}";
        let at = [("query", query), ("time", time.as_str())];
        let over = [("query", query), ("start", &begin), ("end", &time), ("step", "15")];
        for (what, path, params) in
            [("instant", "/api/v1/query", &at[..]), ("range of 15 min", "/api/v1/query_range", &over[..])]
        {
            let (p50, p99) = latency(&nodes[0].api(), path, params, questions).await;
            println!("    {what:30} p50 {p50:7.2} ms   p99 {p99:7.2} ms");
        }
    }
}

fn main() {
    tokio::runtime::Runtime::new().expect("runtime").block_on(run());
}
