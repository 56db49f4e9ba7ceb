//! Blocks that Prometheus and Thanos wrote: everything readable, and written again byte for byte.

use std::path::{Path, PathBuf};

use koios_block::{Block, BlockMeta, BlockMetaExtras, BlockWriter, IndexReader, PostingsSource, list_blocks};
use koios_chunk::{Coder, Encoding, HistogramAppender, HistogramIter, IntCoder, XorAppender, XorIter};
use koios_model::{Columns, MatchType, Matcher};

fn shared() -> PathBuf {
    match std::env::var_os("KOIOS_SHARED") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    }
}

/// Every block of the fixtures that were compacted, plus Prometheus' own snapshot.
fn blocks() -> Vec<PathBuf> {
    let mut dirs = vec![shared().join("fixtures/thanos-bucket/bucket")];
    let snapshots = shared().join("fixtures/prometheus-data/data/snapshots");
    dirs.extend(std::fs::read_dir(snapshots).unwrap().map(|e| e.unwrap().path()));
    let found: Vec<PathBuf> = dirs.iter().flat_map(|d| list_blocks(d).unwrap()).map(|e| e.path).collect();
    assert!(found.len() > 20, "fixtures are missing: {found:?}");
    found
}

fn is_large(block: &Block) -> bool {
    block.meta().stats.num_samples > 400_000
}

#[test]
fn every_block_verifies() {
    for dir in blocks() {
        let block = Block::open(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        if is_large(&block) {
            continue;
        }
        let report = block.verify().unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        assert_eq!(report.series, block.meta().stats.num_series);
        if block.meta().resolution() == 0 {
            assert_eq!(report.samples, block.meta().stats.num_samples, "{}", dir.display());
        } else {
            assert_eq!(report.opaque_chunks, report.chunks);
        }
    }
}

#[test]
fn xor_chunks_are_re_encoded_to_the_same_bytes() {
    let (mut same, mut samples) = (0, 0);
    for dir in blocks() {
        let block = Block::open(&dir).unwrap();
        if is_large(&block) || block.meta().resolution() != 0 {
            continue;
        }
        for series in block.select(&[], i64::MIN, i64::MAX).unwrap() {
            for chunk in series.chunks.iter().filter(|c| c.encoding == Encoding::Xor) {
                let mut again = XorAppender::new();
                for s in XorIter::new(&chunk.data).unwrap() {
                    let s = s.unwrap();
                    again.append(s.t, s.v);
                    samples += 1;
                }
                // The bit stream of promtool 2.42, which made the samples of the bucket, left an empty byte behind
                // when the last write ended on a byte; current Prometheus, which made the snapshot, does not.
                let old_writer = block.meta().thanos.is_some();
                let theirs = match chunk.data.strip_suffix(&[0]) {
                    Some(shorter) if old_writer && shorter.len() == again.byte_len() => shorter,
                    _ => &chunk.data[..],
                };
                assert_eq!(again.to_bytes(), theirs, "{} {}", dir.display(), series.labels);
                same += 1;
            }
        }
    }
    assert!(same > 10_000 && samples > 1_000_000, "{same} chunks, {samples} samples");
}

/// Appends a chunk's samples again; the flags, which also say what was before the chunk, apart.
fn histograms_again<C: Coder>(bytes: &[u8]) -> (Vec<u8>, usize) {
    let samples: Vec<_> = HistogramIter::<C>::new(bytes).unwrap().map(Result::unwrap).collect();
    let mut again = HistogramAppender::<C>::start(None, samples[0].0, &samples[0].1);
    for (t, h) in &samples[1..] {
        assert!(again.append(*t, h).is_none(), "a chunk of Prometheus would be split");
    }
    let mut out = again.to_bytes();
    out[2] = bytes[2];
    (out, samples.len())
}

#[test]
fn histogram_chunks_are_re_encoded_to_the_same_bytes() {
    let dir = blocks().pop().unwrap();
    let block = Block::open(&dir).unwrap();
    let (mut exponential, mut custom, mut samples) = (0, 0, 0);
    let mut bounds = Vec::new();
    for series in block.select(&[], i64::MIN, i64::MAX).unwrap() {
        for chunk in series.chunks.iter().filter(|c| c.encoding == Encoding::Histogram) {
            let (bytes, count) = histograms_again::<IntCoder>(&chunk.data);
            assert_eq!(bytes, chunk.data, "{}", series.labels);
            samples += count;
            let mut columns = Columns::default();
            chunk.read(i64::MIN, i64::MAX, &mut columns).unwrap();
            let first = columns.histogram(0).unwrap();
            first.validate().unwrap();
            if first.uses_custom_buckets() {
                bounds.push(first.custom_values.to_vec());
                custom += 1;
            } else {
                exponential += 1;
            }
        }
    }
    assert_eq!(samples as u64, block.meta().stats.num_histogram_samples);
    assert!(bounds.contains(&vec![0.01, 0.1, 1.0, 10.0]), "thousandths");
    assert!(bounds.iter().any(|b| b.ends_with(&[230.66015625, 345.990234375])), "whole floats");
    assert!(exponential > 20 && custom > 20, "{exponential} exponential, {custom} custom");
}

/// The current writers of Prometheus and Thanos leave no choice in index and chunk files.
#[test]
fn a_block_written_again_is_identical() {
    let (mut compared, mut with_label_indices) = (0, 0);
    for dir in blocks() {
        let block = Block::open(&dir).unwrap();
        if is_large(&block) {
            continue;
        }
        let out = tempfile::tempdir().unwrap();
        let mut w = BlockWriter::create(out.path(), block.meta().ulid).unwrap();
        for s in block.select(&[], i64::MIN, i64::MAX).unwrap() {
            w.add_series(&s.labels, &s.chunks).unwrap();
        }
        let extras = BlockMetaExtras { thanos: block.meta().thanos.clone(), ..Default::default() };
        let meta = w.finish(block.meta().min_time, block.meta().max_time, extras).unwrap();
        let path = out.path().join(meta.ulid.to_string());
        let file = |base: &Path, name: &str| std::fs::read(base.join(name)).unwrap();
        assert_eq!(meta.stats.num_series, block.meta().stats.num_series);
        assert_eq!(meta.stats.num_chunks, block.meta().stats.num_chunks);
        assert!(
            file(&path, "chunks/000001") == file(&dir, "chunks/000001"),
            "{} chunks differ",
            dir.display()
        );
        // promtool 2.42 still wrote label indices, which current writers leave out: same series, other tail.
        let (ours, theirs) = (file(&path, "index"), file(&dir, "index"));
        let toc = |b: &[u8], i: usize| b[b.len() - 52 + i * 8..][..8].to_vec();
        if toc(&theirs, 2) == toc(&theirs, 4) {
            assert!(ours == theirs, "{} index differs", dir.display());
            compared += 1;
        } else {
            assert_eq!(toc(&ours, 2), toc(&theirs, 2));
            with_label_indices += 1;
        }
        assert_eq!(file(&path, "tombstones").len(), 9);
        Block::open(&path).unwrap().verify().unwrap();
    }
    assert!(
        compared > 15 && with_label_indices > 0,
        "{compared} compared, {with_label_indices} with label indices"
    );
}

#[test]
fn metas_survive_a_round_trip() {
    for dir in blocks() {
        let raw = std::fs::read(dir.join("meta.json")).unwrap();
        let meta = BlockMeta::parse(&raw).unwrap();
        let back: serde_json::Value = serde_json::from_slice(&meta.to_json()).unwrap();
        assert_eq!(back, serde_json::from_slice::<serde_json::Value>(&raw).unwrap(), "{}", dir.display());
    }
}

#[test]
fn matchers_and_ranges_on_prometheus_own_block() {
    let dir = blocks().pop().unwrap();
    let block = Block::open(&dir).unwrap();
    let all = block.select(&[], i64::MIN, i64::MAX).unwrap();
    assert_eq!(all.len(), 1551);
    let matcher = |kind, name: &str, value: &str| Matcher::new(kind, name, value).unwrap();
    for matchers in [
        vec![Matcher::equal("__name__", "up")],
        vec![
            matcher(MatchType::Regex, "__name__", "prometheus_tsdb_.*"),
            matcher(MatchType::NotEqual, "job", ""),
        ],
        vec![matcher(MatchType::Regex, "__name__", "up|go_gc_duration_seconds")],
        vec![matcher(MatchType::NotRegex, "__name__", "prometheus_.*|go_.*")],
        vec![matcher(MatchType::Equal, "le", ""), matcher(MatchType::Regex, "code", "2..|")],
    ] {
        let got = block.series_labels(&matchers).unwrap();
        let want: Vec<_> = all
            .iter()
            .map(|s| s.labels.clone())
            .filter(|l| matchers.iter().all(|m| m.matches(l.value(&m.name))))
            .collect();
        assert!(!want.is_empty(), "{matchers:?}");
        assert_eq!(got, want, "{matchers:?}");
    }
    let up = block.select(&[Matcher::equal("__name__", "up")], i64::MIN, i64::MAX).unwrap();
    let times = up[0].read(i64::MIN, i64::MAX).unwrap().times;
    let middle = times[times.len() / 2];
    let some = block.select(&[Matcher::equal("__name__", "up")], middle, middle).unwrap();
    assert_eq!(some[0].chunks.len(), 1);
    let mut columns = Columns::default();
    some[0].chunks[0].read(middle, middle, &mut columns).unwrap();
    assert_eq!(columns.times, [middle]);
    assert!(block.select(&[], block.meta().max_time, i64::MAX).unwrap().is_empty());
    let by_name = block.label_values("__name__", &[Matcher::equal("job", "prometheus")]).unwrap();
    assert!(by_name.contains(&"prometheus_build_info".to_owned()));
    assert!(block.label_names(&[Matcher::equal("__name__", "up")], i64::MIN, i64::MAX).unwrap().len() < 10);
}

#[test]
fn a_cursor_reads_what_a_selection_gives() {
    let block = Block::open(&blocks().pop().unwrap()).unwrap();
    let (mint, maxt) = (block.meta().min_time, block.meta().max_time);
    let up = [Matcher::new(MatchType::Regex, "__name__", "up|go_.*|prometheus_tsdb_.*").unwrap()];
    let wanted = ["__name__".to_owned(), "code".to_owned(), "quantile".to_owned()];
    let mut seen = 0;
    for (from, to) in [(i64::MIN, i64::MAX), (mint, mint), ((mint + maxt) / 2, maxt), (maxt, maxt)] {
        let list = block.select(&up, from, to).unwrap();
        let mut numbers = block.pick(&up, from, to).unwrap();
        assert!(from == maxt || numbers == block.index().select(&up).unwrap());
        block.retain_in_range(&mut numbers, from, to).unwrap();
        assert_eq!(numbers.len(), list.len());
        let bytes: usize = list.iter().flat_map(|s| &s.chunks).map(|c| c.data.len()).sum();
        assert_eq!(block.picked_bytes(&numbers, from, to).unwrap(), bytes as u64);
        let (mut cursor, mut few) = (block.cursor(None), block.cursor(Some(&wanted)));
        for (number, series) in numbers.into_iter().zip(&list) {
            cursor.go_to(number, from, to).unwrap();
            few.go_to(number, from, to).unwrap();
            assert_eq!(cursor.labels().unwrap(), series.labels);
            assert_eq!(few.labels().unwrap(), series.labels.keep(&wanted));
            assert_eq!(cursor.chunks().unwrap(), series.chunks);
            let (mut read, want) = (Columns::default(), series.read(from, to).unwrap());
            assert!(cursor.read(from, to, &mut read).unwrap());
            assert_eq!((read.times, read.values.len()), (want.times, want.values.len()));
            assert!(read.values.iter().zip(&want.values).all(|(a, b)| a.to_bits() == b.to_bits()));
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn every_label_of_every_series_leads_back_to_it() {
    let dir = blocks().pop().unwrap();
    let index = IndexReader::open(std::fs::read(dir.join("index")).unwrap().into()).unwrap();
    for n in index.select(&[]).unwrap() {
        let labels = index.series(n).unwrap().labels;
        for (name, value) in &labels {
            assert!(index.equal(name, value).unwrap().contains(&n), "{labels}");
        }
        let exact: Vec<_> = labels.iter().map(|(n, v)| Matcher::equal(n, v)).collect();
        assert!(index.select(&exact).unwrap().contains(&n));
    }
}
