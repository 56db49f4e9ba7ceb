//! Pushed metadata through the whole shard: changes only, log, checkpoint, bounds.

mod common;

use common::{open, options};
use koios_model::metadata::{MetricKind, MetricMetadata};
use koios_tsdb::Shard;

fn says(help: &str) -> MetricMetadata {
    MetricMetadata { kind: MetricKind::Counter, help: help.to_owned(), unit: "seconds".to_owned() }
}

#[test]
fn the_last_word_counts_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = open(dir.path());
    let ask = |shard: &mut Shard, said: &[(&str, &str)]| {
        let said: Vec<_> = said.iter().map(|(n, h)| ((*n).to_owned(), says(h))).collect();
        shard.append_metadata(&said).unwrap()
    };
    let (first, changed) = ask(&mut shard, &[("a", "one"), ("b", "two"), ("a", "three"), ("", "no name")]);
    assert_eq!(changed, 2);
    assert_eq!(ask(&mut shard, &[("a", "three"), ("b", "two")]), (first, 0), "nothing new is not written");
    assert_eq!(ask(&mut shard, &[("b", "x"), ("b", "two")]), (first, 0));
    for step in 0..3 {
        let help = format!("step {step}");
        assert_eq!(ask(&mut shard, &[("b", &help)]).1, 1);
        let want = vec![("a".to_owned(), says("three")), ("b".to_owned(), says(&help))];
        if step == 1 {
            shard.begin_checkpoint().unwrap().run().unwrap();
        }
        drop(shard);
        let report;
        (shard, report) = open(dir.path());
        assert!(!report.lost_data() && report.unknown_records == 0);
        assert_eq!(shard.view().metadata(None), want);
        assert_eq!(shard.view().metadata(Some("b")), want[1..]);
        assert!(shard.view().metadata(Some("c")).is_empty());
    }
}

#[test]
fn bounds_hold() {
    let dir = tempfile::tempdir().unwrap();
    let (mut shard, _) = Shard::open(options(dir.path()), common::far_clock()).unwrap();
    let many: Vec<_> = (0..100_010).map(|i| (format!("f{i}"), MetricMetadata::default())).collect();
    assert_eq!(shard.append_metadata(&many).unwrap().1, 100_000);
    assert_eq!(shard.append_metadata(&[("f5".to_owned(), says("é".repeat(3000).as_str()))]).unwrap().1, 1);
    assert_eq!(shard.view().metadata(Some("f5"))[0].1.help.len(), 4096);
    assert_eq!(shard.append_metadata(&[("other".to_owned(), says(""))]).unwrap().1, 0);
    assert_eq!(shard.append_metadata(&[("n".repeat(4097), says(""))]).unwrap().1, 0);
}
