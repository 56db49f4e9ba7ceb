//! Golden bytes of a small index, round trips, and hostile bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use koios_model::{Labels, MatchType, Matcher};
use proptest::prelude::*;

use super::{ChunkRef, IndexReader, IndexWriter, LastLabels};

fn write(series: &[(Labels, Vec<ChunkRef>)]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let mut w = IndexWriter::create(dir.path()).unwrap();
    for (labels, chunks) in series {
        w.add_series(labels, chunks).unwrap();
    }
    let size = w.finish().unwrap();
    let bytes = std::fs::read(dir.path().join("index")).unwrap();
    assert_eq!(bytes.len() as u64, size);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the spool is gone");
    bytes
}

fn chunk(min_time: i64, max_time: i64, reference: u64) -> ChunkRef {
    ChunkRef { min_time, max_time, reference }
}

fn small() -> Vec<(Labels, Vec<ChunkRef>)> {
    vec![
        (Labels::from_pairs([("a", "1")]), vec![chunk(10, 20, 8), chunk(25, 30, 40)]),
        (Labels::from_pairs([("a", "2"), ("b", "1")]), vec![chunk(-5, 5, 100)]),
    ]
}

/// Drawn by hand from `docs/formats/index.md`, checksums aside.
#[test]
fn golden_bytes() {
    let bytes = write(&small());
    assert_eq!(bytes[..5], [0xba, 0xaa, 0xd7, 0x00, 2]);
    // length 13, five symbols: "", 1, 2, a, b
    assert_eq!(bytes[5..22], [0, 0, 0, 13, 0, 0, 0, 5, 0, 1, b'1', 1, b'2', 1, b'a', 1, b'b']);
    // series 1 at 32: one label (3, 1), two chunks: 10 as 20, +10, ref 8; 25-20, +5, ref +32 as 64
    assert_eq!(bytes[26..32], [0; 6]);
    assert_eq!(bytes[32..43], [10, 1, 3, 1, 2, 20, 10, 8, 5, 5, 64]);
    // series 2 at 48: two labels, one chunk
    assert_eq!(bytes[48..58], [9, 2, 3, 2, 4, 1, 1, 9, 10, 100]);
    // all postings: length 12, two series, numbers 2 and 3
    let at = 64;
    assert_eq!(bytes[at..at + 16], [0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3]);
}

#[test]
fn reads_what_it_wrote() {
    let series = small();
    let r = IndexReader::open(write(&series).into()).unwrap();
    let numbers = r.select(&[]).unwrap();
    let back: Vec<_> = numbers.iter().map(|&n| r.series(n).unwrap()).map(|e| (e.labels, e.chunks)).collect();
    assert_eq!(back, series);
    assert_eq!(r.label_names(), ["a", "b"]);
    assert_eq!(r.label_values("a").unwrap(), ["1", "2"]);
    assert_eq!(r.symbol_count(), 5);
    let (mut refs, mut last) = (Vec::new(), LastLabels::default());
    assert_eq!(r.series_in_range(numbers[0], 21, 24, &mut refs, &mut last).unwrap(), None);
    assert!(r.series_in_range(numbers[0], 21, 25, &mut refs, &mut last).unwrap().is_some());
    assert_eq!(refs, [series[0].1[1]]);
    // Whatever was read before, labels are the same, also when there are fewer than last time.
    for at in [1, 0, 0, 1, 1] {
        let labels = r.series_in_range(numbers[at], -5, 30, &mut refs, &mut last).unwrap();
        assert_eq!(labels.as_ref(), Some(&series[at].0));
    }
    assert!(r.series(1).is_err() && r.series(u32::MAX).is_err());
}

#[test]
fn refuses_broken_contracts() {
    let dir = tempfile::tempdir().unwrap();
    let mut w = IndexWriter::create(dir.path()).unwrap();
    let series = small();
    w.add_series(&series[1].0, &[]).unwrap();
    assert!(w.add_series(&series[0].0, &[]).unwrap_err().to_string().contains("does not sort"));
    let z = Labels::from_pairs([("z", "1")]);
    let overlap = [chunk(0, 10, 8), chunk(10, 20, 50)];
    assert!(w.add_series(&z, &overlap).unwrap_err().to_string().contains("time order"));
}

#[test]
fn an_index_without_series_is_sound() {
    let r = IndexReader::open(write(&[]).into()).unwrap();
    assert!(r.select(&[]).unwrap().is_empty());
    assert!(r.label_names().is_empty());
}

fn read_all(bytes: Vec<u8>) -> Result<(), crate::BlockError> {
    let r = IndexReader::open(Bytes::from(bytes))?;
    for n in r.select(&[])? {
        r.series(n)?;
    }
    for name in r.label_names() {
        for value in r.label_values(&name)? {
            r.select(&[Matcher::equal(name.clone(), value)])?;
        }
    }
    Ok(())
}

#[test]
fn every_flipped_byte_is_found_or_harmless_and_every_cut_is_found() {
    let good = write(&small());
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 0x04;
        // Only padding is not covered by a checksum.
        let padding = (26..32).contains(&i) || (47..48).contains(&i) || (62..64).contains(&i);
        let read = read_all(bad);
        assert!(read.is_err() || padding, "flip at {i} was not found");
        assert!(read_all(good[..i].to_vec()).is_err(), "cut at {i} was not found");
    }
    let mut v9 = good.clone();
    v9[4] = 9;
    assert_eq!(IndexReader::open(v9.into()).unwrap_err().to_string(), "index version 9 is not supported yet");
    let mut v3 = good;
    v3[4] = 3;
    assert!(read_all(v3).is_ok());
}

/// Content behind its length, before its checksum.
fn framed(content: &[u8]) -> Vec<u8> {
    let mut out = (content.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(content);
    out.extend(crate::crc32c(content).to_be_bytes());
    out
}

/// The small index as version 1 of the format has it: symbols named by position, series unaligned and numbered by
/// position, label indices, a postings table in no order. Drawn by hand from Prometheus' `tsdb/docs/format/index.md`.
fn small_v1() -> Vec<u8> {
    let mut file = vec![0xba, 0xaa, 0xd7, 0x00, 1];
    // Positions: 1 at 13, 2 at 15, a at 17, b at 19.
    file.extend(framed(&[0, 0, 0, 4, 1, b'1', 1, b'2', 1, b'a', 1, b'b']));
    let series_at = file.len();
    let mut numbers = Vec::new();
    for content in [&[1u8, 17, 13, 2, 20, 10, 8, 5, 5, 64][..], &[2, 17, 15, 19, 13, 1, 9, 10, 100]] {
        numbers.push(file.len() as u32);
        file.push(content.len() as u8);
        file.extend_from_slice(content);
        file.extend(crate::crc32c(content).to_be_bytes());
    }
    let label_indices = file.len();
    file.extend(framed(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 13]));
    let postings = file.len();
    let mut table: Vec<u8> = vec![0, 0, 0, 4];
    let lists = [("b", "1", vec![numbers[1]]), ("a", "2", vec![numbers[1]]), ("", "", numbers.clone())];
    for (name, value, list) in lists.into_iter().chain([("a", "1", vec![numbers[0]])]) {
        table.extend([2, name.len() as u8]);
        table.extend(name.bytes());
        table.push(value.len() as u8);
        table.extend(value.bytes());
        koios_chunk::varint::put_uvarint(&mut table, file.len() as u64);
        let mut content = (list.len() as u32).to_be_bytes().to_vec();
        list.iter().for_each(|n| content.extend(n.to_be_bytes()));
        file.extend(framed(&content));
    }
    let label_table = file.len();
    file.extend(framed(&[0, 0, 0, 0]));
    let postings_table = file.len();
    file.extend(framed(&table));
    let toc = super::Toc {
        symbols: 5,
        series: series_at as u64,
        label_indices: label_indices as u64,
        label_indices_table: label_table as u64,
        postings: postings as u64,
        postings_table: postings_table as u64,
    };
    file.extend(toc.encode());
    file
}

#[test]
fn version_1_is_read() {
    let r = IndexReader::open(small_v1().into()).unwrap();
    let numbers = r.select(&[]).unwrap();
    assert_eq!(numbers, [25, 40], "byte positions, not aligned");
    let back: Vec<_> = numbers.iter().map(|&n| r.series(n).unwrap()).map(|e| (e.labels, e.chunks)).collect();
    assert_eq!(back, small());
    assert_eq!(
        (r.label_names(), r.label_values("a").unwrap()),
        (vec!["a".into(), "b".into()], vec!["1".into(), "2".into()])
    );
    let one = |m: Matcher| r.select(&[m]).unwrap();
    assert_eq!(one(Matcher::equal("a", "2")), [40]);
    assert_eq!(one(Matcher::new(MatchType::Regex, "a", "1|3").unwrap()), [25]);
    assert_eq!(one(Matcher::equal("b", "")), [25]);
    let good = small_v1();
    let table_at = super::Toc::read(&good).unwrap().label_indices_table as usize;
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 0x04;
        // Label indices and their table are passed over.
        let unread = (54..74).contains(&i) || (table_at..table_at + 12).contains(&i);
        assert!(read_all(bad).is_err() || unread, "flip at {i} was not found");
        assert!(read_all(good[..i].to_vec()).is_err(), "cut at {i} was not found");
    }
}

fn label_sets() -> impl Strategy<Value = Vec<Labels>> {
    let pair = ("[a-c]", "[x-z]{0,2}");
    proptest::collection::vec(proptest::collection::vec(pair, 0..4), 0..80).prop_map(|sets| {
        let mut all: Vec<Labels> = sets.into_iter().map(Labels::from_pairs).collect();
        all.sort();
        all.dedup();
        all
    })
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let kind = prop_oneof![
        Just(MatchType::Equal),
        Just(MatchType::NotEqual),
        Just(MatchType::Regex),
        Just(MatchType::NotRegex)
    ];
    let value =
        prop::sample::select(vec!["", "x", "yz", "x.*", "x|y|zz", "x|", ".+", ".*", "[^x].*", "(y|z)"]);
    (kind, "[a-d]", value).prop_map(|(k, n, v)| Matcher::new(k, n, v).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn matchers_select_what_a_scan_selects(sets in label_sets(), matchers in proptest::collection::vec(matcher(), 0..4)) {
        let series: Vec<_> = sets.iter().map(|l| (l.clone(), vec![chunk(1, 2, 8)])).collect();
        let r = IndexReader::open(write(&series).into()).unwrap();
        let got: Vec<Labels> = r.select(&matchers).unwrap().into_iter().map(|n| r.series(n).unwrap().labels).collect();
        let want: Vec<Labels> = sets
            .into_iter()
            .filter(|l| matchers.iter().all(|m| m.matches(l.value(&m.name))))
            .collect();
        prop_assert_eq!(got, want);
    }

    #[test]
    fn many_values_are_found_across_strides(n in 1usize..150) {
        let by_label: BTreeMap<String, Vec<ChunkRef>> = (0..n).map(|i| (format!("v{i:04}"), vec![])).collect();
        let series: Vec<_> = by_label.iter().map(|(v, c)| (Labels::from_pairs([("l", v.as_str()), ("m", "1")]), c.clone())).collect();
        let r = IndexReader::open(write(&series).into()).unwrap();
        for v in by_label.keys() {
            prop_assert_eq!(r.select(&[Matcher::equal("l", v.as_str())]).unwrap().len(), 1);
        }
        for missing in ["", "a", "v", "v00005", "v9999", "w"] {
            prop_assert!(r.select(&[Matcher::equal("l", missing), Matcher::equal("m", "1")]).unwrap().is_empty());
        }
        prop_assert_eq!(r.select(&[Matcher::equal("m", "1")]).unwrap().len(), n);
    }
}
