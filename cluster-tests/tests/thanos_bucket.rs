//! A bucket that real Thanos wrote: Koios answers from it what Thanos' querier answered, from a directory and by ranges from an
//! object store.

use std::path::Path;
use std::time::Duration;

use koios_cluster_tests::peers::{self, S3_SECRET, s3_yaml};
use koios_cluster_tests::recorded::{cases, differing, fixture, on_object_store, on_thanos_bucket};
use koios_cluster_tests::{Node, NodeSpec, binary, scratch, until};
use koios_model::BlockId;
use koios_objstore::{Bucket, BucketConfig};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn spec(name: &str, root: &Path) -> NodeSpec {
    on_thanos_bucket(name, root).arg("--query.replica-label=replica")
}

#[tokio::test]
async fn one_node_answers_what_thanos_answered() {
    let root = scratch();
    let node = spec("one", root.path()).start();
    node.ready().await;
    let cases = cases(&fixture("thanos-bucket/expected.json.gz"));
    assert!(cases.len() > 200);
    let wrong = differing(&node.api(), &cases).await;
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Every so many of the cases are asked where asking takes long: all with `KOIOS_TEST_ALL_CASES`.
fn step() -> usize {
    if std::env::var_os("KOIOS_TEST_ALL_CASES").is_some() { 1 } else { 5 }
}

async fn put_all(bucket: &Bucket, dir: &Path, prefix: &str) {
    for entry in std::fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry")) {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.path() {
            dir if dir.is_dir() => Box::pin(put_all(bucket, &dir, &format!("{name}/"))).await,
            file => bucket.put(&name, std::fs::read(file).expect("a file")).await.expect("put"),
        }
    }
}

async fn fetched_bytes(node: &Node) -> f64 {
    let (_, text) = node.api().get("/metrics", &[]).await.expect("metrics");
    let name = "koios_store_series_data_size_fetched_bytes_total{";
    let lines = text.lines().filter(|l| l.starts_with(name));
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A part of the cases from an S3 server, of which only ranges are read. What was read once is not read again, not even by the
/// next process.
#[tokio::test(flavor = "multi_thread")]
async fn by_ranges_from_an_object_store() {
    if !binary::peer("moto_server") {
        return;
    }
    let root = scratch();
    let server = peers::s3().await;
    let yaml = s3_yaml(server.port, "");
    let env = |name: &str| (name == S3_SECRET.0).then(|| S3_SECRET.1.to_owned());
    let config = BucketConfig::parse(&yaml, Path::new("."), &env).expect("a good file");
    let bucket = Bucket::open(&config, BlockId::from_parts(1, 3)).await.expect("the bucket opens");
    put_all(&bucket, &fixture("thanos-bucket/bucket"), "").await;
    let spec = on_object_store("ranges", root.path(), &yaml).arg("--query.replica-label=replica");
    let mut cases: Vec<Value> =
        cases(&fixture("thanos-bucket/expected.json.gz")).into_iter().step_by(step()).collect();
    for first in [true, false] {
        let mut node = spec.start_with(&[(S3_SECRET.0, S3_SECRET.1.to_owned())]);
        node.ready().await;
        assert_eq!(fetched_bytes(&node).await, 0.0, "nothing is fetched before somebody asks");
        let wrong = differing(&node.api(), &cases).await;
        assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        let fetched = fetched_bytes(&node).await;
        assert_eq!(fetched > 0.0, first, "{fetched} bytes fetched");
        cases.truncate(20);
        node.terminate();
        assert!(node.wait(PATIENCE).is_some_and(|s| s.success()), "{}", node.log());
    }
}

/// Blocks are read by whom rendezvous says, replicas of a block by different nodes, and the answer is the same on each.
#[tokio::test]
async fn two_nodes_answer_the_same() {
    let root = scratch();
    let first = spec("first", root.path());
    let second = spec("second", root.path()).join(&first);
    let nodes = [first.start(), second.start()];
    for node in &nodes {
        let api = node.api();
        until("two ready nodes", PATIENCE, || api.all_ready(2)).await;
    }
    let cases = cases(&fixture("thanos-bucket/expected.json.gz"));
    for (node, from) in nodes.iter().zip([0, 3]) {
        let some: Vec<Value> = cases.iter().skip(from).step_by(6).cloned().collect();
        let wrong = differing(&node.api(), &some).await;
        assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), some.len(), wrong.join("\n"));
    }
}

/// What lies in the bucket, in the shape that Thanos' own page reads.
#[tokio::test]
async fn blocks_are_listed_with_what_is_known_of_them() {
    let root = scratch();
    let spec = spec("listed", root.path());
    let bucket = root.path().join("bucket");
    let blocks = || std::fs::read_dir(&bucket).expect("bucket").flatten().map(|e| e.file_name());
    let mut ids: Vec<BlockId> = blocks().filter_map(|n| n.to_str()?.parse().ok()).collect();
    ids.sort();
    let (first, last) = (ids[0].to_string(), ids[ids.len() - 1].to_string());
    let mark = br#"{"version":1,"reason":"manual","details":"kept as it is","no_compact_time":5}"#;
    std::fs::write(bucket.join(&first).join("no-compact-mark.json"), mark).expect("mark");
    std::fs::write(bucket.join(&last).join("meta.json"), "{").expect("damage");
    let node = spec.start();
    node.ready().await;
    let api = node.api();
    let data = api.data("/api/v1/blocks", &[]).await.unwrap();
    let listed = data["blocks"].as_array().unwrap();
    assert_eq!(listed.len(), ids.len() - 1);
    assert_eq!((&data["label"], &data["err"]), (&"listed".into(), &Value::Null));
    assert!(data["unreadable"][&last].as_str().is_some_and(|why| why.starts_with("meta.json: ")), "{data}");
    assert_eq!(listed[0]["ulid"], first);
    assert!(listed[0]["thanos"]["labels"].is_object() && listed[0]["minTime"].is_i64());
    assert_eq!(listed[0]["koios"]["noCompact"], "manual: kept as it is");
    assert_eq!(listed[1]["koios"]["noCompact"], Value::Null);
    let loaded = api.data("/api/v1/blocks", &[("view", "loaded"), ("limit", "1")]).await.unwrap();
    assert!(loaded["blocks"].as_array().unwrap().len() <= 1);
    let (status, body) = api.get("/api/v1/blocks", &[("view", "half")]).await.unwrap();
    assert!(status == 400 && body.contains("bad_data") && body.contains("view"), "{body}");
}

/// What the parameters leave out, and errors that name them.
#[tokio::test]
async fn parameters_of_thanos() {
    let root = scratch();
    let node = spec("terms", root.path()).start();
    node.ready().await;
    let api = node.api();
    let count = async |params: &[(&str, &str)]| {
        let all =
            [&[("query", "count({__name__=~\"demo_.*\"})"), ("time", "1792193400")][..], params].concat();
        let data = api.data("/api/v1/query", &all).await.unwrap();
        let value = data["result"][0]["value"][1].as_str();
        value.map_or(0, |v| v.parse::<i64>().unwrap())
    };
    assert_eq!(count(&[]).await, 61);
    assert_eq!(count(&[("dedup", "false")]).await, 122);
    assert_eq!(count(&[("replicaLabels[]", "cluster")]).await, 122, "the flag's label is not one then");
    let mut shards = Vec::new();
    for index in 0..3 {
        let info = format!("{{\"shardIndex\":{index},\"totalShards\":3,\"labels\":[]}}");
        shards.push(count(&[("shard_info", &info)]).await);
    }
    assert_eq!(shards.iter().sum::<i64>(), 61, "{shards:?}");
    assert!(shards.iter().all(|n| *n > 0), "{shards:?}");
    let here = format!("{{__address__=\"{}\"}}", std::net::SocketAddr::new(node.spec.ip, node.spec.ports[1]));
    assert_eq!(count(&[("storeMatch[]", &here)]).await, 61);

    let series = async |dedup: &str| {
        let params =
            [("match[]", "demo_up"), ("dedup", dedup), ("start", "1792180800"), ("end", "1792193400")];
        api.data("/api/v1/series", &params).await.unwrap().as_array().unwrap().len()
    };
    assert_eq!((series("true").await, series("false").await), (4, 8));
    for (name, value) in [
        ("dedup", "maybe"),
        ("max_source_resolution", "coarse"),
        ("partial_response", "maybe"),
        ("shard_info", "[]"),
        ("storeMatch[]", "{"),
    ] {
        for path in ["query", "query_range", "series", "labels"] {
            let params = [
                ("query", "demo_up"),
                ("match[]", "demo_up"),
                ("start", "0"),
                ("end", "60"),
                ("step", "60"),
                (name, value),
            ];
            let (status, body) = api.get(&format!("/api/v1/{path}"), &params).await.unwrap();
            assert!(
                status == 400 && body.contains("bad_data") && body.contains(name),
                "{path} {name}: {body}"
            );
        }
    }
}
