//! Remote write against a real node: every status rule with requests made by hand, and a real Prometheus as sender.

use std::path::Path;
use std::time::Duration;

use koios_cluster_tests::api::{Vector, now};
use koios_cluster_tests::binary::peer;
use koios_cluster_tests::push::{Push, Reply, V1, V2, ms, named, series};
use koios_cluster_tests::{Api, Exporter, Node, NodeSpec, exporter::Behaviour, peers, scratch, until};
use koios_proto::{prometheus as v1, write_v2 as v2};
use prost::Message;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
/// A node that is pushed to.
struct Site {
    node: Node,
    api: Api,
    _root: tempfile::TempDir,
}

impl Site {
    async fn start(flags: &[&str]) -> Self {
        let root = scratch();
        let mut spec = NodeSpec::new("solo", root.path());
        for flag in flags {
            spec = spec.arg(*flag);
        }
        let node = spec.start();
        node.ready().await;
        Self { api: node.api(), node, _root: root }
    }

    async fn push(&self, push: Push) -> Reply {
        push.to(self.node.spec.http()).await.expect("an answer")
    }

    async fn send(&self, series: Vec<v1::TimeSeries>) -> Reply {
        self.push(Push::v1(series)).await
    }
}

#[tokio::test]
async fn what_a_request_must_look_like() {
    let site = Site::start(&[]).await;
    let t = ms();
    let good = Push::v1(vec![named("shape", &[(t, 1.0)])]);
    for path in ["/api/v1/write", "/api/v1/push", "/api/v1/receive"] {
        let r = site.push(Push { path, ..good.clone() }).await;
        assert_eq!((r.status, r.body.as_str(), r.written), (204, "", [None; 3]), "{path}");
    }
    let snappy = ("Content-Encoding", "snappy");
    let table: &[(&[(&str, &str)], u16)] = &[
        (&[("Content-Type", "application/x-protobuf;proto=prometheus.WriteRequest"), snappy], 204),
        (&[("Content-Type", V1)], 204),
        (&[snappy], 204),
        (&[("Content-Type", "application/json"), snappy], 415),
        (&[("Content-Type", "application/x-protobuf;proto=prometheus.Unknown"), snappy], 415),
        (&[("Content-Type", "application/x-protobuf;proto"), snappy], 415),
        (&[("Content-Type", V1), ("Content-Encoding", "gzip")], 415),
    ];
    for (headers, status) in table {
        let r = site.push(good.clone().headers(headers)).await;
        assert_eq!(r.status, *status, "{headers:?}: {r:?}");
        assert_eq!(r.written, [None; 3], "{headers:?}");
    }
    // Not snappy; snappy but not protobuf; more than may be unpacked; more than may be sent.
    let pack = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).expect("packs");
    let bodies = [
        (vec![], "not valid snappy"),
        (b"plain text".to_vec(), "not valid snappy"),
        (pack(b"\xff\xff\xff"), "broken protobuf"),
        (pack(&vec![0; (32 << 20) + 1]), "more than 33554432 bytes"),
        (vec![1; (32 << 20) + 1], "more than 33554432 bytes"),
    ];
    for (body, word) in bodies {
        for (content_type, written) in [(V1, [None; 3]), (V2, [Some(0); 3])] {
            let headers = vec![("Content-Type", content_type), snappy];
            let r = site.push(Push { headers, body: body.clone(), path: "/api/v1/write" }).await;
            assert!(r.status == 400 && r.body.contains(word), "{word}: {r:?}");
            assert_eq!(r.written, written, "{word}");
        }
    }
    let (status, _) = site.api.get("/api/v1/write", &[]).await.expect("an answer");
    assert_eq!(status, 405);
    assert_eq!(site.api.number("shape", now()).await, Ok(1.0));
}

#[tokio::test]
async fn vmagents_own_protocol() {
    let site = Site::start(&[]).await;
    let request = v1::WriteRequest { timeseries: vec![named("vm", &[(ms(), 2.0)])], metadata: Vec::new() };
    let headers =
        [("Content-Type", V1), ("Content-Encoding", "zstd"), ("X-VictoriaMetrics-Remote-Write-Version", "1")];
    let body = zstd::encode_all(&request.encode_to_vec()[..], 3).expect("packs");
    let push = Push { path: "/api/v1/write", headers: headers.to_vec(), body };
    assert_eq!(site.push(push.clone()).await.status, 204);
    assert_eq!(site.api.number("vm", now()).await, Ok(2.0));
    let bad =
        v1::WriteRequest { timeseries: vec![named("vm", &[(ms() + 3_600_000, 2.0)])], metadata: Vec::new() };
    let body = zstd::encode_all(&bad.encode_to_vec()[..], 3).expect("packs");
    assert_eq!(site.push(Push { body, ..push.clone() }).await.status, 409, "400 would mean: speak snappy");
    assert_eq!(site.push(Push { body: b"no zstd".to_vec(), ..push }).await.status, 409);
}

#[tokio::test]
async fn good_samples_are_stored_and_bad_ones_named() {
    let site = Site::start(&[]).await;
    let t = ms();
    assert_eq!(
        site.send(vec![named("a", &[(t - 20, 1.0), (t - 10, 2.0)]), named("b", &[(t, 1.0)])]).await.status,
        204
    );
    // All of it again, the middle of a series too.
    assert_eq!(
        site.send(vec![named("a", &[(t - 20, 1.0), (t - 10, 2.0)]), named("b", &[(t, 1.0)])]).await.status,
        204
    );
    // Late, but within the window.
    assert_eq!(site.send(vec![named("a", &[(t - 600_000, 0.5)])]).await.status, 204);
    let hour = 3_600_000;
    let mixed = vec![
        named("a", &[(t - hour, 9.0), (t, 3.0)]),
        named("b", &[(t, 7.0)]),
        named("c", &[(t + 660_000, 1.0)]),
        named("d", &[(t, 4.0)]),
    ];
    let r = site.send(mixed).await;
    assert_eq!((r.status, r.written), (400, [None; 3]));
    let first = r.body.lines().next().expect("a line");
    assert!(first.starts_with("3 refused, 2 stored: "), "{first}");
    for word in
        ["1 too old sample", "1 duplicate sample for timestamp", "1 out of bounds: too far in the future"]
    {
        assert!(first.contains(word), "{word}: {first}");
    }
    assert!(r.body.contains("a{job=\"push\"} at "), "{}", r.body);
    let at = now();
    assert_eq!(site.api.number("count_over_time(a[1h])", at).await, Ok(4.0));
    assert_eq!(site.api.number("d", at).await, Ok(4.0));
    assert_eq!(site.api.number("b", at).await, Ok(1.0));
    assert!(
        site.api.vector("last_over_time(c[20m] @ end() offset -15m)", at).await.expect("a vector").is_empty()
    );
    // What is just within 10 minutes is taken.
    assert_eq!(site.send(vec![named("c", &[(ms() + 590_000, 1.0)])]).await.status, 204);
    let (_, metrics) = site.api.get("/metrics", &[]).await.expect("metrics");
    let line = "koios_remote_write_samples_rejected_total{reason=\"too_old\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn labels_as_senders_send_them() {
    let site = Site::start(&[]).await;
    let t = ms();
    let at = [(t, 1.0)];
    let r = site
        .send(vec![
            series(&[("z", "1"), ("__name__", "sorted"), ("a", "1"), ("empty", "")], &at),
            series(&[("__name__", "twice"), ("a", "1"), ("a", "2")], &at),
            series(&[("__name__", "unnamed"), ("", "1")], &at),
            series(&[("nameless", "1")], &at),
            series(&[("__name__", "utf.8 näme"), ("lä bel", "x")], &at),
        ])
        .await;
    assert_eq!((r.status, r.body.as_str()), (204, ""), "version 1 drops what it cannot store");
    let found =
        site.api.vector("count by (__name__) ({__name__=~\"sorted|twice|unnamed|utf.*\"})", now()).await;
    assert_eq!(found.as_ref().map(|v| v.len()), Ok(2), "{found:?}");
    assert!(site.api.vector("{nameless=\"1\"}", now()).await.expect("a vector").is_empty());
    assert_eq!(site.api.vector("sorted{a=\"1\",z=\"1\",empty=\"\"}", now()).await.map(|v| v.len()), Ok(1));
    let (_, metrics) = site.api.get("/metrics", &[]).await.expect("metrics");
    assert!(metrics.contains("koios_remote_write_series_dropped_total 3"), "{metrics}");
    // A limit of ours is never silent.
    let long = "x".repeat(20_000);
    let r = site.send(vec![series(&[("__name__", "long"), ("a", &long)], &at)]).await;
    assert!(r.status == 400 && r.body.contains("20000 bytes, at most 16384"), "{r:?}");
}

fn two(series: Vec<v2::TimeSeries>) -> Push {
    let symbols =
        ["", "__name__", "two_total", "job", "push", "trace_id", "t1", "Help text.", "two_native", "a"]
            .map(String::from);
    Push::snappy(V2, &v2::Request { symbols: symbols.to_vec(), timeseries: series }.encode_to_vec())
}

fn float_row(t: i64) -> v2::TimeSeries {
    v2::TimeSeries {
        labels_refs: vec![1, 2, 3, 4],
        samples: vec![v2::Sample { value: 5.0, timestamp: t, start_timestamp: t - 1000 }],
        exemplars: vec![v2::Exemplar { labels_refs: vec![5, 6], value: 0.5, timestamp: t }],
        metadata: Some(v2::Metadata { r#type: 1, help_ref: 7, unit_ref: 0 }),
        ..v2::TimeSeries::default()
    }
}

fn histogram_row(t: i64) -> v2::TimeSeries {
    let h = v2::Histogram {
        count: Some(v2::histogram::Count::CountInt(3)),
        sum: 7.0,
        schema: 0,
        positive_spans: vec![v2::BucketSpan { offset: 0, length: 2 }],
        positive_deltas: vec![1, 1],
        timestamp: t,
        ..v2::Histogram::default()
    };
    v2::TimeSeries { labels_refs: vec![1, 8, 3, 4], histograms: vec![h], ..v2::TimeSeries::default() }
}

#[tokio::test]
async fn version_2_says_what_is_written() {
    let site = Site::start(&[]).await;
    let t = ms();
    for _ in 0..2 {
        let r = site.push(two(vec![float_row(t), histogram_row(t)])).await;
        assert_eq!((r.status, r.written), (204, [Some(1), Some(1), Some(1)]), "repeated or not: {r:?}");
    }
    let bad_refs = v2::TimeSeries { labels_refs: vec![1, 99], ..float_row(t) };
    let twice = v2::TimeSeries { labels_refs: vec![1, 2, 9, 4, 9, 6], ..float_row(t) };
    let empty = v2::TimeSeries { samples: Vec::new(), exemplars: Vec::new(), ..float_row(t) };
    let mut broken = histogram_row(t + 1);
    broken.histograms[0].positive_deltas.push(1);
    let r = site.push(two(vec![bad_refs, twice, empty, broken, float_row(t + 1)])).await;
    assert_eq!((r.status, r.written), (400, [Some(1), Some(0), Some(1)]), "{r:?}");
    let first = r.body.lines().next().expect("a line");
    assert!(
        first.starts_with(
            "4 refused, 1 stored: 1 invalid native histogram, 2 invalid labels, 1 series without samples and histograms"
        ),
        "{first}"
    );
    let at = now();
    assert_eq!(site.api.number("two_total", at).await, Ok(5.0));
    assert_eq!(site.api.number("histogram_count(two_native)", at).await, Ok(3.0));
    assert_eq!(site.api.number("histogram_sum(two_native)", at).await, Ok(7.0));
    let range = [("query", "two_total"), ("start", "0"), ("end", &format!("{}", at + 60.0))];
    let exemplars = site.api.data("/api/v1/query_exemplars", &range).await.expect("exemplars");
    assert_eq!(exemplars[0]["exemplars"][0]["labels"]["trace_id"], "t1", "{exemplars}");
    let metadata = site.api.data("/api/v1/metadata", &[("metric", "two_total")]).await.expect("metadata");
    assert_eq!(metadata["two_total"][0]["help"], "Help text.", "{metadata}");
}

#[tokio::test]
async fn stale_markers_and_histograms_of_every_kind() {
    let site = Site::start(&[]).await;
    let t = ms();
    let custom = v1::Histogram {
        count: Some(v1::histogram::Count::CountFloat(4.0)),
        sum: 6.0,
        schema: -53,
        positive_spans: vec![v1::BucketSpan { offset: 0, length: 3 }],
        positive_counts: vec![1.0, 2.0, 1.0],
        custom_values: vec![1.0, 2.0],
        timestamp: t - 1000,
        ..v1::Histogram::default()
    };
    let histogram =
        |h: &v1::Histogram| v1::TimeSeries { histograms: vec![h.clone()], ..named("custom", &[]) };
    let r = site.send(vec![histogram(&custom), named("gone", &[(t - 1000, 1.0)])]).await;
    assert_eq!(r.status, 204, "{r:?}");
    let before = (t - 500) as f64 / 1000.0;
    assert_eq!(site.api.number("histogram_count(custom)", before).await, Ok(4.0));
    assert_eq!(site.api.number("histogram_quantile(0.5, custom)", before).await, Ok(1.5));
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let marker = v1::Histogram { sum: stale, timestamp: t, ..v1::Histogram::default() };
    let r = site.send(vec![histogram(&marker), named("gone", &[(t, stale)])]).await;
    assert_eq!(r.status, 204, "{r:?}");
    for name in ["custom", "gone"] {
        let count = format!("count({name})");
        assert_eq!(site.api.number(&count, before).await, Ok(1.0), "{name}");
        assert_eq!(site.api.vector(&count, now()).await.map(|v| v.len()), Ok(0), "{name} ended");
    }
}

#[tokio::test]
async fn a_series_that_is_scraped_and_pushed_is_one_series() {
    let site = Site::start(&[]).await;
    let scraped = until("the node's own scrape", PATIENCE, || async {
        let data = site.api.query("up", now()).await?;
        data["result"][0]["metric"].as_object().cloned().ok_or_else(|| data.to_string())
    })
    .await;
    let labels: Vec<(&str, &str)> =
        scraped.iter().map(|(n, v)| (n.as_str(), v.as_str().expect("text"))).collect();
    let t = ms();
    assert_eq!(site.send(vec![series(&labels, &[(t - 2, 1.0), (t - 1, 1.0)])]).await.status, 204);
    let at = now();
    assert_eq!(site.api.vector("up", at).await.map(|v| v.len()), Ok(1));
    let n = site.api.number("count_over_time(up[5m])", at).await.expect("one series");
    assert!(n >= 3.0, "{n}: both are in it");
}

#[tokio::test]
async fn what_is_switched_off() {
    let site = Site::start(&["--web.enable-remote-write-receiver=false"]).await;
    let r = site.send(vec![named("off", &[(ms(), 1.0)])]).await;
    assert_eq!(r.status, 404);
    assert_eq!(r.body, "remote write receiver needs to be enabled with --web.enable-remote-write-receiver\n");

    let flag = "--web.remote-write-receiver.accepted-protobuf-messages=io.prometheus.write.v2.Request";
    let site = Site::start(&["--web.enable-remote-write-receiver", flag]).await;
    assert_eq!(site.send(vec![named("one", &[(ms(), 1.0)])]).await.status, 415);
    assert_eq!(site.push(two(vec![float_row(ms())])).await.status, 204);
}

/// Pushes one sample after the other to each of some series until the node is gone; answers the acknowledged times.
async fn pusher(http: std::net::SocketAddr, name: String) -> Vec<i64> {
    let mut acked = Vec::new();
    let mut t = ms();
    loop {
        t = (t + 1).max(ms());
        let batch = (0..20).map(|i| series(&[("__name__", &name), ("i", &i.to_string())], &[(t, t as f64)]));
        match Push::v1(batch.collect()).to(http).await {
            Ok(Reply { status: 204, .. }) => acked.push(t),
            Ok(reply) => assert_eq!(reply.status, 503, "{reply:?}"),
            Err(_) => return acked,
        }
    }
}

async fn results_of<T>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut all = Vec::new();
    for task in tasks {
        all.push(tokio::time::timeout(PATIENCE, task).await.expect("an end in time").expect("no panic"));
    }
    all
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    acknowledged_is_kept(Node::kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_planned_stop() {
    acknowledged_is_kept(|node| {
        node.terminate();
        // The pushers go on meanwhile, so the wait must not keep them from it.
        tokio::task::block_in_place(|| {
            assert!(node.wait(PATIENCE).is_some_and(|s| s.success()), "it drains")
        });
    })
    .await;
}

/// Pushes from four sides while a node is ended in some way, twice.
async fn acknowledged_is_kept(end: fn(&mut Node)) {
    let mut site = Site::start(&[]).await;
    for round in 0..2 {
        let pushers: Vec<_> = (0..4)
            .map(|p| tokio::spawn(pusher(site.node.spec.http(), format!("kill_{round}_{p}"))))
            .collect();
        let http = site.node.spec.http();
        until("some acknowledged samples", PATIENCE, || async {
            let api = Api::new(http);
            for p in 0..4 {
                let n =
                    api.number(&format!("count_over_time(kill_{round}_{p}{{i=\"0\"}}[1m])"), now()).await?;
                // One may be stored whose acknowledgement the kill cuts off.
                if n < 31.0 {
                    return Err(format!("pusher {p} has {n}"));
                }
            }
            Ok(())
        })
        .await;
        end(&mut site.node);
        // They end where nobody answers, so before the node is back.
        let acked = results_of(pushers).await;
        let spec = site.node.spec.clone();
        site.node = spec.start();
        site.node.ready().await;
        for (p, acked) in acked.into_iter().enumerate() {
            let kept = site.api.query(&format!("kill_{round}_{p}[5m]"), now()).await.expect("samples");
            let kept = kept["result"].as_array().expect("series");
            assert_eq!((kept.len(), acked.len() >= 30), (20, true));
            for series in kept {
                let times: std::collections::BTreeSet<i64> = series["values"]
                    .as_array()
                    .expect("values")
                    .iter()
                    .map(|v| (v[0].as_f64().expect("a time") * 1000.0).round() as i64)
                    .collect();
                let lost: Vec<_> = acked.iter().filter(|t| !times.contains(t)).collect();
                assert!(lost.is_empty(), "{} of {} acknowledged samples are gone", lost.len(), acked.len());
            }
        }
    }
}

fn sender_config(dir: &Path, target: &str, koios: &Node) -> std::path::PathBuf {
    let path = dir.join("sender.yml");
    let text = format!(
        "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\n\
         scrape_configs:\n  - job_name: pushed\n    static_configs: [{{targets: ['{target}']}}]\n\
         remote_write:\n  - url: http://{}/api/v1/write\n    \
         queue_config: {{batch_send_deadline: 200ms}}\n    metadata_config: {{send_interval: 500ms}}\n",
        koios.spec.http()
    );
    std::fs::write(&path, text).expect("configuration");
    path
}

/// Raw samples of a job, by series.
async fn raw(api: &Api, time: f64) -> Result<std::collections::BTreeMap<String, Value>, String> {
    let data = api.query("{job=\"pushed\"}[10s]", time).await?;
    let result = data["result"].as_array().ok_or("no result")?;
    Ok(result.iter().map(|s| (s["metric"].to_string(), s["values"].clone())).collect())
}

#[tokio::test]
async fn a_real_prometheus_sends_everything() {
    if !peer("prometheus") {
        return;
    }
    let site = Site::start(&[]).await;
    let dir = scratch();
    // Node exporter where there is one: hundreds of series of every shape.
    let exporter = peer("prometheus-node-exporter").then(peers::node_exporter);
    let made = Exporter::start("made", Behaviour::Series(50)).await;
    let target = exporter.as_ref().map_or(made.addr.to_string(), |e| format!("127.0.0.1:{}", e.port));
    let config = sender_config(dir.path(), &target, &site.node);
    let prometheus = peers::prometheus(&dir.path().join("data"), &config);
    let theirs = Api::new(([127, 0, 0, 1], prometheus.port).into());
    let time = until("ten seconds of scrapes", PATIENCE, || async {
        let n = theirs.number("count_over_time(up{job=\"pushed\"}[1m])", now()).await?;
        if n >= 20.0 { Ok(now()) } else { Err(format!("{n} scrapes")) }
    })
    .await;
    // The sender skips what it scraped before its queue was up; from then on nothing is missing.
    until("the same samples on both", PATIENCE, || async {
        let (sent, kept) = (raw(&theirs, time).await?, raw(&site.api, time).await?);
        if sent.len() < 5 || sent.len() != kept.len() {
            return Err(format!("{} series sent, {} kept", sent.len(), kept.len()));
        }
        match sent.iter().find(|(labels, values)| kept.get(*labels) != Some(*values)) {
            Some((labels, values)) => {
                Err(format!("{labels}: {values} was sent, {:?} kept", kept.get(labels)))
            }
            None => Ok(()),
        }
    })
    .await;
    let count = "count by (__name__) ({job=\"pushed\"})";
    let of = |v: Result<Vector, String>| v.expect("a vector");
    assert_eq!(of(site.api.vector(count, time).await), of(theirs.vector(count, time).await));
    let sum = "sum by (__name__) ({job=\"pushed\"})";
    let (ours, theirs) = (of(site.api.vector(sum, time).await), of(theirs.vector(sum, time).await));
    assert!(ours.len() > 3 && ours.keys().eq(theirs.keys()), "{ours:?} {theirs:?}");
    for (name, sum) in &ours {
        let (a, b): (f64, f64) = (sum.parse().expect("a number"), theirs[name].parse().expect("a number"));
        assert!((a - b).abs() <= b.abs() * 1e-9 || (a.is_nan() && b.is_nan()), "{name}: {a} {b}");
    }
    until("metadata", PATIENCE, || async {
        let data = site.api.data("/api/v1/metadata", &[]).await?;
        let families = data.as_object().map_or(0, |m| m.len());
        if families > 0 { Ok(()) } else { Err(data.to_string()) }
    })
    .await;
    prometheus.end(PATIENCE);
}
