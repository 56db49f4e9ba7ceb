//! Hostile targets cost their own scrape only, say why on `/targets`, and cannot fill the node's memory.
//!
//! One node scrapes a good target beside fourteen bad ones. The good one must not miss a single scrape.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use koios_cluster_tests::api::now;
use koios_cluster_tests::exporter::Behaviour;
use koios_cluster_tests::{Api, Exporter, NodeSpec, free_ports, scratch, until};

const MEMORY_MAX: u64 = 400 << 20;
const ROUNDS: usize = 12;
const INTERVAL_MS: i64 = 1000;

/// A bad target, the limits of its job, and a part of the reason that must be shown; `|` parts alternatives.
struct Bad {
    job: &'static str,
    behaviour: Behaviour,
    limits: &'static str,
    reason: &'static str,
}

fn response(headers: &str, body: &[u8]) -> Behaviour {
    let mut bytes = format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    Behaviour::Raw(bytes)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("in memory");
    encoder.finish().expect("in memory")
}

const TEXT: &str = "Content-Type: text/plain; version=0.0.4\r\n";
const ZIPPED: &str = "Content-Type: text/plain; version=0.0.4\r\nContent-Encoding: gzip\r\n";

fn bad_targets() -> Vec<Bad> {
    let bad = |job, behaviour, reason| Bad { job, behaviour, limits: "", reason };
    let limited = |job, limits, reason| Bad { job, behaviour: Behaviour::Series(500), limits, reason };
    let bomb = gzip(&b"a 1\n".repeat(32 << 20));
    let huge_head = format!("HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n", "a".repeat(1 << 20)).into_bytes();
    vec![
        // Whichever comes first: its time is up, or the most that any scrape may bring.
        bad("endless", Behaviour::Endless, "deadline exceeded|body size limit exceeded: more than 256"),
        Bad {
            job: "endless_limited",
            behaviour: Behaviour::Endless,
            limits: "body_size_limit: 1MB",
            reason: "body size limit exceeded",
        },
        bad("stuck", Behaviour::Stuck, "deadline exceeded"),
        bad("malformed", response(TEXT, b"good_one 1\nbad{x=\"1 2\n"), "line 2, column"),
        bad("binary", response(TEXT, &[0xff, 0x00, 0xfe, b'\n']), "line 1, column"),
        bad(
            "html",
            response("Content-Type: text/html\r\n", b"<p>hi</p>"),
            "unsupported Content-Type \"text/html\"",
        ),
        bad("untyped", response("", b"a 1\n"), "blank Content-Type"),
        bad("bomb", response(ZIPPED, &bomb), "times its compressed size"),
        bad("not_gzip", response(ZIPPED, b"a 1\n"), "gzip"),
        bad(
            "cut_off",
            response("Content-Type: text/plain\r\nContent-Length: 9999\r\n", b"a 1\n"),
            "reading the body",
        ),
        bad(
            "error",
            Behaviour::Raw(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_vec()),
            "HTTP status 500",
        ),
        bad("huge_head", Behaviour::Raw(huge_head), "message head is too large"),
        bad("not_http", Behaviour::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "invalid HTTP version"),
        limited("oversize", "body_size_limit: 4KB", "body size limit exceeded"),
        limited("too_many", "sample_limit: 100", "sample limit"),
    ]
}

async fn write_config(path: &Path, good: &Exporter, bad: &[(Bad, Exporter)]) {
    let [closed] = free_ports();
    let mut text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 900ms}}\nscrape_configs:\n\
         - {{job_name: good, static_configs: [{{targets: ['{}']}}]}}\n\
         - {{job_name: closed, static_configs: [{{targets: ['127.0.0.1:{closed}']}}]}}\n",
        good.addr
    );
    for (b, exporter) in bad {
        let limits = if b.limits.is_empty() { String::new() } else { format!("{}, ", b.limits) };
        text.push_str(&format!(
            "- {{job_name: {}, {limits}static_configs: [{{targets: ['{}']}}]}}\n",
            b.job, exporter.addr
        ));
    }
    std::fs::write(path, text).expect("configuration");
}

/// Health and error by job, once every target was scraped.
async fn targets(api: &Api, count: usize) -> Result<BTreeMap<String, (String, String)>, String> {
    let data = api.data("/api/v1/targets", &[("state", "active")]).await?;
    let list = data["activeTargets"].as_array().ok_or("no targets")?;
    let text = |v: &serde_json::Value| v.as_str().unwrap_or("").to_owned();
    let shown: BTreeMap<String, (String, String)> =
        list.iter().map(|t| (text(&t["scrapePool"]), (text(&t["health"]), text(&t["lastError"])))).collect();
    let pending = shown.values().filter(|(health, _)| health == "unknown").count();
    if shown.len() == count && pending == 0 {
        Ok(shown)
    } else {
        Err(format!("{} targets, {pending} not scraped yet", shown.len()))
    }
}

/// The good target was scraped at every due time, and every scrape was kept.
async fn check_good(api: &Api, at: f64) {
    let data = api.query("probe_value{job=\"good\",n=\"0\"}[1m]", at).await.expect("complete");
    let points = data["result"][0]["values"].as_array().expect("samples").clone();
    assert!(points.len() >= ROUNDS, "{} scrapes", points.len());
    let read = |p: &serde_json::Value| {
        let ms = (p[0].as_f64().expect("a time") * 1000.0).round() as i64;
        (ms, p[1].as_str().and_then(|v| v.parse::<i64>().ok()).expect("a count"))
    };
    for pair in points.windows(2) {
        let (before, after) = (read(&pair[0]), read(&pair[1]));
        assert_eq!(after, (before.0 + INTERVAL_MS, before.1 + 1), "no scrape is missed: {points:?}");
    }
    let ups = api.number("min_over_time(up{job=\"good\"}[1m])", at).await.expect("one series");
    assert_eq!(ups, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_targets_harm_nobody_else() {
    let root = scratch();
    let good = Exporter::start("good", Behaviour::Series(50)).await;
    let mut bad = Vec::new();
    for b in bad_targets() {
        let exporter = Exporter::start(b.job, b.behaviour.clone()).await;
        bad.push((b, exporter));
    }
    let config = root.path().join("prometheus.yml");
    write_config(&config, &good, &bad).await;
    let node = NodeSpec::new("solo", root.path()).config(&config).start();
    node.ready().await;
    let api = node.api();
    until("the good target was scraped often", Duration::from_secs(60), || async {
        let n = good.scrapes();
        if n as usize > ROUNDS { Ok(()) } else { Err(format!("{n} scrapes")) }
    })
    .await;

    let shown = targets(&api, bad.len() + 2).await.expect("every target was scraped");
    for (job, (health, error)) in &shown {
        eprintln!("{job}: {health}: {error}");
    }
    assert_eq!(shown["good"], ("up".to_owned(), String::new()));
    assert_eq!(shown["closed"].0, "down");
    assert!(shown["closed"].1.contains("connection refused"), "{}", shown["closed"].1);
    for (b, exporter) in &bad {
        let (health, error) = &shown[b.job];
        assert_eq!(health, "down", "{}", b.job);
        assert!(b.reason.split('|').any(|r| error.contains(r)), "{}: {error:?}", b.job);
        assert!(error.len() < 500, "{}: {} bytes of error", b.job, error.len());
        assert!(exporter.scrapes() > 3, "{} is asked again and again", b.job);
    }
    let at = now() - 1.0;
    let up = api.vector("up{job!=\"good\"}", at).await.expect("complete");
    assert_eq!(up.len(), bad.len() + 1);
    assert!(up.values().all(|v| v == "0"), "{up:?}");
    let kept =
        api.vector("{job=~\".+\",job!=\"good\",__name__!~\"up|scrape_.*\"}", at).await.expect("complete");
    assert!(kept.is_empty(), "nothing of a failed scrape is kept: {kept:?}");
    check_good(&api, at).await;
    let peak = node.peak_memory();
    eprintln!("peak memory of the node: {} MiB", peak >> 20);
    assert!(peak < MEMORY_MAX, "{} MiB", peak >> 20);
}
