//! What people see of a cluster: page, text, JSON, events and metrics tell the truth within seconds, and whether a node
//! may stop is told before it is stopped.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, scratch, until};
use serde_json::Value;

const START: Duration = Duration::from_secs(30);
/// Gossip at one second finds a death after five to eight.
const SEEN: Duration = Duration::from_secs(15);

/// Three nodes on one bucket that scrape one target; gossip interval of a second unless `quick`.
struct Cluster {
    nodes: Vec<Node>,
    _target: Exporter,
    instance: String,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start(quick: bool) -> Self {
        let dir = scratch();
        let target = Exporter::start("seen", Behaviour::Series(3)).await;
        let (config, bucket) = files(dir.path(), &target, quick);
        let spec = |name: &str| {
            NodeSpec::new(name, dir.path())
                .config(&config)
                .arg(format!("--objstore.config-file={}", bucket.display()))
                .arg("--web.enable-lifecycle")
        };
        let first = spec("n1");
        let specs = [first.clone(), spec("n2").join(&first), spec("n3").join(&first)];
        let nodes: Vec<Node> = specs.iter().map(NodeSpec::start).collect();
        for node in &nodes {
            until("three ready nodes", START, || {
                let api = node.api();
                async move { api.all_ready(3).await }
            })
            .await;
        }
        let instance = target.addr.to_string();
        Self { nodes, _target: target, instance, _dir: dir }
    }

    fn api(&self, n: usize) -> Api {
        self.nodes[n].api()
    }
}

fn files(dir: &Path, target: &Exporter, quick: bool) -> (PathBuf, PathBuf) {
    let (config, bucket) = (dir.join("prometheus.yml"), dir.join("bucket.yml"));
    let gossip = if quick { "koios: {cluster: {gossip_interval: 200ms}}\n" } else { "" };
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n{gossip}\
         scrape_configs: [{{job_name: probe, static_configs: [{{targets: ['{}']}}]}}]\n",
        target.addr
    );
    std::fs::write(&config, text).expect("configuration");
    let text = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", dir.join("bucket").display());
    std::fs::write(&bucket, text).expect("bucket file");
    (config, bucket)
}

async fn page(api: &Api) -> Result<String, String> {
    Ok(api.get("/cluster", &[]).await?.1)
}

/// Waits until a text has all of `parts`.
async fn says(what: &str, patience: Duration, api: &Api, path: &str, parts: &[&str]) -> String {
    until(what, patience, || async {
        let text = api.get(path, &[]).await?.1;
        match parts.iter().find(|p| !text.contains(**p)) {
            None => Ok(text),
            Some(part) => Err(format!("no {part:?} in {text}")),
        }
    })
    .await
}

/// A stream of events, read until one line holds `part`.
async fn streamed(spec: &NodeSpec, part: &'static str) -> tokio::task::JoinHandle<Result<String, String>> {
    let url = format!("http://{}/api/v1/cluster/events/stream", spec.http());
    let client = reqwest::Client::new();
    // Compression would hold events back if the node did not refuse it here.
    let request = client.get(url).header("Accept-Encoding", "gzip").timeout(Duration::from_secs(40));
    let mut answer = request.send().await.expect("a stream");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let first = answer.chunk().await.expect("a first part").expect("not the end");
    assert!(first.starts_with(b"retry: "), "{first:?}");
    tokio::spawn(async move {
        let mut all = String::new();
        loop {
            let chunk = answer.chunk().await.map_err(|e| format!("{e}; so far {all}"))?;
            let Some(chunk) = chunk else { return Err(format!("ended: {all}")) };
            all.push_str(&String::from_utf8_lossy(&chunk));
            if let Some(line) = all.lines().find(|l| l.contains(part)) {
                return Ok(line.to_owned());
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_seen_everywhere_within_seconds() {
    let mut c = Cluster::start(false).await;
    let api = c.api(0);
    says(
        "it is well",
        START,
        &api,
        "/cluster",
        &["all 3 nodes are ready", "all views agree (3/3)", "coverage"],
    )
    .await;
    says("a node may stop", START, &api, "/-/safe-to-stop", &["yes: n1 may stop"]).await;
    let stream = streamed(&c.nodes[0].spec, "n3 ready → dead").await;
    let killed = Instant::now();
    c.nodes[2].kill();
    let parts = ["2 of 3 nodes are ready; n3 is dead for", "start it again", "n3 ready → dead"];
    let text = says("the text says who and what to do", SEEN, &api, "/cluster", &parts).await;
    eprintln!("seen after {:?}\n{text}", killed.elapsed());

    let line =
        tokio::time::timeout(SEEN, stream).await.expect("in time").expect("no panic").expect("the event");
    let event: Value = serde_json::from_str(line.strip_prefix("data: ").expect("data")).expect("JSON");
    assert_eq!((&event["kind"], &event["node"]), (&"member".into(), &"n3".into()));
    let data = api.data("/api/v1/cluster", &[]).await.expect("the picture");
    assert_eq!((&data["health"]["level"], &data["health"]["state"]), (&"degraded".into(), &"amber".into()));
    assert_eq!(data["nodes"][2]["state"], "dead");
    let seq = event["seq"].as_u64().expect("a number");
    let before = (seq - 1).to_string();
    let list = api.data("/api/v1/cluster/events", &[("since", &before)]).await.expect("events");
    assert_eq!(list["events"][0], event);
    let weak = api.data("/api/v1/cluster/coverage", &[("hours", "1")]).await.expect("coverage");
    assert!(weak["weak"].to_string().contains("n3 is dead"), "{weak}");

    let (status, why) = api.get("/-/safe-to-stop", &[]).await.expect("an answer");
    assert!(status == 409 && why.contains("remote write would be refused: 1 of 3"), "{status} {why}");
    let metrics = api.get("/metrics", &[]).await.expect("metrics").1;
    for want in [
        "koios_cluster_health{state=\"degraded\"} 1",
        "koios_safe_to_stop 0",
        "koios_gossip_ids_live 2",
        "koios_gossip_ids_dead 1",
    ] {
        assert!(metrics.contains(want), "no {want} in {metrics}");
    }

    c.nodes[1].kill();
    let parts = [
        "broken: 1 of 3 nodes are ready",
        "n2 and n3 are dead",
        "bring n2 or n3 back",
        "remote write is refused",
    ];
    let text = says("two of three is one too many", SEEN, &api, "/cluster", &parts).await;
    assert!(text.contains('✖'), "{text}");
    // The ones that come back heal it.
    c.nodes[1] = c.nodes[1].spec.start();
    c.nodes[2] = c.nodes[2].spec.start();
    says("it is well again", START, &api, "/cluster", &["all 3 nodes are ready", "started again"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_over_http_is_a_drain() {
    let mut c = Cluster::start(true).await;
    let api = c.api(0);
    let (status, body) = api.get("/-/drain", &[]).await.expect("an answer");
    assert_eq!(status, 405, "{body}");
    says("n3 may stop", START, &c.api(2), "/-/safe-to-stop", &["yes: n3 may stop"]).await;
    // An open stream must not hold the process.
    let stream = streamed(&c.nodes[2].spec, "there is no such event").await;
    let (status, body) = c.api(2).post_form("/-/drain", "").await.expect("an answer");
    assert!(status == 202 && body.contains("draining"), "{status} {body}");
    let ended = c.nodes[2].wait(Duration::from_secs(30));
    assert!(ended.is_some_and(|s| s.success()), "{ended:?}\n{}", c.nodes[2].log());
    assert!(stream.await.expect("no panic").is_err(), "the stream ended");
    let parts = ["→ left", "all 2 nodes are ready"];
    says("the others see it leave", SEEN, &api, "/cluster", &parts).await;
    says("of two, one may stop", SEEN, &api, "/-/safe-to-stop", &["yes: n1 may stop"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_explained() {
    let c = Cluster::start(true).await;
    let api = c.api(1);
    let owned = until("both slots are scraped by their owners", START, || async {
        let data = api.data("/api/v1/cluster/ownership", &[]).await?;
        let whole = data["uncovered"] == 0 && data["double"] == 0 && data["slots"] == 2;
        // A moment after the last join, who answers may know of an owner that the old one has not heard of.
        let by_owner =
            |s: &serde_json::Value| s["scrapers"].as_array().is_some_and(|n| *n == [s["owner"].clone()]);
        let slots = data["targets"][0]["slots"].as_array();
        let well = whole && slots.is_some_and(|s| s.iter().all(by_owner));
        if well { Ok(data) } else { Err(data.to_string()) }
    })
    .await;
    let slots = &owned["targets"][0]["slots"];
    assert_eq!(slots[0]["scrapers"][0], slots[0]["owner"], "{owned}");
    assert_ne!(slots[0]["owner"], slots[1]["owner"], "{owned}");

    let target = until("all three have a rank", START, || async {
        let data = api.data("/api/v1/cluster/explain", &[("target", &c.instance)]).await?;
        let ranked = data["targets"][0]["rank"].as_array().map(Vec::len);
        if ranked == Some(3) { Ok(data) } else { Err(data.to_string()) }
    })
    .await;
    assert_eq!(target["targets"][0]["owners"][0], slots[0]["owner"]);
    let query = api.data("/api/v1/cluster/explain", &[("query", "sum(probe_value)")]).await.expect("a query");
    assert_eq!(query["selects"][0]["ask"].as_array().map(Vec::len), Some(3), "{query}");
    let (status, body) = api.get("/api/v1/cluster/explain", &[]).await.expect("an answer");
    assert!(status == 400 && body.contains("explain wants either query"), "{body}");
    assert_eq!(api.get("/api/v1/cluster/explain", &[("target", "no")]).await.expect("an answer").0, 404);
    assert_eq!(api.get("/api/v1/cluster/coverage", &[("hours", "x")]).await.expect("an answer").0, 400);
    assert_eq!(api.get("/api/v1/cluster/events", &[("since", "x")]).await.expect("an answer").0, 400);
    let nodes = api.data("/api/v1/cluster/nodes", &[]).await.expect("nodes");
    assert!(nodes["nodes"].as_array().is_some_and(|n| n.iter().all(|n| n["reachable"] == true)), "{nodes}");

    command(&c, &["status"], &["all 3 nodes are ready", "n2"]).await;
    command(
        &c,
        &["explain", "--query", "probe_value"],
        &["ask n1 for its own data", "{__name__=\"probe_value\"}"],
    )
    .await;
    command(&c, &["explain", "--target", &c.instance], &["slot 0 belongs to", "rank by rendezvous"]).await;
    command(&c, &["safe-to-stop"], &["yes: n2 may stop"]).await;
    html(&c).await;
}

/// `koios cluster …` against the second node, until it says what it should.
async fn command(c: &Cluster, args: &[&str], parts: &[&str]) {
    let url = format!("http://{}", c.nodes[1].spec.http());
    until(&format!("{args:?} says {parts:?}"), START, || async {
        let mut run = std::process::Command::new(koios_cluster_tests::binary::koios());
        let out = run.arg("cluster").args(args).args(["--url", &url]).output().expect("koios runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let well = out.status.success() && parts.iter().all(|p| text.contains(p));
        if well { Ok(()) } else { Err(text) }
    })
    .await;
}

/// The page loads nothing from elsewhere, and its script is its own.
async fn html(c: &Cluster) {
    let base = format!("http://{}", c.nodes[1].spec.http());
    let get = async |path: &str| {
        let request = reqwest::Client::new().get(format!("{base}{path}")).header("Accept", "text/html");
        request.send().await.expect("an answer")
    };
    let page = get("/cluster").await;
    let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    let text = page.text().await.expect("a page");
    assert!(text.contains("all 3 nodes are ready") && text.contains("class=strip"), "{text}");
    assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
    let part = get("/cluster?part=1").await.text().await.expect("a part");
    assert!(part.starts_with("<p class=") && part.contains("<h2>Events</h2>"), "{part}");
    let script = get("/cluster/live.js").await;
    assert_eq!(script.headers()["content-type"], "text/javascript; charset=utf-8");
    assert!(page_text(c).await.contains("served by n2"));
}

async fn page_text(c: &Cluster) -> String {
    page(&c.api(1)).await.expect("text")
}
