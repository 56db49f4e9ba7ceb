//! Full and broken disks, and readers beside a writer.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use common::{FaultyDisk, batch, everything, far_clock, new_entry, open, options};
use koios_model::{Code, Coded, Matcher};
use koios_tsdb::{Entry, Lsn, SeriesKey, Shard, TsdbError};

fn open_faulty(dir: &std::path::Path, disk: &FaultyDisk) -> Shard {
    let mut opts = options(dir);
    opts.wal.segment_bytes = 4096;
    Shard::open_on(opts, far_clock(), Arc::new(disk.clone())).unwrap().0
}

/// The disk fills up after every possible number of bytes of a batch: nothing of it is there, and with room
/// again it goes in as if nothing had been.
#[test]
fn a_full_disk_changes_nothing_and_heals() {
    for room in 0..160 {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let mut shard = open_faulty(dir.path(), &disk);
        shard.append(&batch((0..3).map(|n| new_entry(n, 10, n as f64)))).unwrap();
        let before = (everything(&shard.view()), shard.lsn());
        let next = batch((0..6).map(|n| new_entry(n, 20, 0.1 * n as f64)));
        disk.fill_after(room);
        match shard.append(&next) {
            Ok(_) => assert!(room > 100, "room {room}"),
            Err(e) => {
                assert!(matches!(e, TsdbError::Unavailable { .. }) && e.code() == Code::Unavailable, "{e}");
                assert_eq!((everything(&shard.view()), shard.lsn()), before, "room {room}");
                assert_eq!(shard.view().stats().series, 3);
                disk.free();
                let healed = shard.append(&next).unwrap();
                assert!(healed.rejected.is_empty());
            }
        }
        disk.free();
        shard.append(&batch([new_entry(0, 30, 5.0)])).unwrap();
        let want = everything(&shard.view());
        assert_eq!(want.values().map(|s| s.len()).sum::<usize>(), 10);
        drop(shard);
        let (again, report) = open(dir.path());
        assert_eq!(everything(&again.view()), want, "room {room}");
        assert!(!report.lost_data() && report.torn_bytes == 0);
    }
}

/// A disk that is full when a new segment is due: the shard stays where it is and goes on later.
#[test]
fn a_segment_that_cannot_be_created_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut shard = open_faulty(dir.path(), &disk);
    let mut t = 0;
    while shard.lsn().0 & 0xffff_ffff < 4096 {
        t += 1;
        shard.append(&batch((0..20).map(|n| new_entry(n, t, t as f64 * 0.1)))).unwrap();
    }
    disk.fill_after(5);
    assert!(shard.append(&batch([new_entry(0, t + 1, 1.0)])).is_err());
    assert!(shard.append(&batch([new_entry(0, t + 1, 1.0)])).is_err());
    disk.free();
    let lsn = shard.append(&batch([new_entry(0, t + 1, 1.0)])).unwrap().lsn;
    assert_eq!(lsn.0 >> 32, 2);
    let want = everything(&shard.view());
    drop(shard);
    assert_eq!(everything(&open(dir.path()).0.view()), want);
}

#[test]
fn a_failed_sync_closes_the_log_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut shard = open_faulty(dir.path(), &disk);
    let syncer = shard.syncer();
    let first = shard.append(&batch([new_entry(0, 1, 1.0)])).unwrap().lsn;
    assert_eq!(syncer.sync().unwrap(), first);
    let second = shard.append(&batch([new_entry(0, 2, 1.0)])).unwrap().lsn;
    assert!(second > first && syncer.written() == second && syncer.durable() == first);
    disk.faults().fail_sync.store(true, SeqCst);
    assert!(matches!(syncer.sync(), Err(TsdbError::Poisoned(_))));
    disk.faults().fail_sync.store(false, SeqCst);
    let err = syncer.clone().sync().unwrap_err().to_string();
    assert!(err.contains("input/output error"), "{err}");
    assert_eq!(syncer.durable(), first, "what failed is never reported as durable");
    let before = everything(&shard.view());
    assert!(matches!(shard.append(&batch([new_entry(0, 3, 1.0)])), Err(TsdbError::Poisoned(_))));
    assert!(matches!(shard.truncate(2), Err(TsdbError::Poisoned(_))));
    assert_eq!(everything(&shard.view()), before, "reading goes on");
    drop(shard);
    let (mut shard, _) = open(dir.path());
    shard.append(&batch([new_entry(0, 3, 1.0)])).unwrap();
    shard.syncer().sync().unwrap();
}

/// A failed sync is never taken back: the log is written again, elsewhere, and only then writes go on.
#[test]
fn a_failed_sync_is_healed_by_writing_everything_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut shard = open_faulty(dir.path(), &disk);
    let old = shard.syncer();
    shard.append(&batch((0..4).map(|n| new_entry(n, 1, 1.0)))).unwrap();
    old.sync().unwrap();
    shard.append(&batch((0..4).map(|n| new_entry(n, 2, 2.0)))).unwrap();
    disk.faults().fail_sync.store(true, SeqCst);
    assert!(old.sync().is_err() && shard.is_poisoned());
    let view = shard.view();
    let held = everything(&view);

    // Still broken: the rewriting fails too, nothing is taken, everything is still readable.
    let job = shard.begin_recovery().unwrap();
    assert!(job.run().is_err());
    assert!(matches!(shard.append(&batch([new_entry(0, 3, 3.0)])), Err(TsdbError::Poisoned(_))));
    disk.fill_after(0);
    assert!(matches!(shard.begin_recovery(), Err(TsdbError::Unavailable { .. })));
    assert_eq!(everything(&view), held);

    disk.free();
    disk.faults().fail_sync.store(false, SeqCst);
    let job = shard.begin_recovery().unwrap();
    assert!(shard.append(&batch([new_entry(0, 3, 3.0)])).is_err(), "not before it is durable");
    let report = job.run().unwrap();
    assert!(report.series == 4 && report.segments_removed >= 1);
    shard.end_recovery();
    assert!(!shard.is_poisoned() && old.sync().is_err(), "the old log stays closed");
    let lsn = shard.append(&batch([new_entry(0, 3, 3.0)])).unwrap().lsn;
    assert_eq!(shard.syncer().sync().unwrap(), lsn);
    let want = everything(&view);
    drop(shard);
    let (shard, report) = open(dir.path());
    assert_eq!((everything(&shard.view()), report.lost_data(), report.torn_bytes), (want, false, 0));
}

/// As on a file system that became read-only: not even the failed write's bytes can be cut off. Nothing is taken
/// until they are.
#[test]
fn a_write_that_cannot_be_undone_yet_holds_back_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut shard = open_faulty(dir.path(), &disk);
    shard.append(&batch([new_entry(0, 1, 1.0)])).unwrap();
    disk.fill_after(3);
    disk.faults().fail_set_len.store(true, SeqCst);
    for _ in 0..2 {
        let refused = shard.append(&batch([new_entry(0, 2, 1.0)]));
        assert!(matches!(refused, Err(TsdbError::Unavailable { .. })), "{refused:?}");
    }
    disk.free();
    assert!(shard.append(&batch([new_entry(0, 2, 1.0)])).is_err(), "the leftovers are still there");
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("wal")).unwrap();
    std::fs::copy(dir.path().join("wal/00000001.wal"), copy.path().join("wal/00000001.wal")).unwrap();
    let (crashed, report) = open(copy.path());
    assert_eq!(everything(&crashed.view()).values().map(|s| s.len()).sum::<usize>(), 1);
    assert_eq!((report.torn_bytes, report.lost_data()), (3, false));

    disk.faults().fail_set_len.store(false, SeqCst);
    assert!(shard.append(&batch([new_entry(0, 2, 1.0)])).unwrap().rejected.is_empty());
    let want = everything(&shard.view());
    drop(shard);
    let (shard, report) = open(dir.path());
    assert_eq!((everything(&shard.view()), report.torn_bytes, report.lost_data()), (want, 0, false));
}

/// A checkpoint that finds no room: the old segments stay and nothing is lost.
#[test]
fn a_checkpoint_on_a_full_disk_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut shard = open_faulty(dir.path(), &disk);
    for t in 0..20 {
        shard.append(&batch((0..4).map(|n| new_entry(n, t, 1.0)))).unwrap();
    }
    let want = everything(&shard.view());
    for room in [10, 200] {
        let job = shard.begin_checkpoint().unwrap();
        disk.fill_after(room);
        assert_eq!(job.run().unwrap_err().code(), Code::Unavailable, "room {room}");
        disk.free();
    }
    let job = shard.begin_checkpoint().unwrap();
    disk.faults().fail_sync.store(true, SeqCst);
    assert!(job.run().is_err());
    disk.faults().fail_sync.store(false, SeqCst);
    let names: Vec<_> =
        std::fs::read_dir(dir.path().join("wal")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| n.to_string_lossy().ends_with(".wal")), "{names:?}");
    drop(shard);
    assert_eq!(everything(&open(dir.path()).0.view()), want);
}

/// One sync covers what all batches before it wrote, over segments.
#[test]
fn a_sync_covers_every_segment() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut shard = open_faulty(dir.path(), &disk);
    let syncer = shard.syncer();
    let mut last = Lsn::default();
    for t in 0..300 {
        last = shard.append(&batch((0..20).map(|n| new_entry(n, t, t as f64 * 0.1)))).unwrap().lsn;
    }
    assert!(last.0 >> 32 > 2);
    let other = syncer.clone();
    assert_eq!(std::thread::spawn(move || other.sync().unwrap()).join().unwrap(), last);
    assert_eq!(syncer.durable(), last);
}

/// Readers see all of a batch or nothing, series come and go, and a checkpoint runs beside it all.
#[test]
fn readers_never_see_half_a_batch() {
    const SERIES: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = open(dir.path());
    shard.append(&batch((0..SERIES).map(|n| new_entry(n, 0, 0.0)))).unwrap();
    let view = shard.view();
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (view, stop) = (view.clone(), stop.clone());
            std::thread::spawn(move || {
                let (mut looks, mut newest) = (0u64, 0);
                while !stop.load(SeqCst) || looks == 0 {
                    let found =
                        view.select(&[Matcher::equal("__name__", "metric")], i64::MIN, i64::MAX).unwrap();
                    let lasts: Vec<i64> = found.iter().map(|s| s.chunks.last().unwrap().max_time).collect();
                    assert_eq!(lasts.len(), SERIES);
                    assert!(lasts.iter().all(|t| *t == lasts[0]), "half a batch: {lasts:?}");
                    assert!(lasts[0] >= newest, "time went back");
                    for s in &found {
                        let columns = s.read(i64::MIN, i64::MAX).unwrap();
                        assert_eq!(columns.times.last(), Some(&lasts[0]));
                        assert!(columns.times.windows(2).all(|w| w[0] < w[1]));
                    }
                    newest = lasts[0];
                    looks += 1;
                }
                looks
            })
        })
        .collect();
    let refs = shard.append(&batch((0..SERIES).map(|n| new_entry(n, 1, 1.0)))).unwrap().refs;
    for t in 2..1500i64 {
        let known = refs.iter().map(|r| Entry { series: SeriesKey::Ref(*r), t, v: (t as f64).into() });
        shard.append(&batch(known)).unwrap();
        match t % 500 {
            0 => {
                shard.begin_checkpoint().unwrap().run().unwrap();
            }
            250 => {
                shard.truncate(t - 100).unwrap();
            }
            _ => {}
        }
    }
    stop.store(true, SeqCst);
    let looks: u64 = readers.into_iter().map(|r| r.join().unwrap()).sum();
    assert!(looks > 0);
}
