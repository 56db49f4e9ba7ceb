//! Parameters of queries over HTTP: `stats`, `lookback_delta`, `limit`, `timeout`, notes, and feature flags.

use std::time::Duration;

use koios_cluster_tests::made::{START_MS, samples, served, serving, write_block};
use koios_cluster_tests::{Api, NodeSpec, scratch};
use koios_model::{Columns, Labels};
use serde_json::Value;

/// 30 series of a gauge that end at minute 60, and a counter.
fn series() -> Vec<(Labels, Columns)> {
    let mut all: Vec<(Labels, Columns)> = (0..30)
        .map(|i| {
            let labels = [("__name__", "gauge".to_owned()), ("i", format!("{i:02}"))];
            (Labels::from_pairs(labels), samples(241, move |k| (k * i) as f64))
        })
        .collect();
    all.push((Labels::from_pairs([("__name__", "requests")]), samples(241, |k| k as f64)));
    all
}

async fn ask(api: &Api, path: &str, params: &[(&str, &str)]) -> (u16, Value) {
    let (status, body) = api.get(path, params).await.expect("an answer");
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}")))
}

/// Seconds of the block as a parameter.
fn at(seconds: i64) -> String {
    (START_MS / 1000 + seconds).to_string()
}

async fn node(root: &std::path::Path) -> koios_cluster_tests::Node {
    let bucket = root.join("bucket");
    write_block(&bucket, series());
    let node = serving(root, &bucket, "").start();
    served(&node, "count(gauge)").await;
    node
}

#[tokio::test]
async fn parameters_do_what_prometheus_documents() {
    let dir = scratch();
    let node = node(dir.path()).await;
    let api = node.api();
    stats(&api).await;
    lookback(&api).await;
    limit(&api).await;
    notes(&api).await;
    timeout(&api).await;
    language(&api).await;
}

async fn stats(api: &Api) {
    let t = at(1800);
    let (_, plain) = ask(api, "/api/v1/query", &[("query", "gauge"), ("time", &t)]).await;
    assert!(plain["data"].get("stats").is_none());
    for wanted in ["true", "all"] {
        let params = [("query", "sum(gauge)"), ("time", t.as_str()), ("stats", wanted)];
        let (status, json) = ask(api, "/api/v1/query", &params).await;
        assert_eq!(status, 200, "{json}");
        let stats = &json["data"]["stats"];
        for name in [
            "evalTotalTime",
            "resultSortTime",
            "queryPreparationTime",
            "innerEvalTime",
            "execQueueTime",
            "execTotalTime",
        ] {
            assert!(
                stats["timings"][name].as_f64().is_some_and(|s| (0.0..10.0).contains(&s)),
                "{name}: {json}"
            );
        }
        let total = stats["timings"]["execTotalTime"].as_f64().unwrap();
        assert!(total > 0.0 && total >= stats["timings"]["innerEvalTime"].as_f64().unwrap(), "{json}");
        assert_eq!(stats["samples"]["totalQueryableSamples"], 30, "one sample of each series");
        assert!(stats["samples"]["samplesRead"].as_u64().unwrap() >= 30, "{json}");
        assert!(stats["samples"]["peakSamples"].as_u64().unwrap() >= 1, "{json}");
        assert!(stats["samples"].get("totalQueryableSamplesPerStep").is_none());
        assert!(json.get("warnings").is_none(), "{json}");
    }
    let end = at(1800 + 9 * 60);
    let range = [("query", "gauge"), ("start", t.as_str()), ("end", &end), ("step", "60"), ("stats", "yes")];
    let (_, json) = ask(api, "/api/v1/query_range", &range).await;
    assert_eq!(json["data"]["stats"]["samples"]["totalQueryableSamples"], 300, "30 series at 10 steps");
    assert!(json["warnings"].to_string().contains("deprecated"), "{json}");
}

async fn lookback(api: &Api) {
    // The last sample lies at 3600 s.
    for (delta, seconds, found) in [
        (None, 3899, 30),
        (None, 3900, 0),
        (Some("10m"), 4199, 30),
        (Some("30"), 3631, 0),
        (Some("0"), 3899, 30),
    ] {
        let t = at(seconds);
        let mut params = vec![("query", "gauge"), ("time", t.as_str())];
        params.extend(delta.map(|d| ("lookback_delta", d)));
        let (_, json) = ask(api, "/api/v1/query", &params).await;
        assert_eq!(json["data"]["result"].as_array().unwrap().len(), found, "{delta:?} at {seconds}");
    }
    let (status, json) = ask(api, "/api/v1/query", &[("query", "gauge"), ("lookback_delta", "x")]).await;
    assert_eq!((status, json["errorType"].as_str()), (400, Some("bad_data")), "{json}");
}

async fn limit(api: &Api) {
    let (t, end) = (at(1800), at(1860));
    for (limit, found, cut) in [("7", 7, true), ("30", 30, false), ("0", 30, false), ("31", 30, false)] {
        let instant = [("query", "gauge"), ("time", t.as_str()), ("limit", limit)];
        let range = [
            ("query", "gauge"),
            ("start", t.as_str()),
            ("end", end.as_str()),
            ("step", "15"),
            ("limit", limit),
        ];
        for (path, params) in [("/api/v1/query", &instant[..]), ("/api/v1/query_range", &range[..])] {
            let (_, json) = ask(api, path, params).await;
            assert_eq!(json["data"]["result"].as_array().unwrap().len(), found, "{path} limit {limit}");
            let warned = json["warnings"] == serde_json::json!(["results truncated due to limit"]);
            assert_eq!(warned, cut, "{path} limit {limit}: {json}");
        }
    }
    for bad in ["-1", "x"] {
        let (status, json) = ask(api, "/api/v1/query", &[("query", "gauge"), ("limit", bad)]).await;
        assert_eq!((status, json["errorType"].as_str()), (400, Some("bad_data")), "{json}");
    }
}

async fn notes(api: &Api) {
    let t = at(1800);
    let query = "rate(requests[5m]) + on() quantile(2, requests)";
    let (_, json) = ask(api, "/api/v1/query", &[("query", query), ("time", &t)]).await;
    let text = |key: &str| json[key][0].as_str().unwrap_or("").to_owned();
    assert_eq!(
        text("warnings"),
        "PromQL warning: quantile value should be between 0 and 1, got 2 (1:36)",
        "{json}"
    );
    assert!(text("infos").starts_with("PromQL info: metric might not be a counter"), "{json}");
    assert!(text("infos").ends_with("\"requests\" (1:6)"), "{json}");
}

async fn timeout(api: &Api) {
    let t = at(1800);
    let slow = "max_over_time(mad_over_time(requests[1h])[5000s:10ms])";
    let begun = std::time::Instant::now();
    let (status, json) =
        ask(api, "/api/v1/query", &[("query", slow), ("time", &t), ("timeout", "100ms")]).await;
    let took = begun.elapsed();
    assert_eq!((status, json["errorType"].as_str()), (503, Some("timeout")), "{json}");
    assert_eq!(json["error"], "query timed out in expression evaluation");
    assert!(took < Duration::from_millis(900), "{took:?}");
    let (status, json) = ask(api, "/api/v1/query", &[("query", "gauge"), ("timeout", "soon")]).await;
    assert_eq!((status, json["errorType"].as_str()), (400, Some("bad_data")), "{json}");
}

/// The whole language is there without flags, and what changes answers is not.
async fn language(api: &Api) {
    let t = at(1800);
    for query in [
        "sort_by_label(gauge, \"i\")",
        "limitk(3, gauge)",
        "rate(requests[5m] smoothed)",
        "gauge + on(i) group_left fill(0) gauge",
        "sum_over_time(gauge[5m + 5m])",
    ] {
        let (status, json) = ask(api, "/api/v1/query", &[("query", query), ("time", &t)]).await;
        assert_eq!(status, 200, "{query}: {json}");
    }
    let query = "{__name__=~\"requests\"} + 0";
    let (_, json) = ask(api, "/api/v1/query", &[("query", query), ("time", &t)]).await;
    assert_eq!(json["data"]["result"][0]["metric"], serde_json::json!({}), "{json}");
}

#[tokio::test]
async fn feature_flags_are_prometheus_names() {
    let dir = scratch();
    let wrong = NodeSpec::new("wrong", dir.path()).arg("--enable-feature=promql-at-modifier,promql-magic");
    let (status, said) = wrong.run_to_end(Duration::from_secs(20));
    assert!(status.is_some_and(|s| !s.success()), "{said}");
    assert!(
        said.contains("unknown feature \"promql-magic\"") && said.contains("use-start-timestamps"),
        "{said}"
    );

    let bucket = dir.path().join("bucket");
    write_block(&bucket, series());
    let spec = serving(dir.path(), &bucket, "")
        .arg("--enable-feature=promql-delayed-name-removal,xor2-encoding")
        .arg("--enable-feature=promql-experimental-functions");
    let node = spec.start();
    served(&node, "count(gauge)").await;
    assert!(node.log().contains("xor2-encoding has no effect"), "{}", node.log());
    // Under delayed removal the name is still there for what stands around the rate.
    let query = "label_replace(rate(requests[5m]), \"was\", \"$1\", \"__name__\", \"(.*)\")";
    let (_, json) = ask(&node.api(), "/api/v1/query", &[("query", query), ("time", &at(1800))]).await;
    assert_eq!(json["data"]["result"][0]["metric"], serde_json::json!({"was": "requests"}), "{json}");
}
