//! What a crash or a damaged disk leaves, and that everything whole comes back.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Model, batch, everything, new_entry, open, options};
use koios_tsdb::Shard;

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(dir.join("wal")).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| p.extension().is_some_and(|e| e == "wal"));
    all.sort();
    all
}

/// Copies a shard's directory, so that each trial damages its own.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    fs::create_dir(to.path().join("wal")).unwrap();
    for entry in fs::read_dir(from.join("wal")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), to.path().join("wal").join(entry.file_name())).unwrap();
        }
    }
    to
}

/// A shard with batches of two series each; answers the models after every batch.
fn filled(dir: &Path, batches: i64, segment_bytes: u64) -> Vec<Model> {
    let mut opts = options(dir);
    opts.wal.segment_bytes = segment_bytes;
    let (mut shard, _) = Shard::open(opts, common::far_clock()).unwrap();
    let mut states = vec![Model::new()];
    for i in 0..batches {
        let n = (i % 5) as usize;
        shard.append(&batch([new_entry(n, i * 10, i as f64), new_entry(n + 1, i * 10 + 1, 0.5)])).unwrap();
        states.push(everything(&shard.view()));
    }
    states
}

fn ends_of_batches(dir: &Path, batches: i64) -> Vec<u64> {
    let (mut shard, _) = Shard::open(options(dir), common::far_clock()).unwrap();
    let mut ends = vec![shard.lsn().0 & 0xffff_ffff];
    for i in 0..batches {
        let n = (i % 5) as usize;
        let b = batch([new_entry(n, i * 10, i as f64), new_entry(n + 1, i * 10 + 1, 0.5)]);
        ends.push(shard.append(&b).unwrap().lsn.0 & 0xffff_ffff);
    }
    ends
}

/// The last segment cut at every byte: all batches that were whole are back, the rest is not, nothing is damage.
#[test]
fn a_torn_tail_loses_only_what_was_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let states = filled(dir.path(), 12, 1 << 20);
    let ends = ends_of_batches(tempfile::tempdir().unwrap().path(), 12);
    let bytes = fs::read(&segments(dir.path())[0]).unwrap();
    assert_eq!(bytes.len() as u64, ends[12]);
    for cut in 0..=bytes.len() {
        let trial = copy(dir.path());
        fs::write(&segments(trial.path())[0], &bytes[..cut]).unwrap();
        let (shard, report) = open(trial.path());
        let whole = ends.iter().filter(|e| **e <= cut as u64).count().saturating_sub(1);
        // A batch is at most two records: cut between them, its series are there without samples, so not shown.
        assert_eq!(everything(&shard.view()), states[whole], "cut at {cut}");
        assert!(!report.lost_data(), "cut at {cut}: {report:?}");
        assert!(report.torn_bytes < 120, "cut at {cut}: {report:?}");
        assert_eq!(shard.view().stats().series, states[whole].len() as u64);
        drop(shard);
        let (again, report) = open(trial.path());
        assert_eq!(
            (everything(&again.view()), report.torn_bytes),
            (states[whole].clone(), 0),
            "cut at {cut}"
        );
    }
}

/// Crashes while a segment is created leave a piece of its header. Its number is used again: one that is left out would look
/// like a segment that was lost.
#[test]
fn a_segment_that_was_never_born_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let states = filled(dir.path(), 6, 1 << 20);
    for life in 2..5u64 {
        let unborn = dir.path().join("wal").join(format!("{life:08}.wal"));
        fs::write(&unborn, [b'x'; 3]).unwrap();
        for _ in 0..2 {
            let (shard, report) = open(dir.path());
            assert!(!report.lost_data(), "life {life}: {report:?}");
            assert_eq!(everything(&shard.view()), states[6]);
        }
        let stem = |p: &PathBuf| p.file_stem().unwrap().to_string_lossy().into_owned();
        let numbers: Vec<String> = segments(dir.path()).iter().map(stem).collect();
        let whole: Vec<String> = (1..=numbers.len()).map(|n| format!("{n:08}")).collect();
        assert_eq!(numbers, whole, "no number is left out");
        // The next life begins where this one ended.
        for extra in segments(dir.path()).into_iter().skip(life as usize) {
            fs::remove_file(extra).unwrap();
        }
    }
}

/// One byte of the middle segment flipped, everywhere: what is before it and in other segments is back, and the
/// report names the place.
#[test]
fn damage_in_the_middle_is_quarantined_and_the_rest_kept() {
    let dir = tempfile::tempdir().unwrap();
    let states = filled(dir.path(), 200, 1024);
    let full = states.last().unwrap();
    let all = segments(dir.path());
    assert!(all.len() >= 3, "{all:?}");
    let bytes = fs::read(&all[1]).unwrap();
    let intact: usize = full.values().map(|s| s.len()).sum();
    for flip in (0..bytes.len()).step_by(7) {
        let trial = copy(dir.path());
        let mut bad = bytes.clone();
        bad[flip] ^= 0x11;
        fs::write(&segments(trial.path())[1], bad).unwrap();
        let (shard, report) = open(trial.path());
        assert!(report.lost_data(), "flip at {flip} went unnoticed");
        assert!(report.damaged[0].file.ends_with("02.wal"), "{report:?}");
        let got = everything(&shard.view());
        for (k, samples) in &got {
            assert!(
                samples.iter().all(|(t, v)| full[k].get(t) == Some(v)),
                "flip at {flip} made up data in {k:?}"
            );
        }
        let kept: usize = got.values().map(|s| s.len()).sum();
        assert!(kept < intact && kept * 2 > intact, "flip at {flip}: {kept} of {intact}");
        assert!(trial.path().join("wal/quarantine/00000002.wal").exists());
        drop(shard);
        // The next start finds a sound checkpoint and nothing to complain about.
        let (again, report) = open(trial.path());
        assert_eq!((everything(&again.view()), report.damaged.len()), (got, 0), "flip at {flip}");
    }
}

#[test]
fn a_missing_segment_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 200, 1024);
    fs::remove_file(&segments(dir.path())[1]).unwrap();
    let (_, report) = open(dir.path());
    assert_eq!(report.damaged[0].what, "segment is missing");
    assert!(report.samples > 0);
}

#[test]
fn a_damaged_checkpoint_gives_what_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let states = filled(dir.path(), 30, 1 << 20);
    let full = states.last().unwrap();
    let (mut shard, _) = open(dir.path());
    shard.begin_checkpoint().unwrap().run().unwrap();
    shard.append(&batch([new_entry(0, 5000, 1.0)])).unwrap();
    let with_tail = everything(&shard.view());
    drop(shard);
    let (again, report) = open(dir.path());
    assert_eq!((everything(&again.view()), report.checkpoint_series), (with_tail, 6));
    assert_eq!((report.samples, report.known_samples), (1, 0));
    drop(again);
    let path = fs::read_dir(dir.path().join("wal")).unwrap().map(|e| e.unwrap().path());
    let path = path.filter(|p| p.to_string_lossy().contains("checkpoint.")).max().unwrap();
    let bytes = fs::read(&path).unwrap();
    for cut in (0..bytes.len()).step_by(7) {
        let trial = copy(dir.path());
        fs::write(trial.path().join("wal").join(path.file_name().unwrap()), &bytes[..cut]).unwrap();
        let (shard, report) = open(trial.path());
        assert!(report.lost_data(), "cut at {cut}");
        let kept = everything(&shard.view());
        let whole = |k: &(u8, String), t: &i64, v: &u64| full[k].get(t) == Some(v) || *t == 5000;
        assert!(kept.iter().all(|(k, s)| s.iter().all(|(t, v)| whole(k, t, v))), "cut at {cut} made up data");
    }
    for flip in (24..bytes.len()).step_by(5) {
        let trial = copy(dir.path());
        let mut bad = bytes.clone();
        bad[flip] ^= 0x40;
        fs::write(trial.path().join("wal").join(path.file_name().unwrap()), bad).unwrap();
        let (shard, report) = open(trial.path());
        assert!(report.lost_data(), "flip at {flip}");
        for (k, samples) in &everything(&shard.view()) {
            let known = |t: &i64, v: &u64| full[k].get(t) == Some(v) || (*t, *v) == (5000, 1.0f64.to_bits());
            assert!(samples.iter().all(|(t, v)| known(t, v)), "flip at {flip} made up data");
        }
    }
}

#[test]
fn leftovers_of_an_interrupted_checkpoint_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let states = filled(dir.path(), 30, 1024);
    fs::write(dir.path().join("wal/checkpoint.tmp"), b"half").unwrap();
    let old: Vec<_> = segments(dir.path()).into_iter().map(|p| (fs::read(&p).unwrap(), p)).collect();
    let (mut shard, _) = open(dir.path());
    assert_eq!(&everything(&shard.view()), states.last().unwrap());
    let report = shard.begin_checkpoint().unwrap().run().unwrap();
    assert!(report.segments_removed as usize >= old.len() && report.series == 6);
    drop(shard);
    // The crash came between the rename and the deletion.
    old.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    let (shard, report) = open(dir.path());
    assert_eq!(&everything(&shard.view()), states.last().unwrap());
    assert!(!report.lost_data() && report.samples == 0, "{report:?}");
    assert!(segments(dir.path()).len() <= 2);
}

/// Truncation's record is enough: the checkpoint that should follow never came.
#[test]
fn truncated_data_stays_away_without_its_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 30, 1024);
    let (mut shard, _) = open(dir.path());
    let (report, job) = shard.truncate_memory(150).unwrap();
    drop(job);
    assert!(report.chunks_removed > 0);
    let left = everything(&shard.view());
    assert!(left.values().all(|s| s.keys().all(|t| *t >= 150)));
    drop(shard);
    let (mut shard, _) = open(dir.path());
    assert_eq!(everything(&shard.view()), left);
    let late = shard.append(&batch([new_entry(40, 149, 1.0)])).unwrap();
    assert_eq!(late.rejected.len(), 1);
}

/// A series that was removed and came back has two references in the log until a checkpoint is written.
#[test]
fn a_series_that_came_back_is_one_series() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = open(dir.path());
    shard.append(&batch([new_entry(1, 10, 1.0), new_entry(2, 90, 1.0)])).unwrap();
    let _ = shard.truncate_memory(50).unwrap();
    let back = shard.append(&batch([new_entry(1, 95, 2.0)])).unwrap();
    let want = everything(&shard.view());
    drop(shard);
    let (mut shard, report) = open(dir.path());
    assert_eq!((everything(&shard.view()), report.series), (want.clone(), 2));
    assert!(report.unknown_samples == 0);
    let new = shard.append(&batch([new_entry(3, 96, 2.0)])).unwrap();
    assert!(new.refs[0] > back.refs[0]);
    drop(shard);
    assert_eq!(open(dir.path()).1.unknown_samples, 0);
}

/// Two checkpoints at once: one waits for the other, and whichever comes last, the next start finds a whole one.
#[test]
fn checkpoints_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let states = filled(dir.path(), 60, 1024);
    for round in 0..4 {
        let (mut shard, report) = open(dir.path());
        assert!(!report.lost_data(), "round {round}: {report:?}");
        let jobs = [shard.begin_checkpoint().unwrap(), shard.begin_checkpoint().unwrap()];
        let running = jobs.map(|job| std::thread::spawn(move || job.run().unwrap()));
        running.into_iter().for_each(|r| assert_eq!(r.join().unwrap().series, 6));
        assert_eq!(&everything(&shard.view()), states.last().unwrap());
    }
}
