//! A chunk whose bytes are not what they were: whoever asks for it is told, and everything else is answered.
//!
//! Damage of a chunk shows only when it is read, which may be in the middle of an evaluation.

use std::path::Path;

use koios_cluster_tests::made::{START_MS, samples, served, serving, write_block};
use koios_cluster_tests::{Api, scratch};
use koios_model::Labels;
use serde_json::Value;

async fn ask(api: &Api, path: &str, params: &[(&str, &str)]) -> (u16, Value) {
    let (status, body) = api.get(path, params).await.expect("an answer");
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}")))
}

/// Flips a bit in the data of the last chunk of the only block.
fn damage(bucket: &Path) {
    let block = std::fs::read_dir(bucket).expect("bucket").flatten().next().expect("a block").path();
    let segment = block.join("chunks/000001");
    let mut bytes = std::fs::read(&segment).expect("segment");
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    std::fs::write(segment, bytes).expect("damaged segment");
}

#[tokio::test]
async fn is_named_and_nothing_else_suffers() {
    let dir = scratch();
    let bucket = dir.path().join("bucket");
    let series =
        ["sound", "torn"].map(|name| (Labels::from_pairs([("__name__", name)]), samples(241, |k| k as f64)));
    write_block(&bucket, series);
    damage(&bucket);
    let node = serving(dir.path(), &bucket, "").start();
    served(&node, "sound").await;
    let api = node.api();
    let (early, late) = ((START_MS / 1000 + 60).to_string(), (START_MS / 1000 + 3600).to_string());

    let (status, answer) = ask(&api, "/api/v1/query", &[("query", "sum(torn)"), ("time", &late)]).await;
    assert_eq!((status, &answer["errorType"]), (503, &Value::from("unavailable")), "{answer}");
    assert!(answer["error"].as_str().is_some_and(|e| e.contains("checksum")), "{answer}");
    let partial = [("query", "sum(torn)"), ("time", &late), ("partial_response", "true")];
    let (status, answer) = ask(&api, "/api/v1/query", &partial).await;
    assert_eq!((status, answer["data"]["result"].as_array().map(Vec::len)), (200, Some(0)), "{answer}");
    assert!(answer["warnings"][0].as_str().is_some_and(|w| w.contains("checksum")), "{answer}");
    let range = [("query", "rate(torn[5m])"), ("start", &early), ("end", &late), ("step", "60")];
    let (status, answer) = ask(&api, "/api/v1/query_range", &range).await;
    assert!(status == 200 && answer["warnings"][0].is_string(), "{answer}");

    // The chunk is not touched where it does not matter.
    let (status, answer) = ask(&api, "/api/v1/query", &[("query", "sum(torn)"), ("time", &early)]).await;
    assert_eq!((status, &answer["data"]["result"][0]["value"][1]), (200, &Value::from("4")), "{answer}");
    let (status, answer) = ask(&api, "/api/v1/query", &[("query", "sound"), ("time", &late)]).await;
    assert_eq!((status, &answer["data"]["result"][0]["value"][1]), (200, &Value::from("240")), "{answer}");
}
