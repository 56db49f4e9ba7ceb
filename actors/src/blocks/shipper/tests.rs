//! Shipping and adopting with a bucket in a directory, real logs, and clocks moved by hand.

use std::collections::BTreeMap;

use koios_block::Block;
use koios_cluster::adoption::SILENCE_NS;
use koios_model::{ManualClock, Slot};
use koios_objstore::BucketConfig;
use koios_tsdb::{AppendBatch, Entry, SeriesKey, Shard, ShardOptions};

use super::*;
use crate::blocks::adopter::{AdoptStats, AdopterSetup, Memory as Watching};

const T0: i64 = 1_700_000_000_000;

struct World {
    dir: tempfile::TempDir,
    bucket: Bucket,
    clock: Arc<ManualClock>,
    shard: Shard,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = BucketConfig::directory(dir.path().join("bucket"));
        let bucket = Bucket::open(&config, koios_model::BlockId::from_parts(1, 1)).await.unwrap();
        let clock = ManualClock::at(T0);
        let shard = open(&dir.path().join("head/shard-0"), &clock);
        Self { dir, bucket, clock, shard }
    }

    fn shipper(&self, generation: u64) -> ShipperSetup {
        ShipperSetup {
            distributor: Distributor::new(Vec::new()),
            heads: Arc::new(HeadViews::new(0)),
            bucket: self.bucket.clone(),
            pool: ComputePool::new(1, 16),
            net: Handle::current(),
            clock: self.clock.clone(),
            node: "a".to_owned(),
            generation,
            external: Labels::from_pairs([("site", "x")]),
            dir: self.dir.path().join("head"),
            mode: ShipLog::Always,
            interval_ms: 15_000,
            ready: Arc::new(|| true),
            one_copy: Arc::new(|| true),
            stats: Arc::default(),
        }
    }

    fn adopter(&self, node: &str) -> AdopterSetup {
        let shipper = ShipStats::default();
        shipper.log.store(99, Relaxed);
        AdopterSetup {
            bucket: self.bucket.clone(),
            catalogue: None,
            pool: ComputePool::new(1, 16),
            net: Handle::current(),
            clock: self.clock.clone(),
            node: node.to_owned(),
            generation: 5,
            scratch: self.dir.path().join(node),
            shard: ShardOptions::new("", 0),
            silence_ns: SILENCE_NS,
            ready: Arc::new(|| true),
            alive: Arc::new(|_| false),
            rank: Arc::new(|_| 0),
            shipper: Arc::new(shipper),
            stats: Arc::new(AdoptStats::default()),
        }
    }

    /// Appends `count` samples of one series, a second apart.
    fn append(&mut self, count: i64) {
        for _ in 0..count {
            self.clock.advance_ms(1000);
            self.append_at(self.clock.now_ms());
        }
    }

    fn append_at(&mut self, t: i64) {
        let series = SeriesKey::New(Slot(0), Labels::from_pairs([("__name__", "m")]));
        let entries = vec![Entry { series, t, v: (t as f64).into() }];
        assert!(self.shard.append(&AppendBatch { entries }).unwrap().rejected.is_empty());
    }

    async fn ship(&self, shipper: &ShipperSetup, memory: &mut Memory) {
        shipper.ship(memory, &[self.shard.syncer()]).await.unwrap();
    }

    /// Samples in the blocks that exist.
    async fn in_blocks(&self) -> (usize, u64) {
        let (mut blocks, mut samples) = (0, 0);
        for id in self.bucket.list_blocks().await.unwrap() {
            let dir = self.bucket.local_block_dir(id).unwrap();
            if dir.join("meta.json").exists() {
                let block = Block::open(&dir).unwrap();
                assert_eq!(block.meta().thanos.as_ref().unwrap().labels["site"], "x");
                blocks += 1;
                samples += block.meta().stats.num_samples;
            }
        }
        (blocks, samples)
    }

    async fn objects(&self) -> usize {
        self.bucket.list(chain::LOGS).await.unwrap().len()
    }
}

fn open(dir: &std::path::Path, clock: &Arc<ManualClock>) -> Shard {
    Shard::open(ShardOptions::new(dir, 0), clock.clone()).unwrap().0
}

#[tokio::test]
async fn a_silent_log_becomes_one_set_of_blocks() {
    let mut world = World::new().await;
    let (shipper, mut memory) = (world.shipper(7), Memory::default());
    // One sample of 1970: what lies between must cost nothing.
    world.append_at(1000);
    world.append(99);
    world.ship(&shipper, &mut memory).await;
    world.append(50);
    world.ship(&shipper, &mut memory).await;
    assert_eq!(world.objects().await, 2);
    let settled = BTreeMap::from([("a".to_owned(), world.clock.now_ms() - SKEW_MS)]);

    let (b, c) = (world.adopter("b"), world.adopter("c"));
    let (mut of_b, mut of_c) = (Watching::new(SILENCE_NS), Watching::new(SILENCE_NS));
    b.look(&mut of_b).await.unwrap();
    world.clock.advance_ms(SILENCE_NS / 1_000_000 - 1);
    b.look(&mut of_b).await.unwrap();
    assert_eq!(world.in_blocks().await, (0, 0), "not a moment before the silence is over");
    // `b` decides and dies; `c` sees the decision, waits in its turn and does the work.
    let log = LogId { node: "a".to_owned(), log: 7 };
    let adopted = Decision { verdict: Verdict::Adopted { through: 1 }, by: "b".to_owned(), generation: 5 };
    assert!(chain::decide(&world.bucket, &log, 1, &adopted).await.unwrap());
    c.look(&mut of_c).await.unwrap();
    world.clock.advance_ms(SILENCE_NS / 1_000_000);
    c.look(&mut of_c).await.unwrap();
    assert_eq!(world.in_blocks().await, (2, 150));
    assert_eq!(world.objects().await, 0);
    for (node, memory) in [(&c, &mut of_c), (&b, &mut of_b)] {
        node.look(memory).await.unwrap();
        assert_eq!(**node.stats.settled.load(), settled, "every node finds out");
    }
    // `b` was only paused and does it too: what is committed stays, and nothing of its own.
    let before = world.bucket.list_blocks().await.unwrap();
    b.adopt(&log, 1).await.unwrap();
    assert_eq!(world.bucket.list_blocks().await.unwrap(), before);
    assert_eq!(world.in_blocks().await, (2, 150));
}

#[tokio::test]
async fn a_node_whose_log_was_adopted_begins_another() {
    let mut world = World::new().await;
    let (shipper, mut memory) = (world.shipper(7), Memory::default());
    world.append(10);
    world.ship(&shipper, &mut memory).await;
    let log = LogId { node: "a".to_owned(), log: 7 };
    let adopted = Decision { verdict: Verdict::Adopted { through: 0 }, by: "b".to_owned(), generation: 5 };
    assert!(chain::decide(&world.bucket, &log, 1, &adopted).await.unwrap());
    // Asleep for longer than the chain may go unread.
    world.append(61);
    world.ship(&shipper, &mut memory).await;
    assert_eq!(memory.ledger.as_ref().unwrap().log, 8);
    let shipped = chain::shipped(&world.bucket).await.unwrap();
    assert_eq!(shipped.into_values().collect::<Vec<_>>(), [vec![0], vec![0]]);
    // The second log has everything, and what was adopted is left to the adopter.
    let second = LogId { log: 8, ..log };
    let seen = chain::read(&world.bucket, &second).await.unwrap();
    assert_eq!(on_return(&second, 7, &seen), Return::GoOn);
    world.adopter("c").adopt(&second, 0).await.unwrap();
    assert_eq!(world.in_blocks().await, (1, 71));
}

#[tokio::test]
async fn an_old_ledger_catches_up_and_a_checkpoint_frees_objects() {
    let mut world = World::new().await;
    let (shipper, mut memory) = (world.shipper(7), Memory::default());
    let ledger = world.dir.path().join("head/shipped.json");
    world.append(10);
    world.ship(&shipper, &mut memory).await;
    let old = std::fs::read(&ledger).unwrap();
    world.append(10);
    world.ship(&shipper, &mut memory).await;
    // The process ends before the second object is in the ledger; the next one goes on.
    std::fs::write(&ledger, old).unwrap();
    let (shipper, mut memory) = (world.shipper(8), Memory::default());
    world.append(10);
    world.ship(&shipper, &mut memory).await;
    assert_eq!(memory.ledger.as_ref().unwrap().numbers(), [0, 1, 2]);
    assert_eq!(shipper.stats.objects.load(Relaxed), 1);
    world.shard.begin_checkpoint().unwrap().run().unwrap();
    world.append(1);
    world.ship(&shipper, &mut memory).await;
    assert_eq!(memory.ledger.as_ref().unwrap().numbers(), [3]);
    assert_eq!(world.objects().await, 1);
    let log = LogId { node: "a".to_owned(), log: 7 };
    world.adopter("b").adopt(&log, 3).await.unwrap();
    assert_eq!(world.in_blocks().await, (1, 31));
}
