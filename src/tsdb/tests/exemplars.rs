//! Exemplars through the whole shard: rules, log, checkpoint, bound, series that are gone.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{FaultyDisk, batch, far_clock, labels, new_entry, options};
use koios_model::{Exemplar, Labels, Matcher, Slot};
use koios_tsdb::{
    ExemplarEntry, ExemplarReject, HeadView, SeriesKey, SeriesRef, Shard, ShardOptions, TsdbError,
};

fn exemplar(t: i64, id: &str) -> Exemplar {
    Exemplar { labels: Labels::from_pairs([("trace_id", id)]), t, v: t as f64 / 8.0 }
}

fn of(n: usize, e: Exemplar) -> ExemplarEntry {
    ExemplarEntry { series: SeriesKey::New(Slot((n % 2) as u8), labels(n)), exemplar: e }
}

fn open(dir: &Path, max: u32) -> Shard {
    let (shard, report) =
        Shard::open(ShardOptions { exemplars_max: max, ..options(dir) }, far_clock()).unwrap();
    assert!(!report.lost_data() && report.unknown_records == 0, "{report:?}");
    shard
}

/// Series number and time of every exemplar.
fn all(view: &HeadView) -> Vec<(String, i64)> {
    let found = view.exemplars(&[vec![]], i64::MIN, i64::MAX);
    found
        .iter()
        .flat_map(|s| s.exemplars.iter().map(|e| (s.labels.value("instance").to_owned(), e.t)))
        .collect()
}

#[test]
fn rules_and_matching() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = open(dir.path(), 100);
    let refs = shard.append(&batch((0..4).map(|n| new_entry(n, 10, 1.0)))).unwrap().refs;
    let by_ref = |r, e| ExemplarEntry { series: SeriesKey::Ref(r), exemplar: e };
    let before = shard.lsn();
    let done = shard
        .append_exemplars(&[
            of(0, exemplar(10, "a")),
            by_ref(refs[0], exemplar(10, "a")),
            by_ref(refs[0], exemplar(9, "b")),
            by_ref(refs[1], exemplar(5, "c")),
            of(7, exemplar(5, "c")),
            by_ref(SeriesRef(99), exemplar(5, "c")),
            by_ref(refs[2], exemplar(5, &"y".repeat(121))),
        ])
        .unwrap();
    let why = [
        (2, ExemplarReject::OutOfOrder),
        (4, ExemplarReject::UnknownSeries),
        (5, ExemplarReject::UnknownSeries),
        (6, ExemplarReject::LabelsTooLong),
    ];
    assert_eq!((done.stored, done.rejected.as_slice(), done.lsn > before), (2, why.as_slice(), true));
    let again = shard.append_exemplars(&[by_ref(refs[0], exemplar(10, "a"))]).unwrap();
    assert_eq!(
        (again.stored, again.rejected.len(), again.lsn),
        (0, 0, done.lsn),
        "a repetition is not written"
    );
    let view = shard.view();
    assert_eq!(all(&view), [("i000".to_owned(), 10), ("i001".to_owned(), 5)]);
    let job = |j: &str| vec![Matcher::equal("job", j)];
    assert_eq!(view.exemplars(&[job("job1"), job("nope")], 0, 100).len(), 1);
    assert_eq!(view.exemplars(&[job("job1")], 6, 100).len(), 0);
    assert_eq!(view.exemplars(&[job("job0"), job("job1")], 10, 10).len(), 1);
    let stats = view.exemplar_stats();
    assert_eq!((stats.stored, stats.series, stats.max, stats.out_of_order, stats.newest), (2, 2, 100, 1, 10));
    let off = tempfile::tempdir().unwrap();
    let mut shard = open(off.path(), 0);
    shard.append(&batch([new_entry(0, 10, 1.0)])).unwrap();
    let done = shard.append_exemplars(&[of(0, exemplar(10, "a"))]).unwrap();
    assert_eq!(done.rejected, [(0, ExemplarReject::Disabled)]);
}

/// The same after a restart from the log, from a checkpoint, from both, and when the series is gone.
#[test]
fn restarts_keep_the_ring() {
    let dir = tempfile::tempdir().unwrap();
    let mut shard = open(dir.path(), 20);
    let mut t = 0;
    let mut more = |shard: &mut Shard, series: std::ops::Range<usize>| {
        t += 1;
        shard.append(&batch(series.clone().map(|n| new_entry(n, t * 10, 1.0)))).unwrap();
        let entries: Vec<_> = series.map(|n| of(n, exemplar(t * 10, "x"))).collect();
        shard.append_exemplars(&entries).unwrap();
    };
    for step in 0..12 {
        more(&mut shard, 0..4);
        match step {
            3 => drop(shard.begin_checkpoint().unwrap().run().unwrap()),
            6 => {
                // Half a checkpoint: its segment is replayed over it.
                let job = shard.begin_checkpoint().unwrap();
                more(&mut shard, 2..5);
                job.run().unwrap();
                more(&mut shard, 2..5);
            }
            _ => {}
        }
        let want = all(&shard.view());
        assert_eq!(want.len(), 20.min(shard.view().exemplar_stats().appended as usize));
        drop(shard);
        shard = open(dir.path(), 20);
        assert_eq!(all(&shard.view()), want, "step {step}");
    }
    let want = all(&shard.view());
    shard.truncate(10_000).unwrap();
    assert_eq!((shard.view().stats().series, all(&shard.view())), (0, want.clone()));
    drop(shard);
    let shard = open(dir.path(), 20);
    assert_eq!((shard.view().stats().series, all(&shard.view())), (0, want.clone()));
    drop(shard);
    let shard = open(dir.path(), 3);
    let fewer = all(&shard.view());
    assert!(fewer.len() == 3 && fewer.iter().all(|e| want.contains(e)), "{fewer:?}");
}

#[test]
fn a_full_disk_takes_none() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut shard = Shard::open_on(options(dir.path()), far_clock(), Arc::new(disk.clone())).unwrap().0;
    shard.append(&batch([new_entry(0, 10, 1.0)])).unwrap();
    disk.fill_after(7);
    let entry = [of(0, exemplar(10, "a"))];
    assert!(matches!(shard.append_exemplars(&entry), Err(TsdbError::Unavailable { .. })));
    assert!(all(&shard.view()).is_empty());
    disk.free();
    assert_eq!(shard.append_exemplars(&entry).unwrap().stored, 1);
}
