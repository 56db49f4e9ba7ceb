//! A bucket of two-hour blocks that Koios compacts: a node then answers from it what Thanos answered after its own compactor.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use koios_cluster_tests::peers::prometheus;
use koios_cluster_tests::recorded::{cases, copy, differing, fixture, on_thanos_bucket};
use koios_cluster_tests::{Api, binary, scratch, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the tool on the bucket below `root`.
fn compact(root: &Path, flags: &[&str]) -> Output {
    let yaml = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\n", root.join("bucket").display());
    let done = std::process::Command::new(binary::koios())
        .args(["blocks", "compact", "--once", &format!("--objstore.config={yaml}")])
        .arg(format!("--storage.path={}", root.join("data").display()))
        .args(flags)
        .output()
        .expect("the binary runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done
}

fn raw(root: &Path) {
    copy(&fixture("thanos-raw/bucket"), &root.join("bucket"));
}

/// Asks every `step`th question.
async fn answers(name: &str, root: &Path, expected: &str, step: usize) {
    let node = on_thanos_bucket(name, root).arg("--query.replica-label=replica").start();
    node.ready().await;
    let all = cases(&fixture(expected));
    assert!(all.len() > 150);
    let cases: Vec<Value> = all.into_iter().step_by(step).collect();
    let wrong = differing(&node.api(), &cases).await;
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_compacted_bucket_answers_as_thanos_did() {
    let root = scratch();
    raw(root.path());
    let said = String::from_utf8(compact(root.path(), &[]).stdout).unwrap();
    assert!(said.contains("552 blocks became 34"), "{said}");
    answers("plain", root.path(), "thanos-bucket/expected.json.gz", 1).await;
    let again = String::from_utf8(compact(root.path(), &["--dry-run"]).stdout).unwrap();
    assert!(again.contains("0 steps"), "a fixpoint: {again}");
}

/// Before the sources are deleted nobody reads them twice, and after that they are not missed. Debian's tools read what is left.
#[tokio::test]
async fn a_deduplicated_bucket_answers_as_thanos_did() {
    let root = scratch();
    raw(root.path());
    let flags = ["--deduplication.replica-label=replica", "--deduplication.func=penalty"];
    compact(root.path(), &flags);
    answers("waiting", root.path(), "thanos-raw/expected-dedup.json.gz", 30).await;
    let said = compact(root.path(), &[&flags[..], &["--delete-delay=0s"]].concat());
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("0 merges of 0 blocks") && said.contains("became 17 in"), "{said}");
    answers("deduplicated", root.path(), "thanos-raw/expected-dedup.json.gz", 1).await;
    debians_tools_read_it(root.path()).await;
}

fn blocks(root: &Path) -> Vec<(PathBuf, Value)> {
    let entries =
        std::fs::read_dir(root.join("bucket")).expect("a bucket").map(|e| e.expect("an entry").path());
    let meta = |dir: &PathBuf| std::fs::read(dir.join("meta.json")).ok();
    let of = |dir: PathBuf| Some((meta(&dir).map(|m| serde_json::from_slice(&m).expect("JSON"))?, dir));
    entries.filter_map(of).map(|(meta, dir)| (dir, meta)).collect()
}

async fn debians_tools_read_it(root: &Path) {
    if !binary::peer("promtool") || !binary::peer("prometheus") {
        return;
    }
    let all = blocks(root);
    assert_eq!(all.len(), 17);
    std::fs::create_dir_all(root.join("bucket/wal")).unwrap();
    for (dir, meta) in &all {
        let id = meta["ulid"].as_str().expect("an id");
        let mut tool = std::process::Command::new("promtool");
        let done =
            tool.args(["tsdb", "analyze"]).arg(root.join("bucket")).arg(id).output().expect("promtool runs");
        assert!(done.status.success(), "{id}: {}", String::from_utf8_lossy(&done.stderr));
        // It does not know downsampled chunks.
        if meta["thanos"]["downsample"]["resolution"].as_i64() != Some(0) {
            std::fs::remove_dir_all(dir).expect("its own bucket");
        }
    }
    let config = root.join("prometheus.yml");
    std::fs::write(&config, "scrape_configs: []\n").unwrap();
    let theirs = prometheus(&root.join("bucket"), &config);
    let api = Api::new(([127, 0, 0, 1], theirs.port).into());
    let ask = [("query", "count({__name__=~\"demo_.*\"})"), ("time", "1790300000")];
    let data = until("Prometheus reads the blocks", PATIENCE, || api.data("/api/v1/query", &ask)).await;
    assert_eq!(data["result"][0]["value"][1], "61");
    theirs.end(PATIENCE);
}

/// A block that cannot be read is marked and stays, what was uploaded by half goes, and the rest is compacted.
#[test]
fn what_is_bad_stops_nothing() {
    let root = scratch();
    let bucket = root.path().join("bucket");
    let source = fixture("thanos-raw/bucket");
    let mut names: Vec<_> = std::fs::read_dir(&source).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names[..40].iter().for_each(|n| copy(&source.join(n), &bucket.join(n)));
    let bad = bucket.join(&names[5]);
    let mut chunks = std::fs::read(bad.join("chunks/000001")).unwrap();
    let middle = chunks.len() / 2;
    chunks[middle] ^= 0x55;
    std::fs::write(bad.join("chunks/000001"), chunks).unwrap();
    let half = bucket.join("01M81Q5Q9XCZ1RMFJB6H6BW6ZZ");
    std::fs::create_dir_all(half.join("chunks")).unwrap();
    let file = std::fs::File::create(half.join("chunks/000001")).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    file.set_times(std::fs::FileTimes::new().set_modified(old)).unwrap();
    let said = String::from_utf8(compact(root.path(), &["--delete-delay=0s"]).stdout).unwrap();
    let name = names[5].to_string_lossy();
    assert!(
        said.contains(&format!("passed over {name}")) && said.contains("1 partial uploads removed"),
        "{said}"
    );
    assert!(!half.exists() && bad.join("no-compact-mark.json").exists() && bad.join("meta.json").exists());
    assert!(blocks(root.path()).len() < 20, "{said}");
    let again = String::from_utf8(compact(root.path(), &["--dry-run"]).stdout).unwrap();
    assert!(again.contains("0 steps"), "{again}");
}
