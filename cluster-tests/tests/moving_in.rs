//! Moving in: a node started on the data directory of a real Prometheus answers what that Prometheus answered,
//! from its log and equally from a block of the same head.

use std::path::{Path, PathBuf};

use koios_cluster_tests::recorded::{cases, copy, differing, fixture};
use koios_cluster_tests::{Api, NodeSpec, scratch};

/// Files and their contents, to see that nothing was changed.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.path() {
            dir if dir.is_dir() => out.extend(contents(&dir)),
            file => out.push((file.clone(), std::fs::read(file).unwrap())),
        }
    }
    out.sort();
    out
}

async fn ask_everything(api: &Api) {
    let cases = cases(&fixture("prometheus-data").join("expected.json.gz"));
    assert!(cases.len() > 30);
    let wrong = differing(api, &cases).await;
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// A configuration without targets: only what was moved in is asked for.
fn spec(name: &str, root: &Path) -> NodeSpec {
    let config = root.join("koios.yml");
    std::fs::write(&config, "global:\n  external_labels: {cluster: eu1}\nscrape_configs: []\n").unwrap();
    NodeSpec::new(name, root).config(&config)
}

#[tokio::test]
async fn from_the_log() {
    let root = scratch();
    let spec = spec("log", root.path());
    for part in ["wal", "chunks_head"] {
        copy(&fixture("prometheus-data").join("data").join(part), &spec.dir.join(part));
    }
    let before = contents(&spec.dir);
    let mut node = spec.start();
    node.ready().await;
    ask_everything(&node.api()).await;
    node.kill();
    // The second start moves nothing in again.
    let node = spec.start();
    node.ready().await;
    ask_everything(&node.api()).await;
    assert_eq!(node.log().matches("moving in").count(), 1);
    for (path, bytes) in before {
        assert!(std::fs::read(&path).unwrap() == bytes, "{} was changed", path.display());
    }
}

#[tokio::test]
async fn from_a_block() {
    let root = scratch();
    let spec = spec("block", root.path());
    let snapshots = fixture("prometheus-data").join("data/snapshots");
    let snapshot = std::fs::read_dir(snapshots).unwrap().next().unwrap().unwrap().path();
    copy(&snapshot, &spec.dir);
    let node = spec.start();
    node.ready().await;
    ask_everything(&node.api()).await;
}

#[tokio::test]
async fn a_crash_while_moving_in_is_harmless() {
    let root = scratch();
    let spec = spec("torn", root.path());
    copy(&fixture("prometheus-data").join("data/wal"), &spec.dir.join("wal"));
    std::fs::write(spec.dir.join("moved-in"), "begun\n").unwrap();
    // What an earlier attempt left: a head that cannot even be read.
    std::fs::create_dir_all(spec.dir.join("head/shard-0/wal")).unwrap();
    std::fs::write(spec.dir.join("head/shard-0/wal/00000001.wal"), "half").unwrap();
    let node = spec.start();
    node.ready().await;
    let count = node.api().number("count({__name__=~\".+\"})", 1_795_354_619.0).await.unwrap();
    assert_eq!(count, 1551.0);
}
