//! What a bucket does on bad days, scenario by scenario, to the catalogue and the shelf.
//!
//! The store of `koios_objstore::faults` misbehaves; nothing may be lost, doubled, given up too early or held for ever.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use koios_block::{BlockMetaExtras, BlockWriter};
use koios_chunk::encode_xor;
use koios_model::{BlockId, Columns, Labels, ManualClock, SystemClock};
use koios_objstore::faults::{Fault, Faulty};
use koios_objstore::transfer::{self, delete_block, upload_block};
use koios_objstore::{Bucket, BucketConfig, ObjstoreError};
use koios_store::served::SharedBlock;
use koios_store::{Catalogue, Depth, Dress, Question, Shelf, StoreError, Visibility};

/// More tries than a fault of 30 % can outlive.
const TRIES: usize = 200;
const SAMPLES: i64 = 200;

fn catalogue(bucket: Bucket) -> Catalogue {
    Catalogue::new(bucket, SystemClock::shared(), Visibility::default())
}

fn id(n: u64) -> BlockId {
    BlockId::from_parts(n, 0)
}

/// A block directory of 200 samples.
fn made(dir: &Path, n: u64) -> std::path::PathBuf {
    let mut samples = Columns::default();
    (0..SAMPLES).for_each(|i| samples.push(i * 1000, (i * i) as f64));
    let mut w = BlockWriter::create(dir, id(n)).unwrap();
    w.add_series(&Labels::from_pairs([("__name__", "m")]), &encode_xor(&samples, 120)).unwrap();
    w.finish(0, SAMPLES * 1000, BlockMetaExtras::default()).unwrap();
    dir.join(id(n).to_string())
}

struct Bench {
    dir: tempfile::TempDir,
    faulty: Arc<Faulty>,
    bucket: Bucket,
    catalogue: Catalogue,
    shelf: Shelf,
    clock: Arc<ManualClock>,
}

impl Bench {
    /// With blocks 1 to `blocks` in the bucket.
    async fn new(blocks: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let faulty = Arc::new(Faulty::in_memory(7));
        let bucket = Bucket::over(faulty.clone(), None, id(99)).await.unwrap();
        for n in 1..=blocks {
            upload_block(&bucket, &made(dir.path(), n), id(n)).await.unwrap();
        }
        let clock = ManualClock::at(0);
        let cache = dir.path().join("cache");
        let shelf = Shelf::new(bucket.clone(), cache, Labels::empty()).with_clock(clock.clone());
        let catalogue = catalogue(bucket.clone());
        Self { dir, faulty, bucket, catalogue, shelf, clock }
    }

    async fn refreshed(&mut self) -> Result<Vec<BlockId>, StoreError> {
        Ok(self.catalogue.refresh().await?.blocks().keys().copied().collect())
    }

    fn shown(&self) -> Vec<BlockId> {
        self.catalogue.view().blocks().keys().copied().collect()
    }

    /// Samples that a block answers with.
    async fn read(&self, n: u64) -> Result<usize, StoreError> {
        let block = whole(&self.shelf, n).await?;
        let found = block.select(&[], 0, i64::MAX)?;
        Ok(found.iter().flat_map(|s| &s.chunks).map(|c| c.sample_count().unwrap()).sum())
    }
}

/// A block of which everything is here.
async fn whole(shelf: &Shelf, n: u64) -> Result<SharedBlock, StoreError> {
    let block = shelf.get(id(n)).await?;
    shelf.prepare(&block, &everything(), (0, i64::MAX)).await?;
    Ok(block)
}

fn everything() -> Question {
    let (matchers, dress, depth) = ([].into(), Dress::Home, Depth::Chunks);
    let (picked_max, series_max, bytes_max) = (u64::MAX, u64::MAX, u64::MAX);
    Question { matchers, dress, depth, keep: None, picked_max, series_max, bytes_max }
}

/// Until it works, which it must soon.
async fn insist<T, E: std::fmt::Display>(what: &str, mut work: impl AsyncFnMut() -> Result<T, E>) -> T {
    let mut last = String::new();
    for _ in 0..TRIES {
        match work().await {
            Ok(done) => return done,
            Err(e) => last = e.to_string(),
        }
    }
    panic!("{what}: {last}");
}

/// Scenario 16.
#[tokio::test]
async fn s16_a_third_of_all_requests_fails_and_everything_converges() {
    let mut b = Bench::new(0).await;
    let (one, many) = (made(b.dir.path(), 1), 100u64);
    for n in 2..=many {
        b.bucket.put(&format!("{}/meta.json", id(n)), meta_of(b.dir.path(), n)).await.unwrap();
    }
    b.faulty.set(vec![Fault::Errors { share: 0.3 }]);
    insist("upload", async || upload_block(&b.bucket, &one, id(1)).await).await;
    let shown = insist("catalogue", async || b.refreshed().await).await;
    assert_eq!(shown, (1..=many).map(id).collect::<Vec<_>>(), "each once");
    assert_eq!(insist("fetch", async || b.read(1).await).await, SAMPLES as usize);
    b.faulty.set(Vec::new());
    let files = b.bucket.list(&id(1).to_string()).await.unwrap();
    assert_eq!(files.len(), 4, "one block and nothing beside it: {files:?}");
}

fn meta_of(dir: &Path, n: u64) -> Vec<u8> {
    let block = dir.join(id(n).to_string());
    let block = if block.exists() { block } else { made(dir, n) };
    std::fs::read(block.join("meta.json")).unwrap()
}

/// Scenario 17.
#[tokio::test]
async fn s17_the_picture_outlives_an_absence() {
    let mut b = Bench::new(2).await;
    b.refreshed().await.unwrap();
    assert_eq!(b.read(1).await.unwrap(), SAMPLES as usize);
    b.faulty.set(vec![Fault::Away]);
    let why = b.refreshed().await.unwrap_err().to_string();
    assert!(why.contains("no route to the store"), "{why}");
    assert_eq!(b.shown(), [id(1), id(2)], "the last picture");
    assert_eq!(b.read(1).await.unwrap(), SAMPLES as usize, "what is here is served");
    assert!(matches!(b.read(2).await, Err(StoreError::Bucket(_))), "what is not is no damage");
    assert!(b.shelf.damaged().is_empty());
    b.faulty.set(Vec::new());
    assert_eq!(b.refreshed().await.unwrap(), [id(1), id(2)]);
    assert_eq!(b.read(2).await.unwrap(), SAMPLES as usize);
}

/// Scenario 18.
#[tokio::test]
async fn s18_a_deadline_ends_the_wait_and_nothing_stays_held() {
    let b = Bench::new(8).await;
    let stalls = [Fault::Stall { share: 1.0 }, Fault::Slow { share: 1.0, time: Duration::from_secs(3600) }];
    for fault in stalls {
        b.faulty.set(vec![fault]);
        // More at once than may be fetched at once, and two for the same block.
        let asked = [1, 2, 3, 4, 5, 5].map(|n| b.shelf.get(id(n)));
        let waits = tokio::time::timeout(Duration::from_millis(100), futures::future::join_all(asked)).await;
        assert!(waits.is_err(), "{fault:?} does not end by itself");
    }
    b.faulty.set(Vec::new());
    for n in 1..=8 {
        let read = tokio::time::timeout(Duration::from_secs(20), b.read(n)).await;
        assert_eq!(read.expect("nobody holds it").unwrap(), SAMPLES as usize);
    }
}

/// Scenario 18: a block that stalls does not stop another.
#[tokio::test]
async fn s18_other_blocks_are_fetched_beside_one_that_stalls() {
    let b = Bench::new(2).await;
    b.faulty.set(vec![Fault::Stall { share: 1.0 }]);
    let mut stalled = Box::pin(b.shelf.get(id(1)));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut stalled).await.is_err());
    b.faulty.set(Vec::new());
    let read = tokio::time::timeout(Duration::from_secs(20), b.read(2)).await;
    assert_eq!(read.expect("the other one's lock is its own").unwrap(), SAMPLES as usize);
}

/// Scenario 21.
#[tokio::test]
async fn s21_no_block_is_given_up_on_one_list() {
    let mut b = Bench::new(1).await;
    b.refreshed().await.unwrap();
    b.faulty.set(vec![Fault::StaleLists, Fault::LateReads]);
    upload_block(&b.bucket, &made(b.dir.path(), 2), id(2)).await.unwrap();
    assert_eq!(b.refreshed().await.unwrap(), [id(1)], "not seen yet");
    b.faulty.set(vec![Fault::LateReads]);
    b.bucket.put(&format!("{}/meta.json", id(2)), meta_of(b.dir.path(), 2)).await.unwrap();
    assert_eq!(b.refreshed().await.unwrap(), [id(1)], "listed, and its description is late");
    assert_eq!(b.refreshed().await.unwrap(), [id(1), id(2)]);
    b.faulty.set(vec![Fault::StaleLists]);
    for n in [1, 2] {
        // Written again, an old list does not show it.
        upload_block(&b.bucket, &b.dir.path().join(id(n).to_string()), id(n)).await.unwrap();
    }
    assert!(!b.bucket.list_blocks().await.unwrap().contains(&id(2)), "the list is old");
    assert_eq!(b.refreshed().await.unwrap(), [id(1), id(2)], "the list alone does not decide");
    b.faulty.set(Vec::new());
    delete_block(&b.bucket, id(1)).await.unwrap();
    assert_eq!(b.refreshed().await.unwrap(), [id(2)], "gone is gone");
}

/// Scenario 22.
#[tokio::test]
async fn s22_bodies_that_are_short_or_changed_are_never_served() {
    for fault in [Fault::Cut { share: 0.3 }, Fault::Flip { share: 0.2 }] {
        let mut b = Bench::new(4).await;
        b.faulty.set(vec![fault]);
        let shown = insist("catalogue", async || {
            let shown = b.refreshed().await.map_err(|e| e.to_string())?;
            if shown.len() == 4 { Ok(shown) } else { Err(format!("{shown:?}")) }
        });
        shown.await;
        for n in 1..=4 {
            let read = insist("fetch", async || {
                b.clock.advance_ms(61_000);
                b.read(n).await
            });
            assert_eq!(read.await, SAMPLES as usize, "{fault:?}");
        }
        assert!(b.shelf.damaged().is_empty(), "what opens is not damaged");
    }
}

/// Scenario 22: the copy in the bucket itself is damaged.
#[tokio::test]
async fn s22_what_stays_damaged_is_put_aside_and_not_fetched_each_time() {
    let b = Bench::new(2).await;
    let chunks = format!("{}/chunks/000001", id(1));
    let sound = b.bucket.get(&chunks).await.unwrap().to_vec();
    let mut torn = sound.clone();
    torn[40] ^= 1;
    b.bucket.put(&chunks, torn).await.unwrap();
    let why = b.read(1).await.unwrap_err().to_string();
    assert!(why.contains("checksum"), "{why}");
    assert_eq!(b.shelf.damaged().keys().copied().collect::<Vec<_>>(), [id(1)]);
    let asked = b.faulty.asked();
    assert!(matches!(b.read(1).await, Err(StoreError::Damaged { .. })));
    assert_eq!(b.faulty.asked(), asked, "it waits in quarantine");
    assert_eq!(b.read(2).await.unwrap(), SAMPLES as usize, "others are served");
    b.bucket.put(&chunks, sound).await.unwrap();
    b.clock.advance_ms(61_000);
    assert_eq!(b.read(1).await.unwrap(), SAMPLES as usize);
    assert!(b.shelf.damaged().is_empty());
}

/// Scenario 22: the fetched copy is damaged, on this machine's disk.
#[tokio::test]
async fn s22_a_copy_that_rots_is_fetched_again() {
    let b = Bench::new(1).await;
    b.read(1).await.unwrap();
    let index = b.dir.path().join("cache").join(id(1).to_string()).join("index");
    b.shelf.reload(id(1));
    std::fs::write(&index, b"rotten").unwrap();
    assert_eq!(b.read(1).await.unwrap(), SAMPLES as usize);
    assert!(b.shelf.damaged().is_empty());
    b.shelf.mark_damaged(id(1), "a chunk does not decode".to_owned());
    assert!(!index.exists(), "who read in it found it damaged: the copy goes");
    assert_eq!(b.read(1).await.unwrap(), SAMPLES as usize);
}

/// Scenario 24.
#[tokio::test]
async fn s24_somebody_edits_and_deletes_in_the_bucket() {
    let mut b = Bench::new(5).await;
    b.bucket.put(&format!("{}/meta.json", id(2)), b"{\"ulid\": oops".to_vec()).await.unwrap();
    b.bucket.put(&format!("{}/index", id(3)), b"notes".to_vec()).await.unwrap();
    b.bucket.delete(&format!("{}/chunks/000001", id(4))).await.unwrap();
    assert_eq!(b.refreshed().await.unwrap(), [id(1), id(3), id(4), id(5)]);
    assert!(b.catalogue.view().damaged()[&id(2)].starts_with("meta.json: "));
    for _ in 0..3 {
        assert!(matches!(b.read(3).await, Err(StoreError::Damaged { .. })));
        assert!(b.read(4).await.is_err());
        assert_eq!(b.read(1).await.unwrap(), SAMPLES as usize, "the rest is served");
    }
    assert!(b.shelf.damaged().contains_key(&id(3)));
    for (path, _) in b.bucket.list(&id(5).to_string()).await.unwrap() {
        b.bucket.delete(&path).await.unwrap();
    }
    assert_eq!(b.refreshed().await.unwrap(), [id(1), id(3), id(4)]);
    let gone = b.read(5).await;
    assert!(matches!(gone, Err(StoreError::Bucket(ObjstoreError::NotFound(_)))), "{gone:?}");
    for n in [2, 3, 4] {
        upload_block(&b.bucket, &b.dir.path().join(id(n).to_string()), id(n)).await.unwrap();
    }
    b.clock.advance_ms(61_000);
    assert_eq!(b.refreshed().await.unwrap(), [id(1), id(2), id(3), id(4)]);
    for n in 1..=4 {
        assert_eq!(b.read(n).await.unwrap(), SAMPLES as usize, "put back, it is served");
    }
}

/// Scenario 25.
#[tokio::test]
async fn s25_credentials_that_expire_lose_nothing() {
    let mut b = Bench::new(1).await;
    b.refreshed().await.unwrap();
    b.read(1).await.unwrap();
    let next = made(b.dir.path(), 2);
    b.faulty.set(vec![Fault::Denied]);
    let why = upload_block(&b.bucket, &next, id(2)).await.unwrap_err().to_string();
    assert!(why.contains("credentials"), "{why}");
    assert!(b.refreshed().await.is_err() && b.shown() == [id(1)]);
    assert_eq!(b.read(1).await.unwrap(), SAMPLES as usize);
    assert!(b.shelf.damaged().is_empty() && next.join("meta.json").exists());
    b.faulty.set(Vec::new());
    upload_block(&b.bucket, &next, id(2)).await.unwrap();
    assert_eq!(b.refreshed().await.unwrap(), [id(1), id(2)]);
    assert_eq!(b.read(2).await.unwrap(), SAMPLES as usize);
}

/// The directory of fetched blocks is bounded; what an answer reads stays, and what is used goes last.
#[tokio::test]
async fn fetched_blocks_make_room_for_others() {
    let b = Bench::new(5).await;
    b.read(1).await.unwrap();
    let one = b.shelf.cached_bytes();
    let cache = b.dir.path().join("small");
    let shelf = Shelf::new(b.bucket.clone(), cache.clone(), Labels::empty()).with_cache_bytes(3 * one + 100);
    let held = whole(&shelf, 1).await.unwrap();
    for n in [2, 3] {
        whole(&shelf, n).await.unwrap();
    }
    shelf.peek(id(2)).unwrap();
    whole(&shelf, 4).await.unwrap();
    let there = |n: u64| cache.join(id(n).to_string()).exists();
    assert_eq!([1, 2, 3, 4].map(there), [true, true, false, true]);
    assert!(shelf.peek(id(3)).is_none() && shelf.cached_bytes() <= 3 * one + 100);
    assert_eq!(held.select(&[], 0, i64::MAX).unwrap().len(), 1);
    drop(held);
    shelf.retain(|block| block != id(2));
    assert!(!there(2), "what the bucket lost goes here too");
    let again = Shelf::new(b.bucket.clone(), cache.clone(), Labels::empty()).with_cache_bytes(one + 100);
    assert_eq!(again.cached_bytes(), 2 * one, "an earlier run's are counted");
    whole(&again, 5).await.unwrap();
    assert_eq!([1, 4, 5].map(there), [false, false, true]);
}

/// What was read is not read again after a restart, unless it changed.
#[tokio::test]
async fn a_restart_reads_only_what_is_new() {
    let b = Bench::new(6).await;
    let file = b.dir.path().join("known");
    let kept = || catalogue(b.bucket.clone()).kept_in(file.clone());
    let cold = {
        let before = b.faulty.asked();
        kept().refresh().await.unwrap();
        b.faulty.asked() - before
    };
    let before = b.faulty.asked();
    let view = kept().refresh().await.unwrap();
    let warm = b.faulty.asked() - before;
    // What is left are two lists, of blocks and of marks.
    assert_eq!((view.blocks().len(), cold - warm, warm), (6, 6, 2));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(kept().refresh().await.unwrap().blocks().len(), 6, "damaged, it is made anew");

    let local = Bucket::open(&BucketConfig::directory(b.dir.path().join("local")), id(98)).await.unwrap();
    upload_block(&local, &b.dir.path().join(id(1).to_string()), id(1)).await.unwrap();
    let kept = || catalogue(local.clone()).kept_in(file.clone());
    assert_eq!(kept().refresh().await.unwrap().blocks().len(), 1, "another bucket's is not believed");
    let meta = local.local_block_dir(id(1)).unwrap().join(transfer::META);
    std::fs::write(&meta, b"{").unwrap();
    assert_eq!(kept().refresh().await.unwrap().damaged().len(), 1, "an edited file is read again");
}
