//! The bucket is away for a while: heads take samples and answer, older times are flagged, and everything heals.
//!
//! Scenario 17 with real processes. The bucket is a directory that is moved away, as a volume that is not mounted: the
//! worst kind of absence, as it looks like an empty bucket.

use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::made::{START_MS, samples, serving, write_block};
use koios_cluster_tests::push::{Push, ms, named};
use koios_cluster_tests::{Node, NodeSpec, scratch, until};
use koios_model::Labels;

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than the time between two looks at the bucket.
const AWAY: Duration = Duration::from_secs(14);
const OLD: &str = "count(count_over_time(old[1h]))";

async fn push(node: &Node, t: i64) -> u16 {
    Push::v1(vec![named("fresh", &[(t, 1.0)])]).to(node.spec.http()).await.expect("an answer").status
}

#[tokio::test]
async fn s17_the_bucket_is_away_for_a_while() {
    let dir = scratch();
    let (bucket, elsewhere) = (dir.path().join("shared"), dir.path().join("elsewhere"));
    let labels = |n: i64| Labels::from_pairs([("__name__", "old"), ("n", n.to_string().as_str())]);
    write_block(&bucket, (0..5).map(|n| (labels(n), samples(100, move |k| (k + n) as f64))));
    let (file, config) = (dir.path().join("bucket.yml"), dir.path().join("nodes.yml"));
    std::fs::write(&file, format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", bucket.display()))
        .expect("bucket file");
    std::fs::write(&config, "global: {scrape_interval: 1s, scrape_timeout: 1s}\n").expect("configuration");
    let spec = |name: &str| {
        NodeSpec::new(name, dir.path())
            .config(&config)
            .arg(format!("--objstore.config-file={}", file.display()))
    };
    let first = spec("a");
    let nodes = [first.start(), spec("b").join(&first).start()];
    for node in &nodes {
        let api = node.api();
        until("both ready", PATIENCE, || api.all_ready(2)).await;
    }
    let long_ago = START_MS as f64 / 1000.0 + 600.0;
    let mut sent = Vec::new();
    let away = std::time::Instant::now();
    std::fs::rename(&bucket, &elsewhere).expect("it goes");
    while away.elapsed() < AWAY {
        for node in &nodes {
            let t = ms();
            assert_eq!(push(node, t).await, 204, "writes go on");
            sent.push(t);
            let fresh = node.api().number("count_over_time(fresh[1m])", now() + 1.0).await;
            assert_eq!(fresh, Ok(sent.len() as f64), "the heads answer, whole and without a warning");
            let old = node.api().number(OLD, long_ago).await;
            let is_flagged = old.as_ref().is_err_and(|why| why.starts_with("503") && why.contains("missing"));
            assert!(is_flagged || old == Ok(5.0), "silently short: {old:?}");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(!bucket.exists(), "nobody began another bucket in its place");
    assert!(nodes.iter().any(|n| n.log().contains("bucket not read")), "it is said");
    std::fs::rename(&elsewhere, &bucket).expect("it comes back");
    for node in &nodes {
        let api = node.api();
        until("older times are whole again", PATIENCE, || async {
            match api.number(OLD, long_ago).await? {
                5.0 => Ok(()),
                n => panic!("silently short: {n}"),
            }
        })
        .await;
        assert_eq!(api.number("count_over_time(fresh[1m])", now() + 1.0).await, Ok(sent.len() as f64));
    }
}

/// Scenario 26.
#[tokio::test]
async fn s26_a_bucket_of_another_cluster_is_not_touched() {
    let dir = scratch();
    let bucket = dir.path().join("shared");
    let own = serving(dir.path(), &bucket, "cluster: {name: eu}");
    let mut first = own.start();
    first.ready().await;
    let elsewhere = scratch();
    let stranger = serving(elsewhere.path(), &bucket, "cluster: {name: us}");
    let (ended, log) = stranger.run_to_end(PATIENCE);
    assert!(ended.is_some_and(|s| !s.success()), "it ends by itself");
    for words in ["step bucket", "_koios/cluster", "\"eu\"", "\"us\"", "--cluster.name=eu"] {
        assert!(log.contains(words), "want {words:?} in:\n{log}");
    }
    first.terminate();
    assert!(first.wait(PATIENCE).is_some_and(|s| s.success()));
    let again = own.start();
    again.ready().await;
    assert_eq!(std::fs::read_to_string(bucket.join("_koios/cluster")).expect("the name"), "eu");
}
