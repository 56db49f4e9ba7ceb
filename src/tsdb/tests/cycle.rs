//! The whole way of production: two shards, aligned two-hour blocks, truncation after the cut, restart, and
//! promtool as the judge of what was cut.

mod common;

use std::process::{Command, Output};

use common::{batch, collect, everything, new_entry};
use koios_block::meta::{Downsample, ThanosMeta};
use koios_block::{Block, BlockMetaExtras};
use koios_model::{BlockId, Clock, ManualClock, Slot};
use koios_tsdb::{Shard, ShardOptions, cut_block, next_cut_range};

const H2: i64 = 7_200_000;
const START: i64 = 1_700_000_000_000;

/// `None` when promtool is not there and need not be.
fn promtool(args: &[&str]) -> Option<Output> {
    match Command::new("promtool").args(args).output() {
        Ok(out) => Some(out),
        Err(_) if std::env::var("CI").as_deref() != Ok("true") => None,
        Err(e) => panic!("promtool is needed in CI: {e}"),
    }
}

#[test]
fn head_to_block_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = dir.path().join("blocks");
    std::fs::create_dir_all(blocks.join("wal")).unwrap();
    let clock = ManualClock::at(START);
    let open = |i: u16| {
        let opts = ShardOptions::new(dir.path().join(format!("shard-{i}")), i);
        Shard::open(opts, clock.clone() as std::sync::Arc<dyn Clock>).unwrap()
    };
    let mut shards: Vec<Shard> = (0..2).map(|i| open(i).0).collect();
    let mut cut = Vec::new();
    let mut before_cut = common::Model::new();
    for scrape in 0..1440i64 {
        clock.advance_ms(15_000);
        let t = START + scrape * 15_000;
        for (i, shard) in shards.iter_mut().enumerate() {
            let entries =
                (0..20).filter(|n| n / 2 % 2 == i).map(|n| new_entry(n, t, (n as f64).sin() * scrape as f64));
            assert!(shard.append(&batch(entries)).unwrap().rejected.is_empty());
        }
        let stats: Vec<_> = shards.iter().map(|s| s.view().stats()).collect();
        let (min, max) = (stats.iter().map(|s| s.min_time).min(), stats.iter().map(|s| s.max_time).max());
        let window = stats[0].out_of_order_window_ms;
        let Some((mint, maxt)) = next_cut_range(min.unwrap(), max.unwrap(), H2, window) else { continue };
        assert_eq!((mint % H2, maxt - mint), (0, H2));
        before_cut.clear();
        shards.iter().for_each(|s| before_cut.extend(everything(&s.view())));
        shards.iter_mut().for_each(|s| s.refuse_before(maxt));
        let views: Vec<_> = shards.iter().map(Shard::view).collect();
        for slot in [Slot(0), Slot(1)] {
            let id = BlockId::from_parts(maxt as u64, u128::from(slot.0));
            let labels = [("cluster", "test".to_owned()), ("replica", slot.to_string())];
            let thanos = ThanosMeta {
                labels: labels.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
                downsample: Downsample { resolution: 0 },
                source: "koios".to_owned(),
                ..ThanosMeta::default()
            };
            let extras = BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() };
            let meta = cut_block(&views, slot, mint, maxt, &blocks, id, extras).unwrap().unwrap();
            assert_eq!((meta.stats.num_series, meta.compaction.level, meta.slot()), (10, 1, slot));
            let block = Block::open(&blocks.join(id.to_string())).unwrap();
            assert_eq!(block.verify().unwrap().samples, meta.stats.num_samples);
            cut.push(block);
        }
        for shard in &mut shards {
            shard.truncate(maxt).unwrap();
        }
    }
    assert!(cut.len() >= 4, "two ranges, two slots each");

    drop(shards);
    let mut all = common::Model::new();
    for i in 0..2 {
        let (shard, report) = open(i);
        assert!(!report.lost_data() && report.checkpoint_series == 10, "{report:?}");
        for (k, s) in everything(&shard.view()) {
            all.entry(k).or_default().extend(s);
        }
    }
    for block in &cut {
        for (k, s) in collect(block.select(&[], i64::MIN, i64::MAX).unwrap(), i64::MIN, i64::MAX) {
            all.entry(k).or_default().extend(s);
        }
    }
    assert!(all.values().all(|s| s.len() == 1440), "{:?}", all.values().map(|s| s.len()).collect::<Vec<_>>());
    assert!(before_cut.iter().all(|(k, samples)| samples.iter().all(|(t, v)| all[k].get(t) == Some(v))));

    promtool_agrees(&blocks, &cut);
}

/// Truncating in steps: appends, readers and new series between them, and series that come back to life.
#[test]
fn truncation_in_steps_lets_others_between() {
    const SERIES: usize = 9000;
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = common::open(dir.path());
    let batch_at = |from: usize, to: usize, t: i64| common::batch((from..to).map(|n| new_entry(n, t, 1.0)));
    shard.append(&batch_at(0, SERIES, 10)).unwrap();
    shard.append(&batch_at(8000, SERIES, 60_000)).unwrap();
    shard.begin_truncate(50_000).unwrap();
    let mut steps = 0;
    let (report, job) = loop {
        if let Some(done) = shard.truncate_step().unwrap() {
            break done;
        }
        steps += 1;
        let (t, n) = (60_000 + steps, steps as usize * 5);
        // One that died, one that lives, one that is new.
        let alive = [new_entry(n, t, 2.0), new_entry(8000 + n, t, 2.0), new_entry(SERIES + n, t, 2.0)];
        assert!(shard.append(&common::batch(alive)).unwrap().rejected.is_empty());
        assert_eq!(
            shard.append(&batch_at(1, 2, 49_999)).unwrap().rejected.len(),
            1,
            "what is forgotten stays away"
        );
        let seen = everything(&shard.view());
        assert!(seen.values().all(|s| s.keys().all(|t| *t == 10 || *t >= 60_000)));
    };
    assert!(steps > 8, "{steps} steps");
    let view = shard.view();
    let want = everything(&view);
    assert_eq!(want.len(), 1000 + 2 * steps as usize);
    assert!(want.values().all(|s| s.keys().all(|t| *t >= 60_000)));
    let stats = view.stats();
    assert_eq!((stats.series, stats.min_time), (want.len() as u64, 60_000));
    assert!(report.series_removed >= 8000 - steps as u64 && report.chunks_removed >= 8000);
    assert_eq!(view.label_values("instance", &[]).len(), want.len());
    let chunks: usize = view.select(&[], i64::MIN, i64::MAX).unwrap().iter().map(|s| s.chunks.len()).sum();
    assert_eq!(stats.chunks, chunks as u64);
    job.run().unwrap();
    drop(shard);
    let (shard, report) = common::open(dir.path());
    assert!(!report.lost_data() && report.unknown_samples == 0);
    assert_eq!(everything(&shard.view()), want);
}

fn promtool_agrees(blocks: &std::path::Path, cut: &[Block]) {
    let path = blocks.to_string_lossy().into_owned();
    let Some(list) = promtool(&["tsdb", "list", &path]) else { return };
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.status.success() && cut.iter().all(|b| text.contains(&b.meta().ulid.to_string())), "{text}");
    for block in cut {
        let id = block.meta().ulid.to_string();
        let out = promtool(&["tsdb", "analyze", &path, &id]).unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{text}{}", String::from_utf8_lossy(&out.stderr));
        assert!(text.contains("Series: 10") || text.contains("Total Series: 10"), "{text}");
    }
    let dump = promtool(&["tsdb", "dump", &path]).unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let samples: u64 = cut.iter().map(|b| b.meta().stats.num_samples).sum();
    assert_eq!(String::from_utf8_lossy(&dump.stdout).lines().count() as u64, samples);
}
