//! Prints what the head costs: `cargo bench -p koios-tsdb --bench head [series] [scrapes] [spill, 0 or 1]`.
//!
//! Series have ten labels, a target a thousand series; half of them are counters, a quarter gauges with two
//! decimals, a quarter constants. Times of the head are those that its one thread was on a CPU (counted in ticks of
//! some milliseconds), so that others on the machine do not count; memory is the growth of the resident set, mapped
//! files not counted.

use std::sync::Arc;

use koios_block::{Block, BlockMetaExtras};
use koios_chunk::{XorAppender, decode_xor};
use koios_model::{BlockId, Clock, Columns, Labels, ManualClock, Matcher, Slot, SystemClock};
use koios_tsdb::{AppendBatch, Entry, SeriesKey, Shard, ShardOptions, cut_block};

const TARGET: usize = 1000;
const START: i64 = 1_700_006_400_000;
const INTERVAL: i64 = 15_000;
const ROUNDS: u64 = 200;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let series = numbers.first().copied().unwrap_or(200_000);
    let scrapes = numbers.get(1).copied().unwrap_or(60) as i64;
    let clock = SystemClock::shared();
    decoding(&*clock);
    head(&*clock, series, scrapes, numbers.get(2) != Some(&0));
}

/// Deterministic noise (SplitMix64).
fn noise(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn value(n: usize, scrape: i64) -> f64 {
    let r = noise((n as u64) << 20 | scrape as u64);
    match n % 4 {
        0 => (n * 1000) as f64,
        1 => ((n as i64 * 7919) % 10_000 + (r % 10_000) as i64) as f64 / 100.0,
        _ => (scrape * 40 + (r % 30) as i64 + (n as i64 % 1000) * 1000) as f64,
    }
}

fn decoding(clock: &dyn Clock) {
    for (name, f) in [
        ("constant", (|_| 1.0) as fn(u64) -> f64),
        ("counter", |i| (i * 37 + noise(i) % 30) as f64),
        ("gauge, 2 decimals", |i| (noise(i) % 10_000) as f64 / 100.0),
        ("noisy", |i| f64::from_bits(0x3ff0_0000_0000_0000 | noise(i) >> 12)),
    ] {
        let chunks: Vec<Vec<u8>> = (0..2000u64)
            .map(|c| {
                let mut a = XorAppender::new();
                (0..120u64).for_each(|i| a.append(START + i as i64 * INTERVAL, f(c * 120 + i)));
                a.into_bytes()
            })
            .collect();
        let bytes: usize = chunks.iter().map(Vec::len).sum();
        let mut out = Columns::default();
        let mut best = u64::MAX;
        for _ in 0..ROUNDS {
            let start = clock.mono_ns();
            for c in &chunks {
                out.clear();
                decode_xor(c, &mut out).expect("own chunk");
            }
            best = best.min(clock.mono_ns() - start);
        }
        let per_sample = best as f64 / 240_000.0;
        let size = bytes as f64 / 240_000.0;
        println!("xor {name:18} {per_sample:6.2} ns/sample decode  {size:5.2} B/sample");
    }
}

fn labels(n: usize) -> Labels {
    let target = n / TARGET;
    let (instance, metric, path) =
        (format!("10.0.{}.{}:9100", target / 250, target % 250), n % TARGET / 4, n % 4);
    let pod = format!("service-{}-{:08x}", target % 40, noise(target as u64) as u32);
    Labels::from_pairs([
        ("__name__", format!("some_metric_name_{metric}_total").as_str()),
        ("instance", instance.as_str()),
        ("job", format!("job-{}", target % 20).as_str()),
        ("cluster", "eu-central-1"),
        ("namespace", format!("team-{}", target % 30).as_str()),
        ("pod", pod.as_str()),
        ("container", "main"),
        ("path", ["/api/v1/read", "/api/v1/write", "/healthz", "/metrics"][path]),
        ("code", "200"),
        ("node", format!("node-{}", target % 100).as_str()),
    ])
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or(0) * 1024
}

fn dir_bytes(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("directory");
    entries.filter_map(|e| e.ok()?.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
}

/// Nanoseconds that this thread was on a CPU.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn head(clock: &dyn Clock, series: usize, scrapes: i64, spill: bool) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let time = ManualClock::at(START + scrapes * INTERVAL + 1_000_000);
    let opts = ShardOptions { spill, ..ShardOptions::new(dir.path(), 0) };
    let (mut shard, _) = Shard::open(opts.clone(), time.clone()).expect("open");
    let per = |ns: u64, n: usize| ns as f64 / n as f64;

    // Only what the head keeps counts: one batch of labels at a time.
    let (mut refs, mut ns) = (Vec::with_capacity(series), 0);
    let mut batches: Vec<AppendBatch> = Vec::new();
    let before = resident_bytes();
    for from in (0..series).step_by(TARGET) {
        let entries = (from..(from + TARGET).min(series)).map(|n| Entry {
            series: SeriesKey::New(Slot(0), labels(n)),
            t: START,
            v: value(n, 0).into(),
        });
        let batch = AppendBatch { entries: entries.collect() };
        let start = cpu_ns();
        refs.extend(shard.append(&batch).expect("append").refs);
        ns += cpu_ns() - start;
    }
    let wal_series = dir_bytes(&dir.path().join("wal"));
    println!(
        "new series          {:8.0} ns/series  {:6.0} B WAL/series",
        per(ns, series),
        per(wal_series, series)
    );

    for part in refs.chunks(TARGET) {
        let entries = part.iter().map(|r| Entry { series: SeriesKey::Ref(*r), t: START, v: 0.0.into() });
        batches.push(AppendBatch { entries: entries.collect() });
    }
    let own = batches.len() * TARGET * size_of::<Entry>();
    let (mut passes, whole) = (Vec::new(), cpu_ns());
    for scrape in 1..=scrapes {
        let mut pass = 0;
        for (b, batch) in batches.iter_mut().enumerate() {
            for (i, e) in batch.entries.iter_mut().enumerate() {
                (e.t, e.v) = (START + scrape * INTERVAL, value(b * TARGET + i, scrape).into());
            }
            let start = clock.mono_ns();
            let done = shard.append(batch).expect("append");
            pass += clock.mono_ns() - start;
            assert!(done.rejected.is_empty());
        }
        passes.push(pass);
    }
    let samples = series * scrapes as usize;
    let mean = per(cpu_ns() - whole, samples);
    let best = per(passes.iter().copied().min().unwrap_or(0), series);
    let wal = dir_bytes(&dir.path().join("wal")) - wal_series;
    println!(
        "append by reference {best:8.0} ns/sample of wall time at best, {mean:.0} of CPU in the mean with making the \
         values, {:5.2} B WAL/sample",
        per(wal, samples)
    );
    let resident = resident_bytes().saturating_sub(before + own);
    let chunks = shard.view().sample_bytes();
    println!(
        "memory              {:8.0} B/series, {:.0} of them samples",
        per(resident as u64, series),
        per(chunks as u64, series)
    );
    queries(&shard, series, samples);
    replay_and_cut(shard, &opts, time, series, samples);
}

fn queries(shard: &Shard, series: usize, samples: usize) {
    let view = shard.view();
    let start = cpu_ns();
    let all = view.select(&[Matcher::equal("container", "main")], i64::MIN, i64::MAX).expect("select");
    let ns = cpu_ns() - start;
    assert_eq!(all.len(), series);
    println!("select everything   {:8.0} ns/series", ns as f64 / series as f64);
    let (start, mut columns) = (cpu_ns(), Columns::default());
    for chunk in all.iter().flat_map(|s| &s.chunks) {
        columns.clear();
        chunk.read(i64::MIN, i64::MAX, &mut columns).expect("own chunk");
    }
    println!("decode everything   {:8.2} ns/sample", (cpu_ns() - start) as f64 / samples as f64);
    let start = cpu_ns();
    let one = [Matcher::equal("__name__", "some_metric_name_7_total"), Matcher::equal("path", "/healthz")];
    let found = view.select(&one, i64::MIN, i64::MAX).expect("select").len();
    println!(
        "select one metric   {:8.0} ns/series, {found} series",
        (cpu_ns() - start) as f64 / found as f64
    );
}

fn replay_and_cut(shard: Shard, opts: &ShardOptions, time: Arc<ManualClock>, series: usize, samples: usize) {
    let ms = |start: u64| (cpu_ns() - start) as f64 / 1e6;
    drop(shard);
    let start = cpu_ns();
    let (mut shard, report) = Shard::open(opts.clone(), time.clone()).expect("open");
    println!("replay of the log   {:8.0} ms, {:.0} ns/sample", ms(start), ms(start) * 1e6 / samples as f64);
    assert_eq!(report.series as usize, series);

    let start = cpu_ns();
    let done = shard.begin_checkpoint().and_then(koios_tsdb::CheckpointJob::run).expect("checkpoint");
    println!("checkpoint          {:8.0} ms, {:.0} B/series", ms(start), done.bytes as f64 / series as f64);
    drop(shard);
    let start = cpu_ns();
    let (mut shard, _) = Shard::open(opts.clone(), time).expect("open");
    println!("replay of it        {:8.0} ms", ms(start));

    let out = tempfile::tempdir().expect("temporary directory");
    let (id, start) = (BlockId::from_parts(1, 1), cpu_ns());
    let (mint, maxt) = (START, START + 7_200_000);
    let meta = cut_block(&[shard.view()], Slot(0), mint, maxt, out.path(), id, BlockMetaExtras::default());
    let meta = meta.expect("cut").expect("samples");
    println!("cut                 {:8.0} ms, {} chunks", ms(start), meta.stats.num_chunks);
    let start = cpu_ns();
    shard.begin_truncate(maxt).expect("truncate");
    let mut longest = ms(start);
    let report = loop {
        let step = cpu_ns();
        let done = shard.truncate_step().expect("truncate");
        longest = longest.max(ms(step));
        if let Some((report, _job)) = done {
            break report;
        }
    };
    let removed = report.series_removed;
    println!(
        "truncate in memory  {:8.0} ms, {removed} series removed, longest step {longest:.1} ms",
        ms(start)
    );
    let start = cpu_ns();
    let block = Block::open(&out.path().join(meta.ulid.to_string())).expect("block");
    println!("open block          {:8.1} ms", ms(start));
    let start = cpu_ns();
    let found = block.select(&[Matcher::equal("container", "main")], mint, maxt).expect("select").len();
    println!("select from block   {:8.0} ns/series", ms(start) * 1e6 / found as f64);
}
