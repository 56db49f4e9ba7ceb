//! Own blocks: tombstones applied, leftovers removed, promtool as the judge, damage refused.

use std::path::Path;
use std::process::Command;

use koios_block::{Block, BlockMetaExtras, BlockWriter, Interval, Tombstones, list_blocks, remove_leftovers};
use koios_chunk::encode_xor;
use koios_model::{BlockId, Columns, Labels, Matcher, Slot};

fn samples(from: i64, n: i64) -> Columns {
    Columns {
        times: (from..from + n).map(|i| i * 1000).collect(),
        values: (0..n).map(|i| i as f64).collect(),
        ..Columns::default()
    }
}

fn write(dir: &Path, series: i64) -> Block {
    let id = BlockId::from_parts(1, 1);
    let mut w = BlockWriter::with_segment_limit(dir, id, Some(4096)).unwrap();
    for i in 0..series {
        let labels = Labels::from_pairs([("__name__", "m"), ("i", format!("{i:03}").as_str())]);
        w.add_series(&labels, &encode_xor(&samples(0, 300), 120)).unwrap();
    }
    let meta = w.finish(0, 300_000, BlockMetaExtras::default()).unwrap();
    Block::open(&dir.join(meta.ulid.to_string())).unwrap()
}

#[test]
fn deleted_ranges_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let block = write(dir.path(), 3);
    let second = block.index().select(&[Matcher::equal("i", "001")]).unwrap()[0];
    let mut t = Tombstones::default();
    t.add(u64::from(second), Interval { mint: 5_000, maxt: 250_500 });
    std::fs::write(block.dir().join("tombstones"), t.encode()).unwrap();
    let block = Block::open(block.dir()).unwrap().with_slot(Slot(3));
    let got = block.select(&[], i64::MIN, i64::MAX).unwrap();
    assert_eq!((got[0].read(0, i64::MAX).unwrap().len(), got[1].slot), (300, Slot(3)));
    let left = got[1].read(i64::MIN, i64::MAX).unwrap();
    assert_eq!(left.times[..6], [0, 1000, 2000, 3000, 4000, 251_000]);
    assert_eq!(block.select(&[], 6_000, 250_000).unwrap().len(), 2);

    let all = block.pick(&[], i64::MIN, i64::MAX).unwrap();
    let mut left = all.clone();
    block.retain_in_range(&mut left, 121_000, 230_000).unwrap();
    assert_eq!(left, [all[0], all[2]]);
    let mut cursor = block.cursor(None);
    cursor.go_to(all[1], 0, 260_000).unwrap();
    let mut none = Columns::default();
    assert!(!cursor.read(0, 260_000, &mut none).unwrap() && none.is_empty());
    let chunks = cursor.chunks().unwrap();
    assert_eq!(chunks, got[1].chunks);
}

#[test]
fn unfinished_blocks_vanish() {
    let dir = tempfile::tempdir().unwrap();
    let id = BlockId::from_parts(5, 5);
    drop(BlockWriter::create(dir.path(), id).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // What a killed writer leaves.
    let left = dir.path().join(format!("{id}.tmp-for-creation"));
    std::fs::create_dir_all(left.join("chunks")).unwrap();
    assert!(list_blocks(dir.path()).unwrap().is_empty());
    assert_eq!(remove_leftovers(dir.path()).unwrap(), 1);
    assert!(!left.exists());
}

#[test]
fn damage_is_said_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let block = write(dir.path(), 20);
    assert!(block.dir().join("chunks/000002").exists());
    block.verify().unwrap();
    let path = block.dir().join("chunks/000001");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    // Another file under the same name: the mapped one stays as it is.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let err = Block::open(block.dir()).unwrap().verify().unwrap_err().to_string();
    assert!(err.contains("chunks/000001 is damaged at byte 8"), "{err}");
    std::fs::write(block.dir().join("meta.json"), "{").unwrap();
    assert!(Block::open(block.dir()).unwrap_err().to_string().contains("meta.json"));
}

#[test]
fn promtool_accepts_a_block() {
    let dir = tempfile::tempdir().unwrap();
    let block = write(dir.path(), 50);
    let run = |args: &[&str]| Command::new("promtool").args(args).output();
    let list = match run(&["tsdb", "list", &dir.path().to_string_lossy()]) {
        Ok(out) => out,
        Err(_) if std::env::var("CI").as_deref() != Ok("true") => return,
        Err(e) => panic!("promtool is needed in CI: {e}"),
    };
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(text.contains(&block.meta().ulid.to_string()), "{text}");
    let dir_text = dir.path().to_string_lossy().into_owned();
    let analyze = run(&["tsdb", "analyze", &dir_text]).unwrap();
    let text = String::from_utf8_lossy(&analyze.stdout).into_owned();
    assert!(
        analyze.status.success() && text.contains("50"),
        "{text}{}",
        String::from_utf8_lossy(&analyze.stderr)
    );
    std::fs::create_dir(dir.path().join("wal")).unwrap();
    let dump = run(&["tsdb", "dump", &dir_text]).unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    assert_eq!(String::from_utf8_lossy(&dump.stdout).lines().count(), 50 * 300);
}
