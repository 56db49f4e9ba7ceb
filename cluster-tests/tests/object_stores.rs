//! Buckets in real object stores: an S3 server (moto) and an Azure one (azurite).
//!
//! The same questions to each: is the condition of a create kept when eight write at once, do lists, ranges, large uploads
//! and removals do what a directory does; and two nodes that share the bucket answer from each other's blocks.

use std::path::Path;
use std::time::Duration;

use koios_cluster_tests::api::now;
use koios_cluster_tests::peers::{S3_SECRET, s3_yaml};
use koios_cluster_tests::{NodeSpec, binary, peers, scratch, until};
use koios_model::BlockId;
use koios_objstore::{Bucket, BucketConfig, ObjstoreError, transfer};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

fn azure_yaml(port: u16, prefix: &str) -> String {
    let (account, key) = peers::AZURE_ACCOUNT;
    format!(
        "type: AZURE\nprefix: {prefix}\nconfig:\n  container: koios\n  storage_connection_string: 'DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};BlobEndpoint=http://127.0.0.1:{port}/{account};'\n"
    )
}

fn id(n: u64) -> BlockId {
    BlockId::from_parts(n, 3)
}

async fn open(yaml: &str, fresh: u64) -> Bucket {
    let env = |name: &str| (name == S3_SECRET.0).then(|| S3_SECRET.1.to_owned());
    let config = BucketConfig::parse(yaml, Path::new("."), &env).expect("a good file");
    Bucket::open(&config, id(fresh)).await.expect("the bucket opens")
}

async fn joined<T: 'static>(tasks: impl Iterator<Item = JoinHandle<T>>) -> Vec<T> {
    let (tasks, mut ends): (Vec<_>, Vec<T>) = (tasks.collect(), Vec::new());
    for task in tasks {
        ends.push(task.await.expect("no panic"));
    }
    ends
}

async fn does_what_a_bucket_does(yaml: &str) {
    let bucket = open(yaml, 1).await;
    assert!(bucket.is_conditional() && bucket.local_root().is_none());
    assert_eq!(open(yaml, 2).await.id(), bucket.id(), "who opens it later finds the same bucket");

    let tries = (0..8u8).map(|n| {
        let bucket = bucket.clone();
        tokio::spawn(async move { bucket.create("_koios/once", vec![n]).await })
    });
    let tries = joined(tries).await;
    let won: Vec<u8> = (0..8u8).filter(|n| tries[usize::from(*n)].is_ok()).collect();
    assert_eq!(won.len(), 1, "{tries:?}");
    assert_eq!(bucket.get("_koios/once").await.expect("it is there"), won);
    assert!(matches!(bucket.create("_koios/once", vec![99]).await, Err(ObjstoreError::Exists(_))));

    let dir = scratch();
    let block = dir.path().join("block");
    std::fs::create_dir_all(block.join("chunks")).expect("directory");
    let big: Vec<u8> = (0..9_500_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(block.join("chunks/000001"), &big).expect("file");
    std::fs::write(block.join("index"), b"index").expect("file");
    std::fs::write(block.join("meta.json"), b"{}").expect("file");
    transfer::upload_block(&bucket, &block, id(5)).await.expect("uploaded in parts");
    assert_eq!(bucket.list_blocks().await.expect("list"), [id(5)]);
    let chunks = format!("{}/chunks/000001", id(5));
    assert_eq!(
        bucket.get_range(&chunks, 8_388_600..8_388_700).await.expect("range"),
        big[8_388_600..8_388_700]
    );
    assert!(bucket.get_range(&chunks, 9_499_990..9_500_010).await.is_err(), "past the end");
    let back = transfer::fetch_block(&bucket, dir.path(), id(5)).await.expect("fetched");
    assert!(std::fs::read(back.join("chunks/000001")).expect("file") == big);
    transfer::delete_block(&bucket, id(5)).await.expect("removed");
    assert!(bucket.list_blocks().await.expect("list").is_empty());
    assert!(matches!(bucket.get(&chunks).await, Err(ObjstoreError::NotFound(_))));
    bucket.delete(&chunks).await.expect("what is gone may be removed again");
}

/// Samples pushed to one node, which is then drained, are answered by another from the bucket.
async fn two_nodes_share_it(yaml: &str) {
    let dir = scratch();
    let file = dir.path().join("bucket.yml");
    std::fs::write(&file, yaml).expect("file");
    let flag = format!("--objstore.config-file={}", file.display());
    let secret = [(S3_SECRET.0, S3_SECRET.1.to_owned())];
    let first = NodeSpec::new("first", dir.path()).arg(&flag);
    let second = NodeSpec::new("second", dir.path()).arg(&flag);
    let mut one = first.start_with(&secret);
    one.ready().await;
    let counted = format!("sum(count_over_time(up{{instance=\"{}\"}}[5m]))", first.http());
    let least =
        until("it scraped itself", PATIENCE, || async { one.api().number(&counted, now()).await }).await;
    one.terminate();
    assert!(one.wait(PATIENCE).is_some_and(|s| s.success()), "{}", one.log());

    let two = second.start_with(&secret);
    two.ready().await;
    until("the second answers from the bucket", PATIENCE, || async {
        let got = two.api().number(&counted, now()).await?;
        if got >= least { Ok(()) } else { Err(format!("{got} of {least}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_in_s3() {
    if !binary::peer("moto_server") {
        return;
    }
    let server = peers::s3().await;
    does_what_a_bucket_does(&s3_yaml(server.port, "")).await;
    does_what_a_bucket_does(&s3_yaml(server.port, "a/b")).await;
    two_nodes_share_it(&s3_yaml(server.port, "nodes")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_in_azure() {
    if !binary::peer("azurite-blob") {
        return;
    }
    let dir = scratch();
    let server = peers::azure(dir.path()).await;
    does_what_a_bucket_does(&azure_yaml(server.port, "")).await;
    two_nodes_share_it(&azure_yaml(server.port, "nodes")).await;
}
