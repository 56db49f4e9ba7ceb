//! A bucket that real Thanos wrote: Koios answers from it what Thanos' querier answered.

use std::path::Path;

use koios_cluster_tests::recorded::{cases, copy, differing, fixture};
use koios_cluster_tests::{NodeSpec, scratch};

/// A node without targets on a copy of the bucket.
fn spec(name: &str, root: &Path) -> NodeSpec {
    let (config, store) = (root.join("koios.yml"), root.join("bucket.yml"));
    let bucket = root.join("bucket");
    if !bucket.exists() {
        copy(&fixture("thanos-bucket/bucket"), &bucket);
    }
    std::fs::write(&config, "scrape_configs: []\n").unwrap();
    std::fs::write(&store, format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", bucket.display()))
        .unwrap();
    NodeSpec::new(name, root)
        .config(&config)
        .arg(format!("--objstore.config-file={}", store.display()))
        .arg("--query.replica-label=replica")
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
