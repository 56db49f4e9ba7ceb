//! A node with the only copy of its samples is lost: what it had shipped is read from a peer, each sample once.
//!
//! Two real nodes on one bucket; only `a` takes samples, so they have one copy and its log is shipped. The silence
//! after which a log is adopted is shortened. Losing a node is `kill -9` and, where said, the end of its disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use koios_cluster_tests::api::now;
use koios_cluster_tests::push::{Push, ms, series};
use koios_cluster_tests::{Api, Node, NodeSpec, scratch, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(40);
const SERIES: usize = 20;
const HOUR_MS: i64 = 3_600_000;
/// Shorter than any test.
const SOON: &str = "1500";
/// Longer than a node is away.
const LATE: &str = "40000";

/// Time and value, per series.
type Samples = BTreeMap<String, Vec<(i64, String)>>;

struct Pair {
    bucket: PathBuf,
    a: NodeSpec,
    b: Node,
    silence: &'static str,
    sent: Samples,
}

impl Pair {
    async fn start(dir: &Path, silence: &'static str) -> (Self, Node) {
        let bucket = dir.join("shared");
        let (file, config) = (dir.join("bucket.yml"), dir.join("nodes.yml"));
        let text = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", bucket.display());
        std::fs::write(&file, text).expect("bucket file");
        let text = "global: {scrape_interval: 1s, scrape_timeout: 1s, external_labels: {site: x}}\n\
                    koios: {storage: {ship_interval: 200ms}}\n";
        std::fs::write(&config, text).expect("configuration");
        let spec = |name: &str| {
            NodeSpec::new(name, dir).config(&config).arg(format!("--objstore.config-file={}", file.display()))
        };
        let b = spec("b").arg("--roles=store,query");
        let a = spec("a").join(&b);
        let b = b.start_with(&[("KOIOS_ADOPT_AFTER_MS", silence.to_owned())]);
        b.ready().await;
        let pair = Self { bucket, a, b, silence, sent: Samples::new() };
        let a = pair.run_a().await;
        (pair, a)
    }

    async fn run_a(&self) -> Node {
        let a = self.a.start_with(&[("KOIOS_ADOPT_AFTER_MS", self.silence.to_owned())]);
        a.ready().await;
        until("both ready", PATIENCE, || self.api_b_ready()).await;
        a
    }

    async fn api_b_ready(&self) -> Result<(), String> {
        self.b.api().all_ready(2).await
    }

    /// Pushes `count` moments up to now, the first one `back_ms` ago.
    async fn push(&mut self, a: &Node, back_ms: i64, count: i64) {
        let end = ms();
        for k in 0..count {
            let t = end - back_ms + back_ms * k / count;
            let mut batch = Vec::new();
            for n in 0..SERIES {
                let (id, v) = (format!("{n}"), (t % 1000) as f64 + n as f64);
                batch.push(series(&[("__name__", "kept"), ("n", &id)], &[(t, v)]));
                self.sent.entry(id).or_default().push((t, format!("{v}")));
            }
            let reply = Push::v1(batch).to(a.spec.http()).await.expect("an answer");
            assert_eq!(reply.status, 204, "{}", reply.body);
        }
        self.sent.values_mut().for_each(|points| points.sort_by_key(|(t, _)| *t));
    }

    /// Waits until everything that was acknowledged so far was shipped.
    async fn shipped(&self, a: &Node) {
        let acked = Instant::now();
        let api = a.api();
        until("the log is shipped", PATIENCE, || async {
            let (lag, bytes) = (
                metric(&api, "koios_wal_ship_lag_seconds").await?,
                metric(&api, "koios_wal_shipped_bytes_total").await?,
            );
            let elapsed = acked.elapsed().as_secs_f64();
            // The look that emptied the lag began after the last acknowledgement.
            if bytes > 0.0 && lag + 0.3 < elapsed {
                Ok(())
            } else {
                Err(format!("lag {lag} after {elapsed}"))
            }
        })
        .await;
    }

    /// Whether a node answers exactly what was sent.
    async fn same(&self, node: &Node) -> Result<(), String> {
        let kept = samples(&node.api()).await?;
        if kept == self.sent {
            return Ok(());
        }
        let count = |s: &Samples| s.values().map(Vec::len).sum::<usize>();
        Err(format!("{} of {} samples, {} series", count(&kept), count(&self.sent), kept.len()))
    }

    async fn adopted(&self, node: &Node, times: f64) {
        until("the log is adopted", PATIENCE, || async {
            let n = metric(&node.api(), "koios_wal_adopted_total").await?;
            if n >= times { Ok(()) } else { Err(format!("{n} of {times}")) }
        })
        .await;
    }

    /// Numbers of the logs of `a` that have objects in the bucket.
    fn logs(&self) -> Vec<String> {
        let dir = self.bucket.join("_koios/wal/a");
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let has_some =
            |e: &std::fs::DirEntry| std::fs::read_dir(e.path()).is_ok_and(|mut d| d.next().is_some());
        let mut logs: Vec<String> =
            entries.filter(has_some).map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        logs.sort();
        logs
    }
}

async fn metric(api: &Api, name: &str) -> Result<f64, String> {
    let (_, text) = api.get("/metrics", &[]).await?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.ok_or(format!("no {name}"))?.trim().parse().map_err(|_| format!("{name} is no number"))
}

/// Everything a node answers. That it warns of the lost node, which may have had more than it shipped, is right; a
/// doubled sample is not.
async fn samples(api: &Api) -> Result<Samples, String> {
    let time = format!("{:.3}", now() + 1.0);
    let params = [("query", "kept[6h]"), ("time", &time), ("partial_response", "true")];
    let (status, body) = api.get("/api/v1/query", &params).await?;
    let json: Value = serde_json::from_str(&body).map_err(|_| format!("{status}: {body}"))?;
    let mut out = Samples::new();
    for s in json["data"]["result"].as_array().ok_or(format!("{status}: {body}"))? {
        let read = |p: &Value| {
            let t = (p[0].as_f64().unwrap_or(0.0) * 1000.0).round() as i64;
            (t, p[1].as_str().unwrap_or("").to_owned())
        };
        let points: Vec<(i64, String)> =
            s["values"].as_array().ok_or("no floats")?.iter().map(read).collect();
        if points.windows(2).any(|w| w[0].0 >= w[1].0) {
            return Err(format!("{}: times do not rise", s["metric"]));
        }
        let id = s["metric"]["n"].as_str().unwrap_or("").to_owned();
        if out.insert(id, points).is_some() {
            return Err(format!("{} comes twice", s["metric"]));
        }
    }
    Ok(out)
}

fn lose_disk(a: &mut Node) {
    a.kill();
    std::fs::remove_dir_all(&a.spec.dir).expect("its disk goes");
}

#[tokio::test]
async fn s15_a_peer_adopts_the_log_of_a_lost_node() {
    let dir = scratch();
    let (mut pair, mut a) = Pair::start(dir.path(), SOON).await;
    // Over a border of two hours, so several blocks are made of it.
    pair.push(&a, 4 * HOUR_MS, 40).await;
    pair.push(&a, 10_000, 20).await;
    pair.shipped(&a).await;
    lose_disk(&mut a);
    pair.adopted(&pair.b, 1.0).await;
    until("all samples on the peer", PATIENCE, || pair.same(&pair.b)).await;
    assert!(pair.logs().is_empty(), "the objects are gone: {:?}", pair.logs());
    assert!(metric(&pair.b.api(), "koios_wal_adopted_blocks_total").await.expect("metric") >= 2.0);
    // What was shipped is known to be all but for the window of late samples: no answer before that lacks anything.
    let whole = until("an answer without a warning", PATIENCE, || async {
        pair.b.api().number("count(last_over_time(kept[30m]))", now() - 2.0 * 3600.0).await
    });
    assert_eq!(whole.await, SERIES as f64);
    let (status, text) = pair.b.api().get("/api/v1/query", &[("query", "kept")]).await.expect("an answer");
    assert!(status == 503 && text.contains("a is dead"), "its last moments may be lost: {status} {text}");
}

#[tokio::test]
async fn s15_a_node_that_returns_in_time_goes_on_with_its_log() {
    let dir = scratch();
    let (mut pair, mut a) = Pair::start(dir.path(), LATE).await;
    pair.push(&a, 60_000, 20).await;
    pair.shipped(&a).await;
    let before = pair.logs();
    a.kill();
    let mut a = pair.run_a().await;
    pair.push(&a, 5_000, 10).await;
    pair.shipped(&a).await;
    assert_eq!(pair.logs(), before, "one log all the time");
    for node in [&a, &pair.b] {
        until("all samples", PATIENCE, || pair.same(node)).await;
    }
    // A drain takes the copy away: the head is in blocks then.
    a.terminate();
    let ended = a.wait(PATIENCE);
    assert!(ended.is_some_and(|s| s.success()), "{ended:?}");
    assert!(pair.logs().is_empty(), "{:?}", pair.logs());
    until("all samples on the peer", PATIENCE, || pair.same(&pair.b)).await;
    assert_eq!(metric(&pair.b.api(), "koios_wal_adopted_total").await, Ok(0.0));
}

#[tokio::test]
async fn s15_a_node_that_returns_late_begins_a_new_log() {
    let dir = scratch();
    let (mut pair, mut a) = Pair::start(dir.path(), SOON).await;
    pair.push(&a, 60_000, 20).await;
    pair.shipped(&a).await;
    a.kill();
    pair.adopted(&pair.b, 1.0).await;
    let mut a = pair.run_a().await;
    for node in [&a, &pair.b] {
        until("all samples, each once", PATIENCE, || pair.same(node)).await;
    }
    pair.push(&a, 5_000, 10).await;
    pair.shipped(&a).await;
    assert_eq!(pair.logs().len(), 1, "the adopted log has no objects: {:?}", pair.logs());
    lose_disk(&mut a);
    pair.adopted(&pair.b, 2.0).await;
    until("all samples of both logs", PATIENCE, || pair.same(&pair.b)).await;
}

#[tokio::test]
async fn s15_a_node_that_returns_without_its_disk_adopts_its_own_log() {
    let dir = scratch();
    let (mut pair, mut a) = Pair::start(dir.path(), LATE).await;
    pair.push(&a, 60_000, 20).await;
    pair.shipped(&a).await;
    lose_disk(&mut a);
    let a = pair.run_a().await;
    for node in [&a, &pair.b] {
        until("all samples", PATIENCE, || pair.same(node)).await;
    }
}

/// No bucket has its log: only the other node remembers what it held, in memory, then in its book, and tells it.
#[tokio::test]
async fn s15_a_node_that_returns_without_its_disk_is_told_what_it_alone_held() {
    let dir = scratch();
    let config = dir.path().join("nodes.yml");
    std::fs::write(&config, "global: {scrape_interval: 1s, scrape_timeout: 1s}\n").expect("configuration");
    let spec = |name: &str| NodeSpec::new(name, dir.path()).config(&config);
    let mut b = spec("b").arg("--roles=store,query").start();
    let mut a = spec("a").join(&b.spec).start();
    let both_ready = async |a: &Node, b: &Node| {
        for node in [a, b] {
            until("both ready", PATIENCE, || async { node.api().all_ready(2).await }).await;
        }
    };
    both_ready(&a, &b).await;
    let t = ms();
    let reply = Push::v1(vec![series(&[("__name__", "kept")], &[(t, 1.0)])]).to(a.spec.http()).await;
    assert_eq!(reply.expect("an answer").status, 204);
    let claimed = async |api: Api, kind: &str| -> Result<(), String> {
        let data = api.data("/api/v1/cluster/nodes", &[]).await?;
        let all = data["nodes"].as_array().cloned().unwrap_or_default();
        let ranges =
            all.iter().find(|n| n["name"] == "a").map(|n| n["head"][kind].clone()).unwrap_or_default();
        let covers = |r: &Value| r["from"].as_i64() <= Some(t) && r["until"].as_i64().is_none_or(|u| u >= t);
        if ranges.as_array().into_iter().flatten().any(covers) { Ok(()) } else { Err(data.to_string()) }
    };
    until("b knows that a is alone with it", PATIENCE, || claimed(b.api(), "sole")).await;
    lose_disk(&mut a);
    a = a.spec.start();
    both_ready(&a, &b).await;
    let flagged = async |node: &Node| {
        let at = format!("{:.3}", t as f64 / 1000.0);
        let (status, text) =
            node.api().get("/api/v1/query", &[("query", "kept"), ("time", &at)]).await.expect("an answer");
        assert!(
            status == 503 && text.contains("a lost a part of its data"),
            "{}: {status} {text}",
            node.spec.name
        );
    };
    for node in [&a, &b] {
        flagged(node).await;
    }
    // Both know it from their disks after this.
    for node in [&mut b, &mut a] {
        node.kill();
        *node = node.spec.start();
    }
    both_ready(&a, &b).await;
    for node in [&a, &b] {
        flagged(node).await;
    }
    claimed(a.api(), "holes").await.expect("a says it itself");
    let now = now() + 1.0;
    let fresh = series(&[("__name__", "kept")], &[((now * 1000.0) as i64, 2.0)]);
    assert_eq!(Push::v1(vec![fresh]).to(a.spec.http()).await.expect("an answer").status, 204);
    let (api, at) = (a.api(), format!("{now:.3}"));
    let params = [("query", "kept"), ("time", &at), ("partial_response", "true")];
    let (_, text) = api.get("/api/v1/query", &params).await.expect("an answer");
    assert!(text.contains("\"2\""), "what is new is there");
}
