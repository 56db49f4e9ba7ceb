//! Five thousand generated queries: Koios and Debian's Prometheus 2.42 on the same block give the same.
//!
//! Equal means: the same series, values within 1e-9 (relative, and absolute near zero, where the order of
//! additions may differ: Koios sums compensated as Prometheus 3 does, 2.42 sums plainly), or an error on both
//! sides. One difference is known and let pass: the deviation of values that are NaN or infinite is NaN since
//! Prometheus 3, and was 0 in 2.42 where the group has one member. `KOIOS_DIFFERENTIAL_SEED` runs another set, `KOIOS_DIFFERENTIAL_QUERIES` another number.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use koios_block::meta::ThanosMeta;
use koios_block::{BlockMetaExtras, BlockWriter};
use koios_chunk::encode_xor;
use koios_cluster_tests::binary::peer;
use koios_cluster_tests::generate::Rng;
use koios_cluster_tests::peers::prometheus;
use koios_cluster_tests::{Api, NodeSpec, scratch, until};
use koios_model::{BlockId, Columns, Labels};
use serde_json::Value;

const START_MS: i64 = 1_700_006_400_000 / 7_200_000 * 7_200_000;
const STEP_MS: i64 = 15_000;
const JITTER_MS: i64 = 3_777;
const SAMPLES: i64 = 470;

/// Whole numbers and eighths, so that sums are exact in any order; some series end early or begin late.
fn series() -> BTreeMap<Labels, Columns> {
    let mut all = BTreeMap::new();
    for i in 0..8i64 {
        let base = |name: &str| -> Vec<(String, String)> {
            let zone = ["a", "b", ""][(i % 3) as usize];
            [
                ("__name__", name),
                ("job", if i < 5 { "api" } else { "db" }),
                ("instance", &format!("i{i}")),
                ("zone", zone),
            ]
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
        };
        let (from, until) = [(0, SAMPLES), (0, SAMPLES), (0, 300), (120, SAMPLES)][(i % 4) as usize];
        let mut add = |labels: Vec<(String, String)>, value: &dyn Fn(i64) -> f64| {
            let mut c = Columns::default();
            for k in from..until {
                c.push(START_MS + JITTER_MS + k * STEP_MS, value(k));
            }
            all.insert(Labels::from_pairs(labels), c);
        };
        add(base("gauge_a"), &|k| ((k * 7 + i * 13) % 40) as f64 - 10.0);
        add(base("gauge_b"), &|k| ((k * 3 + i) % 16) as f64 / 8.0);
        add(base("temperature"), &|k| 20.0 + (i * 1000 + (k * 37) % 997) as f64 / 8.0);
        // Counters start high, where no version clamps the extrapolation to zero, and reset now and then.
        add(base("requests_total"), &|k| 5000.0 + ((k + i * 11) % 150 * (i + 3)) as f64);
        add(base("bytes_total"), &|k| 1e6 + (k * 1024 * (i + 1)) as f64);
        for (n, le) in ["0.1", "0.5", "1.0", "+Inf"].iter().enumerate() {
            let mut labels = base("latency_seconds_bucket");
            labels.push(("le".to_owned(), (*le).to_owned()));
            add(labels, &|k| 1000.0 * (n as f64 + 1.0) + (k * (n as i64 + 1) * (i + 1)) as f64);
        }
    }
    all
}

fn write_block(dir: &Path) {
    let id = BlockId::from_parts(START_MS as u64, 42);
    let mut w = BlockWriter::create(dir, id).unwrap();
    for (labels, columns) in series() {
        w.add_series(&labels, &encode_xor(&columns, 120)).unwrap();
    }
    let labels = [("replica".to_owned(), "0".to_owned())].into();
    let thanos = ThanosMeta { labels, source: "test".into(), ..ThanosMeta::default() };
    let extras = BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() };
    w.finish(START_MS, START_MS + 7_200_000, extras).unwrap();
}

struct Case {
    query: String,
    /// Evaluation time, or start, end and step.
    params: Vec<(&'static str, String)>,
    path: &'static str,
}

fn case(rng: &mut Rng) -> Case {
    let depth = 1 + rng.below(3);
    let query = if rng.below(12) == 0 { rng.scalar(depth) } else { rng.vector(depth) };
    // Never on a sample, never on a whole step.
    let at = START_MS / 1000 + 1500 + rng.below(5000) as i64;
    if rng.below(2) == 0 {
        return Case { query, params: vec![("time", format!("{at}.123"))], path: "/api/v1/query" };
    }
    let step = [17, 60, 211][rng.below(3)];
    let end = at + step * (1 + rng.below(12) as i64);
    let params =
        vec![("start", format!("{at}.123")), ("end", format!("{end}.123")), ("step", step.to_string())];
    Case { query, params, path: "/api/v1/query_range" }
}

async fn ask(api: &Api, case: &Case) -> Result<Value, String> {
    let mut params: Vec<(&str, &str)> = vec![("query", &case.query)];
    params.extend(case.params.iter().map(|(n, v)| (*n, v.as_str())));
    let (status, body) = api.get(case.path, &params).await.expect("an answer");
    let json: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}"));
    if json["status"] == "success" { Ok(json["data"].clone()) } else { Err(json["error"].to_string()) }
}

fn close(a: &str, b: &str, deviation: bool) -> bool {
    if a == b || (deviation && a == "NaN" && b == "0") {
        return true;
    }
    let (Ok(x), Ok(y)) = (a.parse::<f64>(), b.parse::<f64>()) else { return false };
    (x.is_nan() && y.is_nan()) || (x - y).abs() <= 1e-9 * x.abs().max(y.abs()).max(1.0)
}

fn points(s: &Value) -> Vec<(String, String)> {
    let list = s["values"].as_array().cloned().unwrap_or_else(|| vec![s["value"].clone()]);
    list.iter().map(|p| (p[0].to_string(), p[1].as_str().unwrap_or("").to_owned())).collect()
}

/// What differs; `None` when nothing does.
fn difference(query: &str, ours: &Result<Value, String>, theirs: &Result<Value, String>) -> Option<String> {
    let deviation = query.contains("stddev") || query.contains("stdvar");
    let (a, b) = match (ours, theirs) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(_), Err(_)) => return None,
        (Ok(a), Err(e)) => return Some(format!("ours {a}, theirs error {e}")),
        (Err(e), Ok(b)) => return Some(format!("ours error {e}, theirs {b}")),
    };
    if a["resultType"] != b["resultType"] {
        return Some(format!("types {} and {}", a["resultType"], b["resultType"]));
    }
    if a["resultType"] == "scalar" {
        let (x, y) = (a["result"][1].as_str().unwrap_or(""), b["result"][1].as_str().unwrap_or(""));
        return (!close(x, y, deviation)).then(|| format!("{x} and {y}"));
    }
    let by_metric = |v: &Value| -> BTreeMap<String, Vec<(String, String)>> {
        let list = v["result"].as_array().cloned().unwrap_or_default();
        list.iter().map(|s| (sorted(&s["metric"]), points(s))).collect()
    };
    let (a, b) = (by_metric(a), by_metric(b));
    let names = |m: &BTreeMap<String, Vec<(String, String)>>| m.keys().cloned().collect::<Vec<_>>();
    if names(&a) != names(&b) {
        return Some(format!("series {:?} and {:?}", names(&a), names(&b)));
    }
    for (metric, ours) in &a {
        let theirs = &b[metric];
        let same = ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(p, q)| p.0 == q.0 && close(&p.1, &q.1, deviation));
        if !same {
            return Some(format!("{metric}: {ours:?} and {theirs:?}"));
        }
    }
    None
}

fn sorted(metric: &Value) -> String {
    let map: BTreeMap<String, Value> = serde_json::from_value(metric.clone()).unwrap_or_default();
    format!("{map:?}")
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[tokio::test]
async fn generated_queries_give_what_prometheus_gives() {
    if !peer("prometheus") {
        return;
    }
    let dir = scratch();
    let (bucket, data) = (dir.path().join("bucket"), dir.path().join("prometheus"));
    for d in [&bucket, &data] {
        std::fs::create_dir_all(d).unwrap();
        write_block(d);
    }
    let empty = dir.path().join("empty.yml");
    std::fs::write(&empty, "global: {evaluation_interval: 1m}\n").unwrap();
    let objstore = dir.path().join("bucket.yml");
    std::fs::write(&objstore, format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", bucket.display()))
        .unwrap();
    let node = NodeSpec::new("n", dir.path())
        .config(&empty)
        .arg(format!("--objstore.config-file={}", objstore.display()))
        .start();
    let peer = prometheus(&data, &empty);
    let (ours, theirs) = (node.api(), Api::new(([127, 0, 0, 1], peer.port).into()));
    node.ready().await;
    for api in [&ours, &theirs] {
        let there = "count(gauge_a)";
        until("the block is served", Duration::from_secs(30), || {
            api.number(there, START_MS as f64 / 1000.0 + 3000.0)
        })
        .await;
    }
    let (seed, queries) = (number("KOIOS_DIFFERENTIAL_SEED", 1), number("KOIOS_DIFFERENTIAL_QUERIES", 5000));
    let mut rng = Rng::new(seed);
    let (mut differ, mut errors, mut empty_answers) = (Vec::new(), 0, 0);
    for n in 0..queries {
        let case = case(&mut rng);
        let (a, b) = tokio::join!(ask(&ours, &case), ask(&theirs, &case));
        errors += u64::from(b.is_err());
        empty_answers +=
            u64::from(b.as_ref().is_ok_and(|v| v["result"].as_array().is_some_and(Vec::is_empty)));
        if let Some(why) = difference(&case.query, &a, &b) {
            let why: String = why.chars().take(600).collect();
            differ.push(format!("#{n} {} {:?}\n    {why}", case.query, case.params));
        }
    }
    eprintln!(
        "seed {seed}: {queries} queries, {errors} errors, {empty_answers} empty answers, {} differ",
        differ.len()
    );
    let shown: Vec<&String> = differ.iter().take(25).collect();
    assert!(
        differ.is_empty(),
        "{} of {queries} differ:\n{}",
        differ.len(),
        shown.iter().map(|s| s.as_str()).collect::<Vec<_>>().join("\n")
    );
    assert!(errors < queries / 4 && empty_answers < queries / 2, "too few queries say anything");
}
