//! Blocks in an object store are read by ranges: little more is fetched than a question needs, and nothing twice.
//!
//! What is needed is counted here from a copy of the block on disk, not by the store's own counters.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use koios_block::{Block, BlockMetaExtras, BlockWriter, Piece, index_parts};
use koios_chunk::encode_xor;
use koios_model::{BlockId, Columns, Labels, MatchType, Matcher};
use koios_objstore::faults::{Fault, Faulty};
use koios_objstore::transfer::upload_block;
use koios_objstore::{Bucket, ObjstoreError};
use koios_store::counts::Data;
use koios_store::served::SharedBlock;
use koios_store::{Depth, Dress, Question, Shelf, StoreError};

const SERIES: i64 = 300;
const DAY_MS: i64 = 86_400_000;
const STEP_MS: i64 = 60_000;

fn id(n: u64) -> BlockId {
    BlockId::from_parts(n, 0)
}

/// A day of three metrics of 300 series each.
fn made(dir: &Path, n: u64) -> std::path::PathBuf {
    let mut w = BlockWriter::create(dir, id(n)).unwrap();
    for name in ["cpu", "disk", "net"] {
        let mut all: Vec<Labels> = (0..SERIES)
            .map(|i| {
                Labels::from_pairs([
                    ("__name__", name),
                    ("host", &format!("host{i}")),
                    ("zone", ["a", "b"][i as usize % 2]),
                ])
            })
            .collect();
        all.sort();
        for (i, labels) in all.iter().enumerate() {
            let mut samples = Columns::default();
            let value = |t: i64| (t / 7919 * (i as i64 + 3) % 1013) as f64;
            (0..DAY_MS / STEP_MS).for_each(|k| samples.push(k * STEP_MS, value(k * STEP_MS)));
            w.add_series(labels, &encode_xor(&samples, 120)).unwrap();
        }
    }
    w.finish(0, DAY_MS, BlockMetaExtras::default()).unwrap();
    dir.join(id(n).to_string())
}

struct Bench {
    dir: tempfile::TempDir,
    faulty: Arc<Faulty>,
    bucket: Bucket,
    local: Block,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let faulty = Arc::new(Faulty::in_memory(7));
        let bucket = Bucket::over(faulty.clone(), None, id(99)).await.unwrap();
        let made = made(dir.path(), 1);
        upload_block(&bucket, &made, id(1)).await.unwrap();
        Self { local: Block::open(&made).unwrap(), dir, faulty, bucket }
    }

    fn shelf(&self, cache: &str) -> Shelf {
        Shelf::new(self.bucket.clone(), self.dir.path().join(cache), Labels::empty())
    }

    fn header_bytes(&self) -> u64 {
        let index = std::fs::read(self.local.dir().join("index")).unwrap();
        index_parts(&index, index.len() as u64).unwrap().iter().map(|r| r.end - r.start).sum()
    }

    /// Bytes of lists, entries and chunks that a selection reads.
    fn needed(&self, matchers: &[Matcher], range: (i64, i64)) -> u64 {
        let numbers = self.local.index().select(matchers).unwrap();
        let mut pieces: Vec<Piece> = self.local.lists_wanted(matchers).unwrap();
        pieces.extend(self.local.series_wanted(&numbers));
        self.local.chunks_wanted(&numbers, range, None, &mut pieces).unwrap();
        pieces.iter().map(|p| self.local.exact(p).unwrap()).map(|r| r.end - r.start).sum()
    }
}

fn matcher(kind: MatchType, name: &str, value: &str) -> Matcher {
    Matcher::new(kind, name, value).unwrap()
}

fn asking(matchers: Vec<Matcher>, depth: Depth) -> Question {
    let (picked_max, series_max, bytes_max) = (u64::MAX, u64::MAX, u64::MAX);
    Question {
        matchers: matchers.into(),
        dress: Dress::Home,
        depth,
        keep: None,
        picked_max,
        series_max,
        bytes_max,
    }
}

async fn prepared(shelf: &Shelf, question: &Question, range: (i64, i64)) -> Result<SharedBlock, StoreError> {
    let block = shelf.get(id(1)).await?;
    shelf.prepare(&block, question, range).await?;
    Ok(block)
}

fn questions() -> Vec<(Vec<Matcher>, (i64, i64))> {
    let name = |n: &str| matcher(MatchType::Equal, "__name__", n);
    vec![
        (vec![name("disk")], (0, DAY_MS)),
        (vec![name("disk"), matcher(MatchType::Equal, "host", "host17")], (0, DAY_MS)),
        (vec![name("cpu"), matcher(MatchType::Regex, "host", "host[0-9]*7")], (0, DAY_MS)),
        (vec![name("net"), matcher(MatchType::NotEqual, "zone", "a")], (0, DAY_MS)),
        (vec![name("net"), matcher(MatchType::Equal, "host", "host3")], (DAY_MS / 2, DAY_MS / 2 + 3_600_000)),
        (vec![], (0, DAY_MS)),
    ]
}

/// Each question meets an empty cache; asked again, it costs nothing, not even after a restart.
#[tokio::test]
async fn little_more_is_fetched_than_is_needed_and_nothing_twice() {
    let b = Bench::new().await;
    let header = b.header_bytes();
    for (n, (matchers, range)) in questions().into_iter().enumerate() {
        let cache = format!("cache{n}");
        let shelf = b.shelf(&cache);
        let question = asking(matchers.clone(), Depth::Chunks);
        let block = prepared(&shelf, &question, range).await.unwrap();
        let want = b.local.select(&matchers, range.0, range.1).unwrap();
        assert!(!want.is_empty());
        assert_eq!(block.select(&matchers, range.0, range.1).unwrap(), want, "{matchers:?}");
        let (fetched, touched) = shelf.counts().bytes();
        let needed = header + b.needed(&matchers, range);
        assert_eq!(touched, needed, "{matchers:?}: the counters say what was needed");
        assert!(fetched * 10 <= needed * 13, "{matchers:?}: {fetched} bytes fetched, {needed} needed");
        let requests: u64 =
            Data::ALL.iter().map(|d| shelf.counts().of(*d).requests.load(Ordering::Relaxed)).sum();
        assert!(requests < 250, "{matchers:?}: {requests} requests");

        let asked = b.faulty.asked();
        prepared(&shelf, &question, range).await.unwrap();
        let again = b.shelf(&cache);
        let block = prepared(&again, &question, range).await.unwrap();
        assert_eq!(block.select(&matchers, range.0, range.1).unwrap(), want);
        assert_eq!(b.faulty.asked(), asked, "{matchers:?}: nothing is fetched twice");
    }
}

/// Answers without samples need no chunks, and label names nothing but the header.
#[tokio::test]
async fn only_as_deep_as_the_question() {
    let b = Bench::new().await;
    let shelf = b.shelf("cache");
    let bytes = |data: Data| shelf.counts().of(data).fetched_bytes.load(Ordering::Relaxed);
    let block = prepared(&shelf, &asking(vec![], Depth::Words), (0, DAY_MS)).await.unwrap();
    assert_eq!(block.label_values("host", &[], Dress::Home).unwrap().len(), SERIES as usize);
    assert_eq!(bytes(Data::Postings) + bytes(Data::Series), 0);
    let disk = vec![matcher(MatchType::Equal, "__name__", "disk")];
    for depth in [Depth::Words, Depth::Series] {
        let block = prepared(&shelf, &asking(disk.clone(), depth), (0, DAY_MS)).await.unwrap();
        assert_eq!(block.block().series_labels(&disk).unwrap().len(), SERIES as usize);
    }
    assert_eq!(bytes(Data::Chunks), 0);
    let why = block.select(&disk, 0, DAY_MS).unwrap_err().to_string();
    assert!(why.contains("of chunks/000001 is not here"), "{why}");
    let shard: koios_store::prepare::Keep = Arc::new(|l: &Labels| l.hash64().is_multiple_of(4));
    let some = Question { keep: Some((shard, "0 of 4".into())), ..asking(disk.clone(), Depth::Chunks) };
    prepared(&shelf, &some, (0, DAY_MS)).await.unwrap();
    let part = bytes(Data::Chunks);
    let bounded = Question { bytes_max: 1, ..asking(disk, Depth::Chunks) };
    prepared(&shelf, &bounded, (0, DAY_MS)).await.unwrap();
    assert_eq!(bytes(Data::Chunks), part, "what nobody will get is not fetched");
    let all = std::fs::metadata(b.local.dir().join("chunks/000001")).unwrap().len();
    assert!(part > 0 && part < all / 3 / 2, "{part} of {all} bytes for a quarter of a third");
}

/// Two that want the same at once fetch it once.
#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_share_what_comes() {
    let b = Bench::new().await;
    let (one, many) = (b.shelf("one"), b.shelf("many"));
    let question = asking(vec![], Depth::Chunks);
    prepared(&one, &question, (0, DAY_MS)).await.unwrap();
    let asked = (0..8).map(|_| prepared(&many, &question, (0, DAY_MS)));
    for done in futures::future::join_all(asked).await {
        assert_eq!(done.unwrap().select(&[], 0, DAY_MS).unwrap().len() as i64, 3 * SERIES);
    }
    assert_eq!(many.counts().bytes().0, one.counts().bytes().0);
}

/// A copy whose chunks rot on disk is fetched again, as far as it does not verify.
#[tokio::test]
async fn what_rots_on_disk_is_not_served() {
    let b = Bench::new().await;
    let question = asking(vec![], Depth::Chunks);
    let want = b.local.select(&[], 0, DAY_MS).unwrap();
    prepared(&b.shelf("cache"), &question, (0, DAY_MS)).await.unwrap();
    let dir = b.dir.path().join("cache").join(id(1).to_string());
    for (file, at) in [("chunks/000001", 5000), ("index", 30_000), ("index", 100)] {
        let mut bytes = std::fs::read(dir.join(file)).unwrap();
        bytes[at] ^= 4;
        std::fs::write(dir.join(file), bytes).unwrap();
        let block = prepared(&b.shelf("cache"), &question, (0, DAY_MS)).await.unwrap();
        assert_eq!(block.select(&[], 0, DAY_MS).unwrap(), want, "{file} at {at}");
    }
}

/// While the store is away, what is here is answered, and the rest says that the store is away.
#[tokio::test]
async fn a_store_that_is_away_is_no_damage() {
    let b = Bench::new().await;
    let shelf = b.shelf("cache");
    let disk = asking(vec![matcher(MatchType::Equal, "__name__", "disk")], Depth::Chunks);
    prepared(&shelf, &disk, (0, DAY_MS)).await.unwrap();
    b.faulty.set(vec![Fault::Away]);
    prepared(&shelf, &disk, (0, DAY_MS)).await.unwrap();
    let net = asking(vec![matcher(MatchType::Equal, "__name__", "net")], Depth::Chunks);
    let refused = prepared(&shelf, &net, (0, DAY_MS)).await;
    assert!(matches!(refused, Err(StoreError::Bucket(ObjstoreError::Store { .. }))), "{refused:?}");
    assert!(shelf.damaged().is_empty());
    b.faulty.set(Vec::new());
    prepared(&shelf, &net, (0, DAY_MS)).await.unwrap();
}
