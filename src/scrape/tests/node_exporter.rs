//! A real target: node_exporter on loopback, scraped in every format it offers. The formats must agree with
//! each other, with a naive reader of the same text, and with the scrape cache over several scrapes. Where
//! node_exporter is not installed the test is skipped, except in CI.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use koios_config::ScrapeConfig;
use koios_model::format::parse_go_float;
use koios_model::{Labels, LabelsBuilder, SystemClock, is_stale};
use koios_scrape::parse::{Format, ParsedSample, labels_of_series, parse};
use koios_scrape::{BodyView, Fetcher, IngestSettings, ScrapeLoopState, Target, populate_labels};

struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> Option<(Exporter, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    for name in ["prometheus-node-exporter", "node_exporter"] {
        let child = Command::new(name)
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        if let Ok(child) = child {
            return Some((Exporter(child), address));
        }
    }
    None
}

fn job(protocol: &str) -> ScrapeConfig {
    let text = format!("scrape_configs: [{{job_name: node, scrape_protocols: [{protocol}]}}]");
    koios_config::parse(&text, "t.yml").unwrap_or_else(|e| panic!("{e}")).scrape_configs.remove(0)
}

fn target(job: &ScrapeConfig, address: &str) -> Target {
    populate_labels(&Labels::from_pairs([("__address__", address)]), &Labels::empty(), job).unwrap().unwrap()
}

async fn fetch(protocol: &str, address: &str) -> (Vec<u8>, Format) {
    let job = job(protocol);
    let fetcher = Fetcher::new(&job, SystemClock::shared());
    let target = target(&job, address);
    let mut last = None;
    for _ in 0..200 {
        match fetcher.fetch(&target, Vec::new()).await.body {
            Ok(body) => return body,
            Err(e) => last = Some(e),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("node_exporter does not answer: {last:?}");
}

/// Series and bits of the value of each sample.
fn read(body: &[u8], format: Format) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    let mut sink = |s: ParsedSample<'_>| {
        let mut b = LabelsBuilder::new();
        labels_of_series(s.series, s.kind, &mut b).unwrap();
        assert!(out.insert(b.build().to_string(), s.value.to_bits()).is_none());
    };
    parse(format, body, &mut sink).unwrap();
    out
}

/// Values and number of samples of plain text, by splitting at the last space. Only for node_exporter's text,
/// which has neither timestamps nor spaces after values.
fn naive(body: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(body).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    lines.map(|l| parse_go_float(l.rsplit_once(' ').unwrap().1).unwrap().to_bits()).collect()
}

/// Names that stay while the process runs, whatever the machine does in between.
fn steady(read: &BTreeMap<String, u64>) -> BTreeSet<&str> {
    let names = read.keys().map(String::as_str);
    names
        .filter(|n| !n.starts_with("go_") && !n.starts_with("process_") && !n.starts_with("promhttp_"))
        .collect()
}

#[tokio::test]
async fn formats_agree_on_a_real_target() {
    let Some((_exporter, address)) = start() else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI needs node_exporter");
        eprintln!("skipped: node_exporter is not installed");
        return;
    };
    let (text, format) = fetch("PrometheusText0.0.4", &address).await;
    assert_eq!(format, Format::Text);
    let from_text = read(&text, format);
    assert!(from_text.len() > 100, "{} series", from_text.len());
    let mut values: Vec<u64> = from_text.values().copied().collect();
    let mut naive = naive(&text);
    values.sort_unstable();
    naive.sort_unstable();
    assert_eq!(values, naive);

    let (proto, format) = fetch("PrometheusProto", &address).await;
    assert_eq!(format, Format::Protobuf);
    let from_proto = read(&proto, format);
    let (a, b) = (steady(&from_text), steady(&from_proto));
    let differing = a.symmetric_difference(&b).count();
    // Interfaces, mounts and softnet CPUs may come and go between two scrapes.
    assert!(differing * 20 <= a.len(), "{differing} of {} series differ", a.len());

    let job = job("PrometheusText0.0.4");
    let mut state = ScrapeLoopState::new(target(&job, &address).labels, IngestSettings::of(&job));
    let mut out = Vec::new();
    for round in 0..3 {
        let (body, format) = fetch("PrometheusText0.0.4", &address).await;
        out.clear();
        let report = state.ingest(round * 1000, Ok(BodyView { bytes: &body, format }), 0.0, &mut out);
        assert!(report.up, "{:?}", report.error);
        let fresh: BTreeMap<String, u64> = read(&body, format);
        assert_eq!(report.scraped as usize, fresh.len());
        let stored = out.iter().filter(|o| !is_stale(o.v)).count();
        assert_eq!(stored, fresh.len() + 5);
        if round > 0 {
            assert!(report.series_added < 50, "{} series added", report.series_added);
        }
    }
}
