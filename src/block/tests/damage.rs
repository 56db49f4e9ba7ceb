//! Every file of a block, cut at many lengths and with flipped bits: found, or without effect; never a panic, never
//! other samples than were written.

use std::path::{Path, PathBuf};

use koios_block::{Block, BlockError, BlockMetaExtras, BlockWriter, Interval, Tombstones};
use koios_chunk::{IntHistogram, Packer, SeriesChunks, Typed};
use koios_model::{BlockId, Labels};

/// Files whose every byte is covered by a checksum, padding apart.
const CHECKED: [&str; 4] = ["index", "chunks/000001", "chunks/000002", "tombstones"];

fn write(dir: &Path) -> PathBuf {
    let id = BlockId::from_parts(1, 1);
    let mut w = BlockWriter::with_segment_limit(dir, id, Some(3000)).unwrap();
    for i in 0..12u64 {
        let mut p = Packer::new(60);
        for t in 0..150i64 {
            let n = t as u64 + i;
            p.push(
                t * 1000,
                &match i % 3 {
                    0 => {
                        Typed::Histogram(IntHistogram { count: n, sum: n as f64, ..IntHistogram::default() })
                    }
                    _ => Typed::Float((t * i as i64) as f64 * 0.1),
                },
            );
        }
        let labels = Labels::from_pairs([("__name__", "m"), ("i", format!("{i:03}").as_str())]);
        w.add_series(&labels, &p.finish()).unwrap();
    }
    let meta = w.finish(0, 150_000, BlockMetaExtras::default()).unwrap();
    let path = dir.join(meta.ulid.to_string());
    let mut stones = Tombstones::default();
    for number in Block::open(&path).unwrap().index().select(&[]).unwrap().into_iter().skip(3) {
        stones.add(u64::from(number), Interval { mint: 10_500, maxt: 20_500 });
        stones.add(u64::from(number), Interval { mint: 60_000, maxt: 130_000 });
    }
    stones.write(&path).unwrap();
    path
}

fn read(path: &Path) -> Result<Vec<SeriesChunks>, BlockError> {
    let block = Block::open(path)?;
    for name in block.index().label_names() {
        block.index().label_values(&name)?;
    }
    block.select(&[], i64::MIN, i64::MAX)
}

/// Replaces a file by another one of the same name; a mapped one would change under its reader.
fn put(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// Up to 200 lengths, all of the first and last bytes among them.
fn lengths(len: usize) -> Vec<usize> {
    let step = (len / 150).max(1);
    (0..len).filter(|at| at % step == 0 || *at < 20 || len - at < 30).collect()
}

#[test]
fn a_cut_file_is_found_at_every_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path());
    let whole = read(&path).unwrap();
    for file in CHECKED.into_iter().chain(["meta.json"]) {
        let at = path.join(file);
        let good = std::fs::read(&at).unwrap();
        for len in lengths(good.len()) {
            put(&at, &good[..len]);
            match read(&path) {
                Err(e) => assert!(!e.to_string().is_empty()),
                // The newline at the end of meta.json.
                Ok(found) => assert!(
                    file == "meta.json" && len + 1 == good.len() && found == whole,
                    "{file} cut at {len}"
                ),
            }
        }
        put(&at, &good);
    }
    assert_eq!(read(&path).unwrap(), whole);
}

#[test]
fn flipped_bits_are_found_or_without_effect() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path());
    let whole = read(&path).unwrap();
    let mut seed = 7;
    for file in CHECKED {
        let at = path.join(file);
        let good = std::fs::read(&at).unwrap();
        let mut found = 0;
        for _ in 0..250 {
            let mut bad = good.clone();
            for _ in 0..=splitmix(&mut seed) % 3 {
                let bit = splitmix(&mut seed) as usize % (8 * bad.len());
                bad[bit / 8] ^= 1 << (bit % 8);
            }
            put(&at, &bad);
            match read(&path) {
                Err(_) => found += 1,
                Ok(read) => assert!(read == whole, "{file}: other samples"),
            }
        }
        assert!(found > 200, "{file}: {found} of 250");
        put(&at, &good);
    }
    let at = path.join("meta.json");
    let good = std::fs::read(&at).unwrap();
    for _ in 0..300 {
        let mut bad = good.clone();
        let bit = splitmix(&mut seed) as usize % (8 * bad.len());
        bad[bit / 8] ^= 1 << (bit % 8);
        put(&at, &bad);
        // Without a checksum a digit may become another: fewer series, never other samples.
        if let Ok(found) = read(&path) {
            assert!(found.iter().all(|s| whole.iter().any(|w| w.labels == s.labels && w.chunks == s.chunks)));
        }
    }
}

#[test]
fn missing_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path());
    for (file, want) in [
        ("index", "index"),
        ("chunks/000001", "chunks/000002 is damaged at byte 0: a segment before this one is missing"),
        ("meta.json", "meta.json"),
    ] {
        let good = std::fs::read(path.join(file)).unwrap();
        std::fs::remove_file(path.join(file)).unwrap();
        let why = read(&path).unwrap_err().to_string();
        assert!(why.contains(want), "{why}");
        std::fs::write(path.join(file), good).unwrap();
    }
    let last = std::fs::read_dir(path.join("chunks")).unwrap().count();
    std::fs::remove_file(path.join(format!("chunks/{last:06}"))).unwrap();
    let why = read(&path).unwrap_err().to_string();
    assert!(why.contains("names a segment that does not exist"), "{why}");
}
