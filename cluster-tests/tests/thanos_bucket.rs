//! A bucket that real Thanos wrote: Koios answers from it what Thanos' querier answered.

use std::path::Path;
use std::time::Duration;

use koios_cluster_tests::recorded::{cases, differing, fixture, on_thanos_bucket};
use koios_cluster_tests::{NodeSpec, scratch, until};
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
