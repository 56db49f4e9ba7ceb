//! A bucket of two-hour blocks that Koios compacts: a node then answers from it what Thanos answered after its own compactor.

use std::path::Path;
use std::process::Output;

use koios_cluster_tests::recorded::{cases, copy, differing, fixture, on_thanos_bucket};
use koios_cluster_tests::{binary, scratch};
use serde_json::Value;

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

#[tokio::test]
async fn a_deduplicated_bucket_answers_as_thanos_did() {
    let root = scratch();
    raw(root.path());
    let flags =
        ["--deduplication.replica-label=replica", "--deduplication.func=penalty", "--delete-delay=0s"];
    let said = String::from_utf8(compact(root.path(), &flags).stdout).unwrap();
    assert!(said.contains("552 blocks became 17"), "{said}");
    answers("deduplicated", root.path(), "thanos-raw/expected-dedup.json.gz", 1).await;
}

/// What is marked for deletion stays for two days, and nobody reads it twice.
#[tokio::test]
async fn sources_that_wait_for_deletion_do_not_count() {
    let root = scratch();
    raw(root.path());
    let flags = ["--deduplication.replica-label=replica", "--deduplication.func=penalty"];
    compact(root.path(), &flags);
    answers("waiting", root.path(), "thanos-raw/expected-dedup.json.gz", 7).await;
}
