//! The log as files: what is listed is durable, and prefixes of the files open as a head.

mod common;

use std::path::Path;

use common::{batch, everything, new_entry, open};
use koios_tsdb::{LogFile, LogFileKind, Shard};

/// Copies what is listed, `upto` bytes of the last file at most.
fn copy(shard: &Shard, files: &[LogFile], to: &Path, upto: u64) {
    for (i, f) in files.iter().enumerate() {
        let len = if i + 1 == files.len() { f.bytes.min(upto) } else { f.bytes };
        let bytes =
            shard.syncer().read_file(f.kind, f.number, 0, len as usize).unwrap().expect("it is there");
        let path = f.kind.in_shard(to, f.number);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

fn append(shard: &mut Shard, from: i64, to: i64) {
    for t in from..to {
        let done = shard.append(&batch((0..5).map(|n| new_entry(n, t * 1000, t as f64)))).unwrap();
        assert!(done.rejected.is_empty());
    }
}

#[test]
fn a_copy_of_the_files_is_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = open(&dir.path().join("a"));
    append(&mut shard, 0, 20);
    let files = shard.syncer().durable_files().unwrap();
    assert_eq!(files.iter().map(|f| (f.kind, f.closed)).collect::<Vec<_>>(), [(LogFileKind::Segment, false)]);
    copy(&shard, &files, &dir.path().join("b"), u64::MAX);
    assert_eq!(everything(&open(&dir.path().join("b")).0.view()), everything(&shard.view()));

    // What is written after the listing is not in the copy, and the listing does not grow by itself.
    let before = everything(&shard.view());
    append(&mut shard, 20, 25);
    copy(&shard, &files, &dir.path().join("c"), u64::MAX);
    assert_eq!(everything(&open(&dir.path().join("c")).0.view()), before);
    // A piece that ends in the middle of a record gives what is before it.
    copy(&shard, &files, &dir.path().join("d"), files[0].bytes - 1);
    let (cut, report) = open(&dir.path().join("d"));
    assert!(report.torn_bytes > 0 && !report.lost_data());
    assert!(everything(&cut.view()).values().all(|s| s.len() == 19));
}

#[test]
fn a_checkpoint_takes_the_place_of_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = open(&dir.path().join("a"));
    append(&mut shard, 0, 20);
    let old = shard.syncer().durable_files().unwrap();
    shard.begin_checkpoint().unwrap().run().unwrap();
    append(&mut shard, 20, 25);
    let files = shard.syncer().durable_files().unwrap();
    let kinds: Vec<_> = files.iter().map(|f| (f.kind, f.closed)).collect();
    assert_eq!(kinds, [(LogFileKind::Checkpoint, true), (LogFileKind::Segment, false)]);
    assert_eq!(files[0].number, files[1].number);
    assert_eq!(shard.syncer().read_file(old[0].kind, old[0].number, 0, 1).unwrap(), None);
    copy(&shard, &files, &dir.path().join("b"), u64::MAX);
    assert_eq!(everything(&open(&dir.path().join("b")).0.view()), everything(&shard.view()));
}
