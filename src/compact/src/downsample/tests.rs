//! Windows by hand.

use super::*;
use koios_chunk::{Typed, encode_xor};

fn floats(samples: &[(i64, f64)]) -> Vec<Chunk> {
    let mut c = Columns::default();
    samples.iter().for_each(|(t, v)| c.push(*t, *v));
    encode_xor(&c, 120)
}

fn read(chunk: &Chunk, which: Aggregate) -> Vec<(i64, f64)> {
    let Some(part) = chunk.aggregate(which).unwrap() else { return Vec::new() };
    part.typed().unwrap().into_iter().map(|(t, v)| (t, v.value())).collect()
}

fn counter(chunk: &Chunk) -> Vec<(i64, f64)> {
    let mut c = Columns::default();
    chunk.read_counter(&mut c).unwrap();
    c.times.into_iter().zip(c.values).collect()
}

#[test]
fn windows_end_at_their_last_millisecond_and_the_last_at_its_sample() {
    let chunks = floats(&[
        (0, 1.0),
        (60_000, 5.0),
        (299_999, 2.0),
        (300_000, f64::NAN),
        (420_000, 4.0),
        (600_000, 6.0),
    ]);
    let got = downsample_series(&chunks, FIVE_MINUTES).unwrap();
    assert_eq!(got.len(), 1);
    let c = &got[0];
    assert_eq!((c.min_time, c.max_time, c.sample_count()), (299_999, 600_000, Some(3)));
    let ends = |v: [f64; 3]| vec![(299_999, v[0]), (599_999, v[1]), (600_000, v[2])];
    assert_eq!(read(c, Aggregate::Count), ends([3.0, 1.0, 1.0]));
    assert_eq!(read(c, Aggregate::Sum), ends([8.0, 4.0, 6.0]));
    assert_eq!(read(c, Aggregate::Min), ends([1.0, 4.0, 6.0]));
    assert_eq!(read(c, Aggregate::Max), ends([5.0, 4.0, 6.0]));
    // 1, up 4, a reset to 2, up 2, up 2; then what the counter stood at.
    assert_eq!(counter(c), [(0, 1.0), (299_999, 7.0), (599_999, 9.0), (600_000, 11.0), (600_000, 6.0)]);
}

#[test]
fn an_hour_goes_along_the_chunks_and_sees_resets_between_them() {
    let mut raw = floats(&(0..30).map(|n| (n * 60_000, n as f64)).collect::<Vec<_>>());
    raw.extend(floats(&(30..60).map(|n| (n * 60_000, (n - 30) as f64)).collect::<Vec<_>>()));
    let fine: Vec<Chunk> =
        raw.iter().flat_map(|c| downsample_series(std::slice::from_ref(c), FIVE_MINUTES).unwrap()).collect();
    assert_eq!(fine.len(), 2);
    let got = downsample_series(&fine, HOUR).unwrap();
    assert_eq!(got.len(), 1);
    let c = &got[0];
    assert_eq!(read(c, Aggregate::Count), [(3_540_000, 60.0)]);
    assert_eq!(read(c, Aggregate::Sum), [(3_540_000, 870.0)]);
    assert_eq!(read(c, Aggregate::Max), [(3_540_000, 29.0)]);
    assert_eq!(counter(c), [(0, 0.0), (3_540_000, 58.0), (3_540_000, 29.0)]);
}

#[test]
fn chunks_have_about_140_windows() {
    let week: Vec<(i64, f64)> = (0..7 * 1440).map(|n| (n * 60_000, 1.0)).collect();
    let got = downsample_series(&floats(&week), FIVE_MINUTES).unwrap();
    assert_eq!(got.iter().map(|c| c.sample_count().unwrap()).sum::<usize>(), 7 * 288);
    assert_eq!(got.len(), 15);
    assert!(got.windows(2).all(|w| w[0].max_time < w[1].min_time));
    assert_eq!((chunk_count(0, 0, 1, 1, 1), chunk_count(0, 140 * 60, 1, 60, 140 * 60)), (1, 2));
    assert!(downsample_series(&[], HOUR).unwrap().is_empty());
    assert!(downsample_series(&floats(&[(5, f64::NAN)]), FIVE_MINUTES).unwrap().is_empty());
}

#[test]
fn histograms_keep_count_sum_and_counter() {
    let hist = |n: u64| {
        Typed::Histogram(koios_chunk::IntHistogram {
            count: n,
            sum: n as f64,
            positive_spans: vec![koios_model::histogram::Span { offset: (n % 3) as i32, length: 1 }],
            positive: vec![n as i64],
            ..koios_chunk::IntHistogram::default()
        })
    };
    let mut packer = koios_chunk::Packer::new(120);
    for (i, n) in [2, 5, 8, 2, 5].into_iter().enumerate() {
        packer.push(i as i64 * 120_000, &hist(n));
    }
    packer.push(600_000, &Typed::Float(1.0));
    let fine = downsample_series(&packer.finish(), FIVE_MINUTES).unwrap();
    assert_eq!(fine.len(), 2, "floats and histograms part");
    let c = &fine[0];
    assert_eq!(read(c, Aggregate::Count), [(299_999, 3.0), (480_000, 2.0)]);
    assert_eq!(read(c, Aggregate::Sum), [(299_999, 15.0), (480_000, 7.0)]);
    assert!(read(c, Aggregate::Min).is_empty() && read(c, Aggregate::Max).is_empty());
    let mut all = Columns::default();
    c.read_counter(&mut all).unwrap();
    let counts: Vec<f64> = (0..all.len()).map(|i| all.histogram(i).unwrap().count).collect();
    assert_eq!(counts[..3], [2.0, 8.0, 13.0], "the reset is taken out");
    let coarse = downsample_series(&fine, HOUR).unwrap();
    assert_eq!(coarse.len(), 2);
    assert_eq!(read(&coarse[0], Aggregate::Count), [(480_000, 5.0)]);
    assert_eq!(read(&coarse[0], Aggregate::Sum), [(480_000, 22.0)]);
}
