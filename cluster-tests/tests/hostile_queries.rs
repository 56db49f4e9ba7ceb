//! Queries meant to hurt: each is refused or stopped within a second, inside the memory budget, with
//! Prometheus' kind of error, while other queries are answered.

use std::time::{Duration, Instant};

use koios_cluster_tests::made::{START_MS, samples, served, serving, write_block};
use koios_cluster_tests::{Api, Node, scratch};
use koios_model::{Columns, Labels};
use serde_json::Value;

/// Time limit of every hostile query. The rest of the second is for a build without optimisation on a busy machine.
const TIMEOUT: &str = "400ms";
/// Within this it must be over.
const PATIENCE: Duration = Duration::from_secs(1);
/// What the node may use beside what it used before: twice the budget of one query.
const MEMORY_MAX_KIB: u64 = 2 * 128 * 1024;

const SERIES: i64 = 1200;

fn series() -> Vec<(Labels, Columns)> {
    let mut all: Vec<(Labels, Columns)> = (0..SERIES)
        .map(|i| {
            let labels = [
                ("__name__", "load".to_owned()),
                ("group", format!("g{:02}", i % 10)),
                ("path", format!("/{}", "a".repeat(30 + i as usize % 40))),
                ("i", format!("{i:05}")),
            ];
            (Labels::from_pairs(labels), samples(480, move |k| ((k * 7 + i) % 101) as f64))
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn names() -> String {
    (0..3000).map(|i| format!("load{{i=\"{i:05}\"}}")).collect::<Vec<_>>().join(" or ")
}

/// What is asked: name, query, whether over an hour or at one moment, and the kinds of error that are right.
fn hostile() -> Vec<(&'static str, String, Option<&'static str>, &'static [&'static str])> {
    const REFUSED: &[&str] = &["bad_data"];
    const STOPPED: &[&str] = &["timeout", "execution"];
    let grown = (0..60).fold("load".to_owned(), |q, _| {
        format!("label_replace({q}, \"path\", \"$1$1\", \"path\", \"(.*)\")")
    });
    let tower = (0..40).fold("load".to_owned(), |q, _| format!("max_over_time(({q})[1h:1s])"));
    let flat_tower = (0..4).fold("load".to_owned(), |q, _| format!("sum_over_time(({q})[1h:1s])"));
    let wide: String = (0..1000).map(|i| format!("(a{i}?|b{i})*")).collect();
    vec![
        ("parentheses", format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000)), None, REFUSED),
        ("minuses", format!("{}1", "-".repeat(100_000)), None, REFUSED),
        ("calls", format!("{}load{}", "abs(".repeat(50_000), ")".repeat(50_000)), None, REFUSED),
        ("chain", vec!["1"; 50_000].join(" + "), None, REFUSED),
        ("many selectors", names(), None, REFUSED),
        ("1 ns steps over years", "sum_over_time(load[10y:1ns])".to_owned(), None, REFUSED),
        ("1 ms steps over years", "sum_over_time(load[10y:1ms])".to_owned(), None, &["execution"]),
        ("tower of subqueries", tower, None, STOPPED),
        ("steep tower", flat_tower, Some("15"), STOPPED),
        ("regexp blow-up", "load{path=~\"(a{1,1000}){1,1000}{1,1000}b\"}".to_owned(), None, REFUSED),
        ("wide regexp", format!("count(load{{path=~\"({wide})+\"}})"), None, &["bad_data", "timeout", "execution", ""]),
        ("regexp in label_replace", "label_replace(load, \"x\", \"$1\", \"path\", \"((a*)*)*((a*)*)*b{1,1000}{1,1000}\")".to_owned(), None, &["execution", "bad_data"]),
        ("cartesian", "load * on () group_left () load".to_owned(), Some("15"), STOPPED),
        ("cartesian sums", "sum(load * on (group) group_left () max by (group, i) (load))".to_owned(), Some("15"), STOPPED),
        ("growing label", grown, None, STOPPED),
        ("heavy windows", "quantile_over_time(0.5, (load)[2h:1s])".to_owned(), Some("15"), STOPPED),
        ("deviation of windows", "mad_over_time((load)[2h:1s])".to_owned(), Some("15"), STOPPED),
        ("sorting", "sum(sort_by_label(load, \"path\", \"i\")) + count(quantile_over_time(0.9, load[2h])) + sum_over_time(count(load)[2h:5ms])".to_owned(), Some("15"), STOPPED),
        ("values as labels", "count_values(\"path\", (load + on(i) group_left () (load * 1.5))[2h:1s])".to_owned(), Some("15"), &["bad_data", "timeout", "execution"]),
        ("huge range", "sum(rate(load[290y]))".to_owned(), Some("15"), &["", "timeout", "execution"]),
    ]
}

/// Kind of error, empty for an answer.
async fn ask(api: &Api, query: &str, step: Option<&str>) -> (String, String) {
    let start = START_MS / 1000;
    let (from, to, at) = ((start + 3600).to_string(), (start + 7190).to_string(), (start + 7190).to_string());
    let form = |pairs: &[(&str, &str)]| {
        let url = reqwest::Url::parse_with_params("http://x/", pairs).expect("parameters");
        url.query().unwrap_or("").to_owned()
    };
    let (path, body) = match step {
        Some(step) => (
            "/api/v1/query_range",
            form(&[("query", query), ("start", &from), ("end", &to), ("step", step), ("timeout", TIMEOUT)]),
        ),
        None => ("/api/v1/query", form(&[("query", query), ("time", &at), ("timeout", TIMEOUT)])),
    };
    let (status, body) = api.post_form(path, &body).await.expect("an answer");
    let json: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}"));
    (json["errorType"].as_str().unwrap_or("").to_owned(), json["error"].as_str().unwrap_or("").to_owned())
}

/// Most memory that the node has used so far, KiB.
fn peak_kib(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("status");
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("peak");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

#[tokio::test]
async fn hostile_queries_end_within_a_second_and_hurt_nobody() {
    let dir = scratch();
    let bucket = dir.path().join("bucket");
    write_block(&bucket, series());
    let node = serving(dir.path(), &bucket, "query: {max_bytes: 128MiB}").start();
    served(&node, "count(load)").await;
    let (api, quiet) = (node.api(), peak_kib(&node));
    let mut faults = Vec::new();
    for (name, query, step, kinds) in hostile() {
        let begun = Instant::now();
        let hurting = ask(&api, &query, step);
        let others = async {
            let begun = Instant::now();
            let n = api.number("count(load{group=\"g03\"})", START_MS as f64 / 1000.0 + 3600.0).await;
            (n, begun.elapsed())
        };
        let ((kind, error), (n, waited)) = tokio::join!(hurting, others);
        let (took, error) = (begun.elapsed(), error.chars().take(100).collect::<String>());
        println!(
            "{name}: {kind:?} after {} ms; beside it {} ms: {error}",
            took.as_millis(),
            waited.as_millis()
        );
        if !kinds.contains(&kind.as_str()) {
            faults.push(format!("{name}: {kind:?} instead of {kinds:?}: {error}"));
        }
        if took > PATIENCE || waited > PATIENCE {
            faults.push(format!("{name}: took {took:?}, and another query {waited:?}"));
        }
        if n != Ok(SERIES as f64 / 10.0) {
            faults.push(format!("{name}: another query was answered {n:?}"));
        }
    }
    let grown = peak_kib(&node).saturating_sub(quiet);
    println!("memory: {quiet} KiB before, {grown} KiB more at its peak");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(grown < MEMORY_MAX_KIB, "memory grew by {grown} KiB");
}

/// A client that goes away takes its query with it: the one place for queries is free again.
#[tokio::test]
async fn a_client_that_leaves_stops_its_query() {
    let dir = scratch();
    let bucket = dir.path().join("bucket");
    write_block(&bucket, series());
    let node = serving(dir.path(), &bucket, "query: {max_concurrency: 1}").start();
    served(&node, "count(load)").await;
    let api = node.api();
    let slow = "max_over_time(quantile_over_time(0.5, load{i=~\"000.*\"}[1h])[5000s:10ms])";
    let at = (START_MS / 1000 + 7190).to_string();
    let params = [("query", slow), ("time", at.as_str()), ("timeout", "60s")];
    let left = tokio::time::timeout(Duration::from_millis(300), api.get("/api/v1/query", &params)).await;
    assert!(left.is_err(), "the query was not slow enough: {left:?}");
    let begun = Instant::now();
    let n = api.number("count(load)", START_MS as f64 / 1000.0 + 3600.0).await;
    let waited = begun.elapsed();
    println!("after the client left: {n:?} in {} ms", waited.as_millis());
    assert_eq!(n, Ok(SERIES as f64));
    assert!(waited < PATIENCE, "{waited:?}");
}
