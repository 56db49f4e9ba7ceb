//! Deleting from the head: readers, counts, blocks, log, checkpoint, truncation, faults. Interleavings with everything
//! else are in `late.rs`.

mod common;

use std::sync::Arc;

use common::{FaultyDisk, batch, everything, far_clock, new_entry, open, options};
use koios_block::{Block, BlockMetaExtras};
use koios_model::{BlockId, Matcher, Slot};
use koios_tsdb::{Entry, SeriesKey, Shard, TsdbError, cut_block};

fn fill(shard: &mut Shard) {
    for t in 0..50i64 {
        shard.append(&batch((0..4).map(|n| new_entry(n, t * 100, (t * 10 + n as i64) as f64)))).unwrap();
    }
}

fn instance(i: &str) -> Vec<Matcher> {
    vec![Matcher::equal("instance", i)]
}

#[test]
fn gone_at_once_and_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = open(dir.path());
    fill(&mut shard);
    let mut want = everything(&shard.view());
    for ((_, labels), s) in &mut want {
        if labels.contains("i001") {
            s.retain(|t, _| !(1000..=2050).contains(t));
        }
    }
    let view = shard.view();
    assert_eq!(shard.delete(&[instance("i001"), instance("none")], 1000, 2050).unwrap().series, 1);
    assert_eq!(everything(&view), want);
    assert_eq!(shard.delete(&[instance("i001")], 1000, 2000).unwrap().series, 0, "nothing is left to delete");
    assert_eq!(shard.delete(&[], 0, 9999).unwrap().series, 0);

    // Everything of one series: its newest time may come again, also with another value.
    let refs = shard.append(&batch([new_entry(2, 4900, 492.0)])).unwrap().refs;
    shard.delete(&[instance("i002")], i64::MIN, i64::MAX).unwrap();
    want.retain(|(_, l), _| !l.contains("i002"));
    assert_eq!(everything(&view), want);
    let stats = view.stats();
    assert_eq!((stats.series, stats.min_time, stats.max_time), (4, 0, 4900));
    shard.begin_checkpoint().unwrap().run().unwrap();
    let back = Entry { series: SeriesKey::Ref(refs[0]), t: 4900, v: 7.0.into() };
    assert!(shard.append(&batch([back])).unwrap().rejected.is_empty());
    let want = everything(&view);
    assert!(want.iter().any(|((_, l), s)| l.contains("i002") && s.len() == 1));
    drop(shard);
    let (shard, report) = open(dir.path());
    assert!(!report.lost_data() && report.unknown_samples == 0, "{report:?}");
    assert_eq!(everything(&shard.view()), want);
}

#[test]
fn blocks_do_not_have_it_and_truncation_forgets_the_series() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = open(dir.path());
    fill(&mut shard);
    shard.delete(&[instance("i000")], i64::MIN, i64::MAX).unwrap();
    shard.delete(&[instance("i002")], 0, 950).unwrap();
    let (out, id) = (tempfile::tempdir().unwrap(), BlockId::from_parts(1, 1));
    let meta = cut_block(&[shard.view()], Slot(0), 0, 100_000, out.path(), id, BlockMetaExtras::default());
    let meta = meta.unwrap().unwrap();
    assert_eq!((meta.stats.num_series, meta.stats.num_samples), (1, 40));
    Block::open(&out.path().join(id.to_string())).unwrap().verify().unwrap();
    assert_eq!(shard.view().label_values("instance", &[]).len(), 4);
    shard.truncate(100).unwrap();
    assert_eq!(shard.view().label_values("instance", &[]), ["i001", "i002", "i003"]);
}

#[test]
fn a_full_disk_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut shard = Shard::open_on(options(dir.path()), far_clock(), Arc::new(disk.clone())).unwrap().0;
    fill(&mut shard);
    let before = everything(&shard.view());
    for room in [0, 10, 30] {
        disk.fill_after(room);
        let refused = shard.delete(&[vec![]], 0, 1000);
        assert!(matches!(refused, Err(TsdbError::Unavailable { .. })), "{room}: {refused:?}");
        assert_eq!(everything(&shard.view()), before);
    }
    disk.free();
    assert_eq!(shard.delete(&[vec![]], 0, 1000).unwrap().series, 4);
    let left = everything(&shard.view());
    drop(shard);
    assert_eq!(everything(&open(dir.path()).0.view()), left);
}

#[test]
fn a_checkpoint_is_given_up_when_something_is_deleted_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = open(dir.path());
    fill(&mut shard);
    let job = shard.begin_checkpoint().unwrap();
    shard.delete(&[instance("i001")], 0, 100).unwrap();
    shard.append(&batch([new_entry(1, 5000, 1.0)])).unwrap();
    assert!(matches!(job.run(), Err(TsdbError::Overtaken)));
    let want = everything(&shard.view());
    drop(shard);
    let (mut shard, report) = open(dir.path());
    assert_eq!((everything(&shard.view()), report.checkpoint_series), (want.clone(), 0));
    shard.begin_checkpoint().unwrap().run().unwrap();
    drop(shard);
    assert_eq!(everything(&open(dir.path()).0.view()), want);
}
