//! Blocks made of plain maps, and maps made of blocks.
#![allow(dead_code)] // each test binary uses another part

use std::collections::BTreeMap;
use std::path::Path;

use koios_block::meta::ThanosMeta;
use koios_block::{Block, BlockMetaExtras, BlockWriter, Interval, Tombstones};
use koios_chunk::{IntHistogram, Packer, Typed};
use koios_model::histogram::{Buckets, FloatHistogram, Span};
use koios_model::{BlockId, Labels};

/// Series by name, samples by time.
pub type Data = BTreeMap<String, BTreeMap<i64, Typed>>;

/// Ids that sort as their numbers do.
pub fn id(n: u64) -> BlockId {
    BlockId::from_parts(n, 0)
}

/// Labels of a series.
pub fn labels(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", "x")])
}

/// Writes a block; `per_chunk` samples a chunk.
pub fn write(dir: &Path, n: u64, range: (i64, i64), data: &Data, per_chunk: u16) -> Block {
    let mut w = BlockWriter::create(dir, id(n)).unwrap();
    for (name, samples) in data {
        let mut packer = Packer::new(per_chunk);
        samples.iter().for_each(|(t, v)| packer.push(*t, v));
        w.add_series(&labels(name), &packer.finish()).unwrap();
    }
    let labels = [("cluster".to_owned(), "c".to_owned())].into();
    let thanos = ThanosMeta { labels, source: "test".to_owned(), ..ThanosMeta::default() };
    let extras = BlockMetaExtras { thanos: Some(thanos), ..BlockMetaExtras::default() };
    w.finish(range.0, range.1, extras).unwrap();
    Block::open(&dir.join(id(n).to_string())).unwrap()
}

/// Everything in a block that is not deleted.
pub fn read(block: &Block) -> Data {
    let mut data = Data::new();
    for number in block.index().select(&[]).unwrap() {
        let (labels, chunks) = block.series_chunks(number).unwrap();
        let samples: BTreeMap<i64, Typed> = chunks.iter().flat_map(|c| c.typed().unwrap()).collect();
        if !samples.is_empty() {
            data.insert(labels.metric_name().to_owned(), samples);
        }
    }
    data
}

/// Deletes ranges of the series at these positions.
pub fn bury(block: &Block, stones: &[(usize, i64, i64)]) -> Block {
    let numbers = block.index().select(&[]).unwrap();
    let mut t = Tombstones::default();
    for &(series, mint, maxt) in stones {
        if let Some(number) = numbers.get(series) {
            t.add(u64::from(*number), Interval { mint, maxt });
        }
    }
    t.write(block.dir()).unwrap();
    Block::open(block.dir()).unwrap()
}

/// An integer histogram with `n` observations in bucket `at`, or the stale marker.
pub fn int(n: u64, at: i32) -> Typed {
    Typed::Histogram(IntHistogram {
        count: n,
        sum: n as f64 * 0.5,
        positive_spans: vec![Span { offset: at, length: 1 }],
        positive: vec![n as i64],
        ..IntHistogram::default()
    })
}

/// The same with float counts.
pub fn float(n: u64, at: i32) -> Typed {
    Typed::FloatHistogram(FloatHistogram {
        count: n as f64,
        sum: n as f64 * 0.25,
        positive: Buckets { spans: vec![Span { offset: at, length: 1 }], counts: vec![n as f64] },
        ..FloatHistogram::default()
    })
}

/// What a sample says, whatever empty buckets a chunk gave it.
pub fn meaning(v: &Typed) -> String {
    let full = |spans: &[Span], counts: &mut dyn Iterator<Item = f64>| {
        let (mut at, mut out) = (0, Vec::new());
        for s in spans {
            at += s.offset;
            for _ in 0..s.length {
                out.extend(counts.next().filter(|c| *c != 0.0).map(|c| (at, c)));
                at += 1;
            }
        }
        out
    };
    match v {
        Typed::Float(v) => format!("{:x}", v.to_bits()),
        Typed::Histogram(h) => {
            let f = h.to_float();
            let buckets = full(&h.positive_spans, &mut f.positive.counts.iter().copied());
            format!("int {} {:x} {buckets:?}", h.count, h.sum.to_bits())
        }
        Typed::FloatHistogram(h) => {
            let buckets = full(&h.positive.spans, &mut h.positive.counts.iter().copied());
            format!("float {} {:x} {buckets:?}", h.count, h.sum.to_bits())
        }
    }
}
