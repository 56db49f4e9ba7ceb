//! The lines that `koios blocks` takes, run on small buckets.

use super::*;
use clap::Parser as _;
use koios_block::meta::ThanosMeta;
use koios_block::{BlockMetaExtras, BlockWriter};
use koios_model::{Columns, Labels, ManualClock};

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    what: Blocks,
}

fn id(n: u64) -> BlockId {
    BlockId::from_parts(n, n as u128)
}

fn made(data: &std::path::Path, n: u64, (mint, maxt): (i64, i64), sources: &[u64]) {
    let bucket = data.join("bucket");
    std::fs::create_dir_all(&bucket).unwrap();
    let mut samples = Columns::default();
    (0..10).for_each(|i| samples.push(mint + i, i as f64));
    let mut w = BlockWriter::create(&bucket, id(n)).unwrap();
    w.add_series(&Labels::from_pairs([("__name__", "m")]), &koios_chunk::encode_xor(&samples, 120)).unwrap();
    let labels = [("cluster".to_owned(), if n == 3 { "us" } else { "eu" }.to_owned())].into();
    let thanos = ThanosMeta { labels, source: "sidecar".into(), ..ThanosMeta::default() };
    let sources = sources.iter().map(|n| id(*n)).collect();
    w.finish(mint, maxt, BlockMetaExtras { thanos: Some(thanos), sources, ..BlockMetaExtras::default() })
        .unwrap();
}

async fn ran(data: &std::path::Path, words: &[&str]) -> (Result<(), String>, String) {
    let path = format!("--storage.path={}", data.display());
    let line = Line::try_parse_from(["blocks"].iter().chain(words).copied().chain([path.as_str()])).unwrap();
    let mut out = Vec::new();
    let clock = ManualClock::at(1_700_000_000_000);
    let done = work(line.what, &*clock, &mut out).await;
    (done, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn blocks_are_listed_marked_and_chosen() {
    let dir = tempfile::tempdir().unwrap();
    assert!(ran(dir.path(), &["ls"]).await.0.unwrap_err().contains("--storage.path"), "nothing is begun");
    made(dir.path(), 1, (7_200_000, 14_400_000), &[]);
    made(dir.path(), 2, (0, 7_200_000), &[]);
    made(dir.path(), 3, (0, 7_200_000), &[]);
    let one = format!("--id={}", id(1));
    let mark = ["mark", "--marker=deletion-mark.json", &one, "--details=too old"];
    ran(dir.path(), &mark).await.0.unwrap();
    assert!(ran(dir.path(), &mark).await.0.unwrap_err().contains("--remove"), "its time stays");
    let file = dir.path().join("bucket").join(id(1).to_string()).join("deletion-mark.json");
    let said: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let want =
        json!({"id": id(1).to_string(), "version": 1, "details": "too old", "deletion_time": 1_700_000_000});
    assert_eq!(said, want);

    let (_, listed) = ran(dir.path(), &["ls"]).await;
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines.len(), 4, "{listed}");
    let words: Vec<&str> = lines[1].split_whitespace().collect();
    let first = id(1).to_string();
    assert_eq!(words[..2], [first.as_str(), "1970-01-01T02:00:00.000Z"]);
    assert_eq!(words[3..9], ["2h", "1", "0s", "1", "10", "1"]);
    assert_eq!(words[10..], ["sidecar", "cluster=eu", "deletion-mark.json"]);
    let (_, json) = ran(dir.path(), &["ls", "--output=json"]).await;
    assert_eq!(BlockMeta::parse(json.lines().next().unwrap().as_bytes()).unwrap().ulid, id(1));
    let (_, csv) = ran(dir.path(), &["inspect", "--output=csv", "-l", "cluster=\"eu\""]).await;
    let ids: Vec<&str> = csv.lines().skip(1).map(|l| l.split(',').next().unwrap()).collect();
    assert_eq!(ids, [id(2).to_string(), first], "by time, of one cluster");
    assert!(ran(dir.path(), &["inspect", "--sort-by=x"]).await.0.unwrap_err().contains("COMP-LEVEL"));

    ran(dir.path(), &["mark", "--marker=deletion-mark.json", &one, "--remove"]).await.0.unwrap();
    assert!(!file.exists());
    let missing = format!("--id={}", id(9));
    let gone = ran(dir.path(), &["mark", "--marker=no-compact-mark.json", &missing, "--details=x"]).await.0;
    assert!(gone.unwrap_err().contains("does not exist"), "no mark without a block");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    made(dir.path(), 1, (0, 7_200_000), &[]);
    made(dir.path(), 2, (7_200_000, 14_400_000), &[]);
    made(dir.path(), 3, (0, 14_400_000), &[]);
    made(dir.path(), 4, (0, 14_400_000), &[1, 2]);
    let (done, said) = ran(dir.path(), &["verify"]).await;
    assert_eq!((done, said.as_str()), (Ok(()), "4 blocks, nothing is wrong\n"), "a block and its sources");
    made(dir.path(), 5, (0, 14_400_000), &[1, 2]);
    made(dir.path(), 6, (7_000_000, 7_200_000), &[]);
    let chunks = dir.path().join("bucket").join(id(2).to_string()).join("chunks/000001");
    let mut bytes = std::fs::read(&chunks).unwrap();
    let end = bytes.len();
    bytes[end - 6] ^= 0x20;
    std::fs::write(&chunks, bytes).unwrap();
    let (done, said) = ran(dir.path(), &["verify"]).await;
    assert!(done.unwrap_err().contains("issues in 6 blocks"), "{said}");
    for words in [
        format!("damaged {}: ", id(2)),
        format!("duplicated-compaction {} {}", id(4), id(5)),
        format!("overlapped-blocks {} {}", id(1), id(6)),
    ] {
        assert!(said.contains(&words), "want {words:?} in:\n{said}");
    }
    assert!(!said.contains(&id(3).to_string()), "other labels are another group: {said}");
    let (done, said) = ran(dir.path(), &["verify", &format!("--id={}", id(3))]).await;
    assert_eq!((done, said.as_str()), (Ok(()), "1 blocks, nothing is wrong\n"));
}
