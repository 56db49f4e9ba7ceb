//! Two slots, three nodes: every node gives the same answer, and one node less changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use koios_cluster_tests::api::now;
use koios_cluster_tests::binary::peer;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::peers::node_exporter;
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, scratch, until};

fn write_config(dir: &Path, targets: &[String]) -> PathBuf {
    let path = dir.join("prometheus.yml");
    let list: Vec<String> = targets.iter().map(|t| format!("'{t}'")).collect();
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: node\n    static_configs: [{{targets: [{}]}}]\n",
        list.join(", ")
    );
    std::fs::write(&path, text).unwrap();
    path
}

async fn three_nodes(dir: &Path, config: &Path) -> Vec<Node> {
    let first = NodeSpec::new("n0", dir).config(config);
    let rest = ["n1", "n2"].map(|n| NodeSpec::new(n, dir).config(config).join(&first));
    let nodes: Vec<Node> = std::iter::once(&first).chain(&rest).map(NodeSpec::start).collect();
    for node in &nodes {
        let api = node.api();
        until("three ready nodes", Duration::from_secs(20), || api.all_ready(3)).await;
    }
    nodes
}

/// Every target has two scrapers on different nodes.
async fn two_slots(api: &Api, targets: usize) -> Result<(), String> {
    let data = api.data("/api/v1/targets", &[]).await?;
    let active = data["activeTargets"].as_array().ok_or("no targets")?;
    let twice = active.iter().filter(|t| {
        let nodes: BTreeSet<&str> =
            t["scrapers"].as_array().into_iter().flatten().filter_map(|s| s["node"].as_str()).collect();
        t["health"] == "up" && nodes.len() == 2
    });
    let n = twice.count();
    if n == targets && active.len() == targets { Ok(()) } else { Err(format!("{n} of {targets}: {data}")) }
}

#[tokio::test]
async fn every_node_answers_alike_with_a_real_node_exporter() {
    if !peer("prometheus-node-exporter") {
        return;
    }
    let dir = scratch();
    let exporter = node_exporter();
    let target = format!("127.0.0.1:{}", exporter.port);
    let nodes = three_nodes(dir.path(), &write_config(dir.path(), std::slice::from_ref(&target))).await;
    let api = nodes[0].api();
    until("two slots", Duration::from_secs(15), || two_slots(&api, 1)).await;
    let begin = now();
    until("ten seconds of samples", Duration::from_secs(30), || async {
        let n = api.number("count_over_time(up[10s])", now()).await?;
        if n >= 10.0 && now() > begin + 10.0 { Ok(()) } else { Err(format!("{n} samples")) }
    })
    .await;

    // Settled times only: both slots have long written what they scraped.
    let queries = [
        "count(node_cpu_seconds_total)",
        "node_cpu_seconds_total",
        "sum by (mode) (rate(node_cpu_seconds_total[5s]))",
        "up",
        "{__name__=~\"node_memory_.*\"}",
        "count({job=\"node\"})",
        "scrape_samples_scraped",
    ];
    for step in 0..5 {
        let time = now() - 4.0 + f64::from(step) * 0.37;
        for query in queries {
            let answers: Vec<String> = futures_all(
                nodes.iter().map(|n| n.api()).map(|api| async move { api.vector(query, time).await }),
            )
            .await;
            assert!(
                !answers[0].is_empty() && answers.iter().all(|a| *a == answers[0]),
                "{query} at {time}: {answers:#?}"
            );
        }
    }
    let own = Api::new(([127, 0, 0, 1], exporter.port).into()).get("/metrics", &[]).await.unwrap().1;
    let lines = own.lines().filter(|l| l.starts_with("node_cpu_seconds_total{")).count();
    assert_eq!(api.number("count(node_cpu_seconds_total)", now() - 3.0).await.unwrap(), lines as f64);
}

async fn futures_all<F>(asks: impl Iterator<Item = F>) -> Vec<String>
where
    F: std::future::Future<Output = Result<koios_cluster_tests::api::Vector, String>>,
{
    let mut out = Vec::new();
    for ask in asks {
        out.push(format!("{:?}", ask.await.expect("a complete answer")));
    }
    out
}

/// Sample times in seconds of the deduplicated `probe_value{n="0"}` of every target.
async fn seconds_of(api: &Api, at: f64, window: u32) -> Result<BTreeMap<String, Vec<i64>>, String> {
    let data = api.query(&format!("probe_value{{n=\"0\"}}[{window}s]"), at).await?;
    let mut out = BTreeMap::new();
    for s in data["result"].as_array().ok_or("no result")? {
        let times = s["values"]
            .as_array()
            .ok_or("no values")?
            .iter()
            .map(|v| (v[0].as_f64().unwrap_or(0.0)).floor() as i64);
        out.insert(s["metric"]["target"].as_str().unwrap_or("").to_owned(), times.collect());
    }
    Ok(out)
}

#[tokio::test]
async fn a_killed_node_fails_no_query_and_loses_no_second() {
    let dir = scratch();
    let targets = exporters(8).await;
    let addrs: Vec<String> = targets.iter().map(|t| t.addr.to_string()).collect();
    let mut nodes = three_nodes(dir.path(), &write_config(dir.path(), &addrs)).await;
    let api = nodes[0].api();
    until("two slots", Duration::from_secs(15), || two_slots(&api, 8)).await;
    // What was scraped before there were two slots everywhere may rightly be missing without its node.
    let begin = now() + 15.0;
    until("replicated seconds", Duration::from_secs(40), || async {
        if now() > begin + 5.0 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;

    let settled = now() - 3.0;
    let before = api.vector("probe_value", settled).await.expect("a complete answer");
    assert_eq!(before.len(), 160);
    let count = api.number("count(probe_value)", settled).await.unwrap();

    // Queries go on at the two survivors while n2 is killed, from the first millisecond on.
    let stop = Arc::new(AtomicBool::new(false));
    let pollers: Vec<_> =
        nodes[..2].iter().map(|n| tokio::spawn(poll(n.api(), settled, count, stop.clone()))).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let killed = now();
    nodes[2].kill();
    let since = Instant::now();
    until("n2 is shown dead", Duration::from_secs(10), || async {
        let states = api.nodes().await?;
        if states["n2"] == "dead" { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
    eprintln!("shown dead after {:?}", since.elapsed());
    until("both slots have owners again", Duration::from_secs(20), || two_slots(&api, 8)).await;
    let rehomed = now();
    until("some seconds after", Duration::from_secs(10), || async {
        if now() > rehomed + 4.0 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    for poller in pollers {
        let answered = poller.await.unwrap();
        assert!(answered > 20, "{answered} queries answered");
    }
    for node in &nodes[..2] {
        assert_eq!(node.api().vector("probe_value", settled).await.unwrap().len(), 160);
        no_second_is_missing(&node.api(), begin, killed).await;
    }

    nodes[2] = nodes[2].spec.start();
    until("n2 is alive again", Duration::from_secs(20), || api.all_ready(3)).await;
    until("n2 answers as the others", Duration::from_secs(10), || async {
        let ours = nodes[2].api().vector("probe_value", settled).await?;
        if ours == before { Ok(()) } else { Err(format!("{} of {} series", ours.len(), before.len())) }
    })
    .await;
}

async fn exporters(count: usize) -> Vec<Exporter> {
    let mut targets = Vec::new();
    for i in 0..count {
        targets.push(Exporter::start(&format!("t{i}"), Behaviour::Series(20)).await);
    }
    targets
}

/// No second since `begin` is missing or doubled, but for two around the kill.
async fn no_second_is_missing(api: &Api, begin: f64, killed: f64) {
    let end = now() - 2.0;
    let window = (end - begin) as u32;
    for (target, times) in seconds_of(api, end, window).await.unwrap() {
        let unique: BTreeSet<i64> = times.iter().copied().collect();
        assert_eq!(unique.len(), times.len(), "{target}: a second comes twice: {times:?}");
        let missing: Vec<i64> = (times[0]..=times[times.len() - 1]).filter(|t| !unique.contains(t)).collect();
        let near: Vec<&i64> = missing.iter().filter(|t| (**t as f64 - killed).abs() < 20.0).collect();
        assert!(
            near.len() == missing.len() && missing.len() <= 2,
            "{target}: missing {missing:?}, killed at {killed}"
        );
        assert!(times.len() as u32 + 3 >= window, "{target}: {} of {window} seconds", times.len());
    }
}

/// Asks the same question over and over; panics when it fails, shrinks or doubles.
async fn poll(api: Api, settled: f64, count: f64, stop: Arc<AtomicBool>) -> usize {
    let mut answered = 0;
    while !stop.load(Ordering::SeqCst) {
        let n = api.number("count(probe_value)", settled).await.expect("a query failed while a node died");
        assert_eq!(n, count, "the answer changed while a node died");
        answered += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    answered
}
