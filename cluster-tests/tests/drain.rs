//! SIGTERM drains: what a node held in memory is in the bucket before its process ends, and nobody who asks
//! notices that it went.
//!
//! Every target counts its scrapes, so a sample that is lost, doubled or taken from another moment is seen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, scratch, until};
use serde_json::Value;
use tokio::task::JoinHandle;

const INTERVAL_MS: i64 = 1000;
const SERIES: usize = 20;
const DRAIN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(40);
/// A moment this long ago gets no more samples.
const SETTLED_S: f64 = 3.0;

/// Time and value as text, per series.
type Samples = BTreeMap<String, Vec<(i64, String)>>;

/// Everything a node answers up to `at`; an answer with a warning or a doubled sample is an error.
async fn samples(api: &Api, at: f64) -> Result<Samples, String> {
    let data = api.query("probe_value[10m]", at).await?;
    let mut out = Samples::new();
    for s in data["result"].as_array().ok_or("no matrix")? {
        let points = s["values"].as_array().ok_or("no floats")?;
        let read = |p: &Value| {
            let ms = (p[0].as_f64().unwrap_or(0.0) * 1000.0).round() as i64;
            (ms, p[1].as_str().unwrap_or("").to_owned())
        };
        let points: Vec<(i64, String)> = points.iter().map(read).collect();
        if points.windows(2).any(|w| w[0].0 >= w[1].0) {
            return Err(format!("{}: times do not rise", s["metric"]));
        }
        if out.insert(s["metric"].to_string(), points).is_some() {
            return Err(format!("{} comes twice", s["metric"]));
        }
    }
    Ok(out)
}

/// Waits until every series has `count` samples; a settled moment and what is answered for it.
async fn grown(api: &Api, targets: usize, count: usize) -> (f64, Samples) {
    until("enough samples", PATIENCE, || async {
        let at = now() - SETTLED_S;
        let all = samples(api, at).await?;
        let least = all.values().map(Vec::len).min().unwrap_or(0);
        if all.len() == targets * SERIES && least >= count {
            Ok((at, all))
        } else {
            Err(format!("{} series, {least} samples of one", all.len()))
        }
    })
    .await
}

fn assert_gapless(all: &Samples) {
    for (series, points) in all {
        for pair in points.windows(2) {
            assert_eq!(
                pair[1].0 - pair[0].0,
                INTERVAL_MS,
                "{series} between {:?} and {:?}",
                pair[0],
                pair[1]
            );
        }
    }
}

/// Oldest and newest moment of a head.
async fn head_range(api: &Api) -> (i64, i64) {
    let data = api.data("/api/v1/status/tsdb", &[]).await.expect("status");
    let at = |key: &str| data["headStats"][key].as_i64().expect("a time");
    (at("minTime"), at("maxTime"))
}

/// `[min, max)` of all complete blocks.
fn block_ranges(bucket: &Path) -> Vec<(i64, i64)> {
    let entries = std::fs::read_dir(bucket).into_iter().flatten().flatten();
    let read = |e: std::fs::DirEntry| {
        let meta: Value = serde_json::from_slice(&std::fs::read(e.path().join("meta.json")).ok()?).ok()?;
        Some((meta["minTime"].as_i64()?, meta["maxTime"].as_i64()?))
    };
    entries.filter_map(read).collect()
}

async fn targets(count: usize) -> Vec<Exporter> {
    let mut list = Vec::new();
    for i in 0..count {
        list.push(Exporter::start(&format!("t{i}"), Behaviour::Series(SERIES)).await);
    }
    list
}

fn write_config(path: &Path, targets: &[Exporter]) {
    let list: Vec<String> = targets.iter().map(|t| format!("'{}'", t.addr)).collect();
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs: [{{job_name: probe, static_configs: [{{targets: [{}]}}]}}]\n",
        list.join(", ")
    );
    std::fs::write(path, text).expect("configuration");
}

/// SIGTERM, and the end within the promised time.
fn drain(node: &mut Node) {
    let start = Instant::now();
    node.terminate();
    let status = node.wait(DRAIN);
    assert!(status.is_some_and(|s| s.success()), "{}: {status:?}\n{}", node.spec.name, node.log());
    eprintln!("{} drained in {:?}", node.spec.name, start.elapsed());
}

/// Waits until a node sees another one ready.
async fn knows(api: &Api, name: &str) {
    until("the news of a ready node", PATIENCE, || async {
        let nodes = api.nodes().await?;
        if nodes.get(name).is_some_and(|s| s == "ready") { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
}

/// Asks again and again until it is told to stop; how many answers there were.
///
/// Fails on an answer that is neither complete nor says that it is not.
struct Asker {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl Asker {
    fn start(api: &Api, at: f64, expected: &Samples) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (api, expected, stopped) = (api.clone(), expected.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let (mut complete, mut partial) = (0, Vec::new());
            while !stopped.load(Ordering::Acquire) {
                match samples(&api, at).await {
                    Ok(found) => {
                        assert_eq!(found, expected, "a silently different answer");
                        complete += 1;
                    }
                    Err(why) => partial.push(why),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (complete, partial)
        });
        Self { stop, task }
    }

    async fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Release);
        self.task.await.expect("no silently different answer")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_leaves_nothing_behind() {
    let root = scratch();
    let exporters = targets(3).await;
    let (config, objstore) = (root.path().join("prometheus.yml"), root.path().join("bucket.yml"));
    let bucket = root.path().join("bucket");
    write_config(&config, &exporters);
    let text = format!("type: FILESYSTEM\nconfig:\n  directory: {}\n", bucket.display());
    std::fs::write(&objstore, text).expect("bucket file");
    let on_bucket = |name: &str| {
        let spec = NodeSpec::new(name, root.path()).config(&config);
        spec.arg(format!("--objstore.config-file={}", objstore.display()))
    };
    let first = on_bucket("a");
    let second = on_bucket("b").join(&first);
    let (mut a, mut b) = (first.start(), second.start());
    let (api_a, api_b) = (a.api(), b.api());
    until("two ready nodes", PATIENCE, || api_b.all_ready(2)).await;
    until("two ready nodes", PATIENCE, || api_a.all_ready(2)).await;

    let (at, before) = grown(&api_b, 3, 12).await;
    assert_eq!(samples(&api_a, at).await.expect("complete"), before, "both nodes answer the same");
    let head = head_range(&api_a).await;
    assert!(block_ranges(&bucket).is_empty(), "nothing is old enough to be cut");
    let asker = Asker::start(&api_b, at, &before);
    drain(&mut a);
    let ranges = block_ranges(&bucket);
    assert!(
        ranges.iter().any(|(min, _)| *min <= head.0) && ranges.iter().any(|(_, max)| *max > head.1),
        "{ranges:?} do not cover {head:?}"
    );
    until("b knows that a left", PATIENCE, || async {
        let nodes = api_b.nodes().await?;
        let states = (nodes.get("a").map(String::as_str), nodes.get("b").map(String::as_str));
        if states == (Some("left"), Some("ready")) { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    let (complete, partial) = asker.stop().await;
    eprintln!(
        "asked while a drained: {complete} complete answers, {} openly not: {partial:?}",
        partial.len()
    );
    assert!(complete > 20 && partial.is_empty(), "{complete} complete answers; {partial:?}");
    assert_eq!(samples(&api_b, at).await.expect("complete without a"), before, "b answers for a");

    // Scraping went on through the handover.
    let (_, through) = grown(&api_b, 3, before.values().map(Vec::len).max().unwrap_or(0) + 12).await;
    assert_gapless(&through);

    // A node with an empty head: first beside b, then with nothing but the bucket.
    let third = on_bucket("c").join(&second);
    let c = third.start();
    let api_c = c.api();
    until("c and b are ready, a has left", PATIENCE, || async {
        let nodes = api_c.nodes().await?;
        let ready = nodes.values().filter(|s| *s == "ready").count();
        if ready == 2 { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    assert_eq!(samples(&api_c, at).await.expect("complete beside b"), before);
    knows(&api_b, "c").await;
    drain(&mut b);
    until("c alone answers", PATIENCE, || async {
        let found = samples(&api_c, at).await?;
        assert_eq!(found, before, "a silently different answer");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_comes_back_with_everything_once() {
    let root = scratch();
    let exporters = targets(2).await;
    let config = root.path().join("prometheus.yml");
    write_config(&config, &exporters);
    let spec = NodeSpec::new("solo", root.path()).config(&config);
    let mut node = spec.start();
    node.ready().await;
    let (at, before) = grown(&node.api(), 2, 8).await;
    assert_gapless(&before);
    for round in 0..2 {
        drain(&mut node);
        assert!(!block_ranges(&spec.dir.join("bucket")).is_empty(), "the head is in the bucket");
        node = spec.start();
        node.ready().await;
        assert_eq!(samples(&node.api(), at).await.expect("complete"), before, "start {round}");
    }
    // What was scraped between two drains is there as well, and nothing came twice: `samples` checks it.
    let longest = before.values().map(Vec::len).max().unwrap_or(0);
    let (_, after) = grown(&node.api(), 2, longest + 5).await;
    for (series, points) in &before {
        assert_eq!(after[series][..points.len()], points[..], "{series}");
    }
}
