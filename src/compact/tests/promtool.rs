//! What is shown of blocks, beside what promtool shows of the same ones.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use common::{Data, int, read, write};
use koios_block::{BlockMetaExtras, BlockWriter};
use koios_chunk::{Packer, Typed};
use koios_compact::show::{DumpFormat, DumpOptions, ShowError, analyze, dump, ls, open};
use koios_compact::{Merge, delete_from_block, merge_blocks};
use koios_model::{Labels, Matcher};

/// `None` when promtool is not there and need not be.
fn promtool(args: &[&str], dir: &Path) -> Option<String> {
    // It wants a log, if an empty one.
    std::fs::create_dir_all(dir.join("wal")).unwrap();
    match Command::new("promtool").arg("tsdb").args(args).arg(dir).output() {
        Ok(out) => {
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            Some(String::from_utf8(out.stdout).unwrap())
        }
        Err(_) if std::env::var_os("CI").is_none() => None,
        Err(e) => panic!("promtool is needed in CI: {e}"),
    }
}

fn shown(show: impl FnOnce(&mut Vec<u8>) -> Result<(), ShowError>) -> String {
    let mut out = Vec::new();
    show(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Says the first line that differs, not both texts.
fn same(own: &str, theirs: &str) {
    for (n, (a, b)) in own.lines().zip(theirs.lines()).enumerate() {
        assert_eq!(a, b, "line {n}");
    }
    assert_eq!(own.lines().count(), theirs.lines().count());
}

const NUMBERS: [f64; 12] =
    [0.0, 1.0, -2.5, 123_456.0, 1_234_567.0, 1e21, 1e-5, 0.000_123, f64::INFINITY, f64::NAN, 0.1, 1e300];

/// Two blocks one after the other and one that overlaps both at other instants, labels that need quoting among them.
fn blocks(dir: &Path) {
    for (n, from) in [(1u64, 0i64), (2, 7_200_000), (3, 3_600_001)] {
        let mut w = BlockWriter::create(dir, common::id(n)).unwrap();
        for (i, text) in ["a", "b \"q\" \\ ü\n", "c"].iter().enumerate() {
            let mut p = Packer::new(120);
            for k in 0..240i64 {
                let v = NUMBERS[(k as usize + i) % NUMBERS.len()];
                p.push(from + k * 15_000 * (i as i64 + 1) / 2 + 7, &Typed::Float(v));
            }
            w.add_series(&Labels::from_pairs([("__name__", "m"), ("text", *text)]), &p.finish()).unwrap();
        }
        w.finish(from, from + 7_200_000, BlockMetaExtras::default()).unwrap();
    }
}

#[test]
fn dump_list_and_analyze_say_what_promtool_says() {
    let dir = tempfile::tempdir().unwrap();
    blocks(dir.path());
    let db = open(dir.path()).unwrap();
    let own = shown(|out| dump(&db, &DumpOptions::default(), out));
    assert_eq!(own.lines().count(), own.lines().collect::<BTreeSet<_>>().len(), "each sample once");
    let range = DumpOptions {
        min_time: 3_600_000,
        max_time: 7_300_000,
        sets: vec![vec![Matcher::equal("text", "a")]],
        ..DumpOptions::default()
    };
    let part = shown(|out| dump(&db, &range, out));
    assert!(!part.is_empty() && part.lines().all(|l| own.contains(l)));
    if let Some(theirs) = promtool(&["dump"], dir.path()) {
        same(&own, &theirs);
        let flags = ["dump", "--min-time=3600000", "--max-time=7300000", "--match={text=\"a\"}"];
        same(&part, &promtool(&flags, dir.path()).unwrap());
        for (human, flags) in [(false, &["list"][..]), (true, &["list", "-r"])] {
            same(&shown(|out| ls(&db, human, out)), &promtool(flags, dir.path()).unwrap());
        }
        let theirs = promtool(&["analyze", "--extended"], dir.path()).unwrap();
        let newest = &db.blocks[2];
        let own = shown(|out| analyze(newest, &[], true)?.write(newest, 20, out));
        // Ties come in any order there; newer versions say "Total Series".
        let lines = |text: &str| -> BTreeSet<String> {
            text.lines().map(|l| l.replace("Total Series", "Series").trim_end().to_owned()).collect()
        };
        assert_eq!(lines(&own), lines(&theirs), "{own}\n{theirs}");
    }
    let both = DumpOptions {
        sets: vec![
            vec![Matcher::equal("text", "a")],
            vec![Matcher::equal("__name__", "m"), Matcher::equal("text", "a")],
        ],
        ..DumpOptions::default()
    };
    assert_eq!(
        shown(|out| dump(&db, &both, out)).lines().count(),
        own.lines().filter(|l| l.contains("\"a\"")).count()
    );
}

/// A merge of ours, read by promtool: the same samples as from the sources.
#[test]
fn promtool_reads_a_merged_block() {
    let dir = tempfile::tempdir().unwrap();
    blocks(dir.path());
    let before = promtool(&["dump"], dir.path());
    let db = open(dir.path()).unwrap();
    let into = tempfile::tempdir().unwrap();
    let merge = Merge::new(into.path(), common::id(9), &|| false);
    assert_eq!(merge_blocks(&db.blocks, &merge).unwrap().len(), 1);
    let own = shown(|out| dump(&open(into.path()).unwrap(), &DumpOptions::default(), out));
    same(&own, &shown(|out| dump(&db, &DumpOptions::default(), out)));
    same(&promtool(&["dump"], into.path()).unwrap_or_default(), &before.unwrap_or_default());
}

#[test]
fn deletions_histograms_producers_and_damage() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = dir.path().join("bucket");
    std::fs::create_dir_all(&bucket).unwrap();
    let mut data = Data::new();
    data.insert("f".into(), (0..50).map(|t| (t * 1000, Typed::Float(t as f64))).collect());
    data.insert("h".into(), (0..3).map(|t| (t * 1000, int(t as u64 + 1, 0))).collect());
    let block = write(&bucket, 1, (0, 100_000), &data, 120);
    delete_from_block(&block, &[vec![Matcher::equal("__name__", "f")]], 5000, i64::MAX).unwrap();
    assert_eq!(read(&open(dir.path()).unwrap().blocks[0])["f"].len(), 5);
    let db = open(dir.path()).unwrap();
    assert_eq!(db.dir, bucket);
    let text = shown(|out| dump(&db, &DumpOptions::default(), out));
    assert_eq!(text.lines().count(), 8);
    assert!(text.contains("{__name__=\"h\", job=\"x\"} {count:1, sum:0.5, (0.5,1]:1} 0\n"), "{text}");
    let format = DumpFormat::OpenMetrics;
    let text = shown(|out| dump(&db, &DumpOptions { format, ..DumpOptions::default() }, out));
    assert!(text.starts_with("f{job=\"x\"} 0 0.000\nf{job=\"x\"} 1 1.000\n"), "{text}");
    assert!(text.ends_with("f{job=\"x\"} 4 4.000\n# EOF\n"), "floats only: {text}");

    let second = write(&bucket, 2, (0, 100_000), &data, 120);
    let mut meta = second.meta().clone();
    meta.thanos.as_mut().unwrap().labels = [("cluster".to_owned(), "d".to_owned())].into();
    meta.write(second.dir()).unwrap();
    let text = shown(|out| dump(&open(dir.path()).unwrap(), &DumpOptions::default(), out));
    assert!(
        text.contains("{__name__=\"f\", cluster=\"c\", job=\"x\"} 0 0\n") && text.contains("cluster=\"d\"")
    );

    std::fs::write(second.dir().join("index"), b"short").unwrap();
    let db = open(dir.path()).unwrap();
    assert_eq!((db.blocks.len(), db.damaged.len()), (1, 1));
    assert!(db.damaged[0].1.contains("index is damaged"), "{:?}", db.damaged);
    let found = analyze(&db.blocks[0], &[Matcher::equal("__name__", "h")], false).unwrap();
    assert_eq!((found.total_series, found.matched_series, found.entries), (2, Some(1), 2));
    assert!(open(&dir.path().join("missing")).is_err());
}
