//! Rounds over a real directory, with the real catalogue and shelf: what questions see before, during and after.

use std::collections::BTreeMap;
use std::path::Path;

use koios_block::meta::ThanosMeta;
use koios_block::{Block, BlockEntry, BlockMetaExtras, BlockWriter, list_blocks};
use koios_chunk::encode_xor;
use koios_compact::level_ranges;
use koios_compact::retention::Retention;
use koios_model::{Columns, Labels, ManualClock};
use koios_objstore::{Bucket, BucketConfig};
use koios_store::{CatalogueView, Shelf, Visibility};

use super::super::catalogue::{self, CatalogueActor, CatalogueHandle};
use super::super::local::LocalSetup;
use super::*;
use crate::kit::{ComputePool, Mailroom, Plan, Warden};

const RANGE: i64 = 20_000;
const STEP: i64 = 100;

fn id(n: u64) -> BlockId {
    BlockId::from_parts(n, 7)
}

/// Block `n` with two series over `[mint, maxt)`, a sample every 100 ms.
fn write(root: &Path, n: u64, mint: i64, maxt: i64) {
    let mut w = BlockWriter::create(root, id(n)).unwrap();
    for name in ["a", "b"] {
        let mut c = Columns::default();
        (mint..maxt).step_by(STEP as usize).for_each(|t| c.push(t, t as f64));
        w.add_series(&Labels::from_pairs([("__name__", name)]), &encode_xor(&c, 120)).unwrap();
    }
    let labels = [("replica".to_owned(), "0".to_owned())].into();
    let thanos = ThanosMeta { labels, source: "test".to_owned(), ..ThanosMeta::default() };
    w.finish(mint, maxt, BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() }).unwrap();
}

struct Bench {
    dir: tempfile::TempDir,
    local: Arc<LocalBlocks>,
    room: Mailroom<Compactor>,
    clock: Arc<ManualClock>,
    wardens: Vec<Warden>,
    _plan: Plan,
}

impl Bench {
    async fn open(dir: tempfile::TempDir, retention: Retention, keep: Duration) -> Self {
        let root = dir.path().join("bucket");
        let bucket = Bucket::open(&BucketConfig::directory(&root), id(99)).await.unwrap();
        let net = Handle::current();
        let view = Arc::default();
        let shelf = Arc::new(Shelf::new(bucket.clone(), dir.path().join("cache"), Labels::empty()));
        let catalogue = CatalogueHandle { view, room: Mailroom::new("catalogue", catalogue::BOUND) };
        let (handle, open, runtime) = (catalogue.clone(), shelf.clone(), net.clone());
        let clock = ManualClock::at(1_000_000);
        let seen = clock.clone();
        let plan = Plan::new();
        let mut wardens = vec![Warden::watch(catalogue.room.clone(), plan.arbiter("test"), move |flare| {
            let seeing: (Arc<dyn koios_model::Clock>, _) = (seen.clone(), Visibility::default());
            CatalogueActor::new(
                bucket.clone(),
                handle.view.clone(),
                open.clone(),
                seeing,
                runtime.clone(),
                flare,
            )
        })];
        let local = LocalBlocks::new(LocalSetup {
            root,
            catalogue,
            shelf,
            pool: ComputePool::new(2, 16),
            clock: clock.clone(),
            ranges_ms: level_ranges(RANGE, 9 * RANGE),
            retention,
            other_bytes: Arc::new(|| 0),
            keep,
        });
        let room = Mailroom::new("compactor", BOUND);
        let blocks = local.clone();
        wardens.push(Warden::watch(room.clone(), plan.arbiter("test"), move |flare| {
            Compactor::new(blocks.clone(), net.clone(), flare)
        }));
        Self { dir, local, room, clock, wardens, _plan: plan }
    }

    async fn ask<M>(&self, m: M) -> M::Result
    where
        M: Message + Send + 'static,
        M::Result: Send + 'static,
        Compactor: Handler<Letter<M>>,
        <Compactor as Actor>::Context: actix::dev::ToEnvelope<Compactor, Letter<M>>,
    {
        self.room.ask(m, Duration::from_secs(60)).await.unwrap()
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("bucket")
    }

    fn on_disk(&self) -> Vec<BlockId> {
        list_blocks(&self.root()).unwrap().into_iter().map(|e| e.id).collect()
    }

    fn view(&self) -> Arc<CatalogueView> {
        self.local.setup.catalogue.view.load_full()
    }

    /// How often each sample is counted by a question that knows this view, by series.
    async fn counted(&self, view: &CatalogueView) -> BTreeMap<String, BTreeMap<i64, usize>> {
        let mut counts: BTreeMap<String, BTreeMap<i64, usize>> = BTreeMap::new();
        for id in view.cover(i64::MIN, i64::MAX) {
            let block = self.local.setup.shelf.get(id).await.unwrap();
            for series in block.select(&[], i64::MIN, i64::MAX).unwrap() {
                let times = series.read(i64::MIN, i64::MAX).unwrap().times;
                let of = counts.entry(series.labels.metric_name().to_owned()).or_default();
                times.into_iter().for_each(|t| *of.entry(t).or_default() += 1);
            }
        }
        counts
    }

    async fn assert_each_once(&self, view: &CatalogueView, from: i64, to: i64) {
        let want: BTreeMap<i64, usize> = (from..to).step_by(STEP as usize).map(|t| (t, 1)).collect();
        let counted = self.counted(view).await;
        assert_eq!(counted.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(counted.values().all(|c| *c == want));
    }

    fn close(self) -> tempfile::TempDir {
        self.wardens.iter().for_each(Warden::release);
        self.dir
    }
}

fn five_blocks() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("bucket");
    std::fs::create_dir_all(&root).unwrap();
    for n in 0..5 {
        write(&root, n as u64, n * RANGE, (n + 1) * RANGE);
    }
    // And what a writer left that died.
    std::fs::create_dir_all(root.join(format!("{}.tmp-for-creation/chunks", id(50)))).unwrap();
    dir
}

#[actix::test]
async fn a_round_merges_and_old_questions_stay_complete_until_the_sources_go() {
    let bench = Bench::open(five_blocks(), Retention::default(), Duration::from_secs(100)).await;
    bench.local.look().await.unwrap();
    let before = bench.view();
    let report = bench.ask(CompactNow).await.unwrap();
    assert_eq!((report.made.len(), report.removed, report.expired), (1, 0, 0));
    assert_eq!(bench.on_disk().len(), 6, "sources stay for questions that know them: {:?}", bench.on_disk());
    bench.assert_each_once(&before, 0, 5 * RANGE).await;
    let after = bench.view();
    assert_eq!(after.cover(i64::MIN, i64::MAX), [id(3), id(4), report.made[0]]);
    bench.assert_each_once(&after, 0, 5 * RANGE).await;
    bench.clock.advance_ms(100_000);
    assert_eq!(bench.ask(CompactNow).await.unwrap().removed, 3);
    assert_eq!(bench.on_disk(), [id(3), id(4), report.made[0]]);
    bench.assert_each_once(&bench.view(), 0, 5 * RANGE).await;
    assert!(!bench.root().join(format!("{}.tmp-for-creation", id(50))).exists());
    assert_eq!(bench.ask(CompactNow).await.unwrap(), RoundReport::default(), "nothing more to do");
    bench.close();
}

#[actix::test]
async fn after_a_crash_between_merge_and_removal_the_restart_resolves() {
    let bench = Bench::open(five_blocks(), Retention::default(), Duration::from_secs(100)).await;
    let made = bench.ask(CompactNow).await.unwrap().made[0];
    // The process dies: nothing but the directory is left, with sources and output in it.
    let dir = bench.close();
    let bench = Bench::open(dir, Retention::default(), Duration::ZERO).await;
    bench.local.look().await.unwrap();
    bench.assert_each_once(&bench.view(), 0, 5 * RANGE).await;
    let report = bench.ask(CompactNow).await.unwrap();
    assert_eq!((report.removed, report.made.len()), (3, 0));
    assert_eq!(bench.on_disk(), [id(3), id(4), made]);
    bench.assert_each_once(&bench.view(), 0, 5 * RANGE).await;
    bench.close();
}

#[actix::test]
async fn a_damaged_output_gives_way_to_its_sources() {
    let bench = Bench::open(five_blocks(), Retention::default(), Duration::from_secs(100)).await;
    let made = bench.ask(CompactNow).await.unwrap().made[0];
    let dir = bench.close();
    let index = dir.path().join("bucket").join(made.to_string()).join("index");
    let bytes = std::fs::read(&index).unwrap();
    std::fs::write(&index, &bytes[..bytes.len() / 2]).unwrap();
    let bench = Bench::open(dir, Retention::default(), Duration::ZERO).await;
    bench.clock.advance_ms(1000);
    bench.local.look().await.unwrap();
    assert!(bench.local.setup.shelf.get(made).await.is_err(), "a question meets the damage");
    let view = bench.local.look().await.unwrap();
    assert!(view.damaged().contains_key(&made));
    bench.assert_each_once(&view, 0, 5 * RANGE).await;
    let report = bench.ask(CompactNow).await.unwrap();
    assert_eq!((report.made.len(), bench.on_disk().contains(&made)), (1, false), "merged again: {report:?}");
    assert_ne!(report.made[0], made);
    bench.assert_each_once(&bench.view(), 0, 5 * RANGE).await;
    bench.close();
}

#[actix::test]
async fn a_damaged_source_is_put_aside_and_the_rest_goes_on() {
    let dir = five_blocks();
    let root = dir.path().join("bucket");
    for n in 5..9i64 {
        write(&root, n as u64, n * RANGE, (n + 1) * RANGE);
    }
    // A chunk of block 1 is damaged, which shows only when it is read.
    let path = root.join(id(1).to_string()).join("chunks/000001");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let bench = Bench::open(dir, Retention::default(), Duration::ZERO).await;
    let report = bench.ask(CompactNow).await.unwrap();
    assert_eq!(report.made.len(), 1, "the other range is merged: {report:?}");
    let view = bench.local.look().await.unwrap();
    assert!(view.damaged()[&id(1)].contains("checksum"), "{:?}", view.damaged());
    assert!(view.cover(0, 10 * RANGE).contains(&id(1)), "an answer names what it lacks");
    assert!(bench.root().join(id(1).to_string()).exists(), "nothing is thrown away");
    bench.close();
}

#[actix::test]
async fn retention_takes_the_oldest_blocks_out_of_the_view_first() {
    let retention = Retention { time_ms: 3 * RANGE, ..Retention::default() };
    let bench = Bench::open(five_blocks(), retention, Duration::from_secs(100)).await;
    bench.local.look().await.unwrap();
    let before = bench.view();
    let report = bench.ask(CompactNow).await.unwrap();
    assert_eq!(report.expired, 2);
    assert_eq!(bench.view().cover(i64::MIN, i64::MAX), [id(2), id(3), id(4)]);
    bench.assert_each_once(&before, 0, 5 * RANGE).await;
    bench.clock.advance_ms(100_000);
    bench.ask(CompactNow).await.unwrap();
    assert_eq!(bench.on_disk(), [id(2), id(3), id(4)]);
    let dir = bench.close();
    let one = koios_compact::disk::dir_bytes(&dir.path().join("bucket").join(id(4).to_string()));
    let retention = Retention { bytes: one * 5 / 2, ..Retention::default() };
    let bench = Bench::open(dir, retention, Duration::ZERO).await;
    bench.ask(CompactNow).await.unwrap();
    assert_eq!(bench.on_disk(), [id(3), id(4)]);
    bench.close();
}

#[actix::test]
async fn deleted_series_vanish_at_once_and_for_good_after_cleaning() {
    let bench = Bench::open(five_blocks(), Retention::default(), Duration::ZERO).await;
    let sets = vec![vec![Matcher::equal("__name__", "a"), Matcher::equal("replica", "")]];
    let touched =
        bench.ask(DeleteSeries { sets, mint: RANGE / 2, maxt: 3 * RANGE / 2 - STEP }).await.unwrap();
    assert_eq!(touched, 2, "one series in two blocks");
    let left = |counted: &BTreeMap<String, BTreeMap<i64, usize>>| (counted["a"].len(), counted["b"].len());
    let all = (5 * RANGE / STEP) as usize;
    let deleted = (RANGE / STEP) as usize;
    assert_eq!(left(&bench.counted(&bench.view()).await), (all - deleted, all));
    let snapshot = bench.dir.path().join("snapshot");
    let linked = bench.ask(SnapshotBlocks(snapshot.clone())).await.unwrap();
    assert_eq!(linked.len(), 5);
    let replaced = bench.ask(CleanTombstones).await.unwrap();
    assert_eq!(replaced, [id(0), id(1)]);
    assert_eq!(left(&bench.counted(&bench.local.look().await.unwrap()).await), (all - deleted, all));
    assert_eq!(bench.on_disk().len(), 5);
    let stones = |entry: &BlockEntry| Block::open(&entry.path).unwrap().tombstones().len();
    assert!(list_blocks(&bench.root()).unwrap().iter().all(|e| stones(e) == 0));
    let kept = list_blocks(&snapshot).unwrap();
    assert_eq!(kept.iter().map(stones).sum::<usize>(), 2, "the snapshot is as it was");
    assert!(bench.ask(CleanTombstones).await.unwrap().is_empty());
    let everything = DeleteSeries { sets: vec![vec![]], mint: i64::MIN, maxt: i64::MAX };
    assert_eq!(bench.ask(everything).await.unwrap(), 10);
    assert_eq!(bench.ask(CleanTombstones).await.unwrap().len(), 5);
    assert!(bench.counted(&bench.local.look().await.unwrap()).await.is_empty());
    assert!(bench.on_disk().is_empty(), "nothing was left to write");
    bench.close();
}

/// Questions that begin at any moment of a round, each with the view of that moment.
#[actix::test]
async fn questions_during_rounds_count_each_sample_once() {
    let bench = Arc::new(Bench::open(five_blocks(), Retention::default(), Duration::from_secs(100)).await);
    bench.local.look().await.unwrap();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (asking, end) = (bench.clone(), done.clone());
    let asker = actix::spawn(async move {
        let mut asked = 0;
        while !end.load(std::sync::atomic::Ordering::Acquire) || asked < 20 {
            let view = asking.view();
            tokio::task::yield_now().await;
            asking.assert_each_once(&view, 0, 5 * RANGE).await;
            asked += 1;
        }
        asked
    });
    for _ in 0..4 {
        // Written again, though nothing is deleted of what is counted.
        let sets = vec![vec![Matcher::equal("__name__", "a")]];
        bench.ask(DeleteSeries { sets, mint: 1, maxt: STEP - 1 }).await.unwrap();
        bench.ask(CompactNow).await.unwrap();
        bench.ask(CleanTombstones).await.unwrap();
        bench.clock.advance_ms(60_000);
    }
    done.store(true, std::sync::atomic::Ordering::Release);
    assert!(asker.await.unwrap() >= 20);
    bench.wardens.iter().for_each(Warden::release);
}
