//! The engines alone, in this process and on one thread.
//!
//! Times are the best of several rounds, because a busy machine only ever adds. The head writes its log but
//! does not force it to disk: that cost belongs to the disk and is shared by all who wait.

use std::hint::black_box;
use std::sync::Arc;

use koios_chunk::{XorAppender, decode_xor};
use koios_config::ScrapeConfig;
use koios_model::{Clock, Columns, Labels, ManualClock, Slot};
use koios_scrape::parse::Format;
use koios_scrape::{BodyView, IngestSettings, ScrapeLoopState};
use koios_tsdb::{AppendBatch, Entry, SeriesKey, SeriesRef, Shard, ShardOptions};

use super::Row;
use super::data::{TARGET, exposition, labels, value};
use super::process::{Scratch, dir_bytes, resident_bytes};

/// The first moment of a two-hour block.
const START: i64 = 1_700_006_400_000;
const INTERVAL: i64 = 15_000;
const ROUNDS: u64 = 5;
const CHUNK: u64 = 120;

/// All measures.
///
/// # Errors
/// When the head cannot be kept in a temporary directory.
pub fn measure(clock: &dyn Clock, series: usize, samples: usize) -> Result<Vec<Row>, String> {
    // The head first: what later measures leave behind would blur its memory.
    let mut rows = head(clock, series, samples)?;
    rows.insert(0, Row::new("parse and cache hit, per scraped sample", "ns", scrape(clock)?));
    let (ns, bytes) = decode(clock)?;
    rows.push(Row::new("decode, per sample", "ns", ns));
    rows.push(Row::new("chunk, per sample", "bytes", bytes));
    Ok(rows)
}

fn scrape(clock: &dyn Clock) -> Result<f64, String> {
    let bodies: Vec<String> = (0..8).map(|tick| exposition(0, tick)).collect();
    let global = koios_config::Config::default().global;
    let settings = IngestSettings::of(&ScrapeConfig::named("bench", &global));
    let mut state = ScrapeLoopState::new(Labels::from_pairs([("instance", "i"), ("job", "j")]), settings);
    let (mut out, mut best, mut tick) = (Vec::new(), u64::MAX, 0i64);
    for _ in 0..ROUNDS {
        let start = clock.mono_ns();
        for body in bodies.iter().cycle().take(200) {
            out.clear();
            tick += 1;
            let view = BodyView { bytes: body.as_bytes(), format: Format::Text };
            let report = state.ingest(tick, Ok(view), 0.1, &mut out);
            if !report.up {
                return Err(format!("the bench's own exposition is refused: {:?}", report.error));
            }
            black_box(&out);
        }
        best = best.min(clock.mono_ns() - start);
    }
    Ok(best as f64 / (200 * TARGET) as f64)
}

fn head(clock: &dyn Clock, series: usize, samples: usize) -> Result<Vec<Row>, String> {
    let scratch = Scratch::new("head").map_err(|e| e.to_string())?;
    let time = ManualClock::at(START + samples as i64 * INTERVAL);
    let fail = |e: koios_tsdb::TsdbError| e.to_string();
    let (mut shard, _) = Shard::open(ShardOptions::new(scratch.path(), 0), time.clone()).map_err(fail)?;
    let wal = scratch.path().join("wal");

    let before = resident_bytes(std::process::id());
    let (refs, new_ns) = create(clock, &mut shard, series)?;
    let wal_series = dir_bytes(&wal);
    let resident = |now: u64| now.saturating_sub(before) as f64 / series as f64;
    let bare = resident(resident_bytes(std::process::id()));

    let (mut best, mut total) = (u64::MAX, 0);
    for tick in 1..samples {
        let ns = append_all(clock, &mut shard, &refs, tick)?;
        (best, total) = (best.min(ns), total + ns);
    }
    let appended = (series * (samples - 1)) as f64;
    let full = resident(resident_bytes(std::process::id()));
    let chunks = shard.view().sample_bytes() as f64;
    let log = (dir_bytes(&wal) - wal_series) as f64 / appended;
    let [from_log, from_checkpoint] = restarts(clock, shard, &scratch, &time, series)?;
    Ok(vec![
        Row::new("append by reference with log, per sample, mean", "ns", total as f64 / appended),
        Row::new("append by reference with log, per sample, best", "ns", best as f64 / series as f64),
        Row::new("log, per sample", "bytes", log),
        Row::new("new series, per series", "ns", new_ns as f64 / series as f64),
        Row::new("memory of a new series", "bytes", bare),
        Row::new(format!("memory of a series with {samples} samples"), "bytes", full),
        Row::new("of them samples", "bytes", chunks / series as f64),
        Row::new("start again from the log alone, as after a kill", "ms", from_log),
        Row::new("start again from the checkpoint that a stop writes", "ms", from_checkpoint),
    ])
}

/// Wall-clock milliseconds of opening the head again: from its log, then from a checkpoint.
fn restarts(
    clock: &dyn Clock,
    shard: Shard,
    scratch: &Scratch,
    time: &Arc<ManualClock>,
    series: usize,
) -> Result<[f64; 2], String> {
    let fail = |e: koios_tsdb::TsdbError| e.to_string();
    let open = |held: Shard| {
        drop(held);
        let start = clock.mono_ns();
        let (shard, _) = Shard::open(ShardOptions::new(scratch.path(), 0), time.clone()).map_err(fail)?;
        let took = (clock.mono_ns() - start) as f64 / 1e6;
        let found = shard.view().stats().series;
        if found == series as u64 {
            Ok((shard, took))
        } else {
            Err(format!("{found} of {series} series came back"))
        }
    };
    let (mut shard, from_log) = open(shard)?;
    shard.begin_checkpoint().map_err(fail)?.run().map_err(fail)?;
    let (_, from_checkpoint) = open(shard)?;
    Ok([from_log, from_checkpoint])
}

fn create(clock: &dyn Clock, shard: &mut Shard, series: usize) -> Result<(Vec<SeriesRef>, u64), String> {
    let (mut refs, mut ns) = (Vec::with_capacity(series), 0);
    for from in (0..series).step_by(TARGET) {
        let entry = |n| Entry { series: SeriesKey::New(Slot(0), labels(n)), t: START, v: value(n, 0).into() };
        let batch = AppendBatch { entries: (from..from + TARGET).map(entry).collect() };
        let start = clock.mono_ns();
        let appended = shard.append(&batch).map_err(|e| e.to_string())?;
        ns += clock.mono_ns() - start;
        refs.extend(appended.refs);
    }
    Ok((refs, ns))
}

fn append_all(clock: &dyn Clock, shard: &mut Shard, refs: &[SeriesRef], tick: usize) -> Result<u64, String> {
    let mut ns = 0;
    for (part, refs) in refs.chunks(TARGET).enumerate() {
        let t = START + tick as i64 * INTERVAL;
        let entry = |(i, r): (usize, &SeriesRef)| Entry {
            series: SeriesKey::Ref(*r),
            t,
            v: value(part * TARGET + i, tick as u64).into(),
        };
        let batch = AppendBatch { entries: refs.iter().enumerate().map(entry).collect() };
        let start = clock.mono_ns();
        let appended = shard.append(&batch).map_err(|e| e.to_string())?;
        ns += clock.mono_ns() - start;
        if let Some((_, why)) = appended.rejected.first() {
            return Err(format!("the head refuses the bench's samples: {why}"));
        }
    }
    Ok(ns)
}

/// Nanoseconds and bytes per sample over chunks of the whole mix.
fn decode(clock: &dyn Clock) -> Result<(f64, f64), String> {
    let chunk = |n: usize| {
        let mut a = XorAppender::new();
        (0..CHUNK).for_each(|i| a.append(START + i as i64 * INTERVAL, value(n, i)));
        a.into_bytes()
    };
    let chunks: Vec<Vec<u8>> = (0..TARGET).map(chunk).collect();
    let samples = (TARGET as u64 * CHUNK) as f64;
    let (mut columns, mut best) = (Columns::default(), u64::MAX);
    for _ in 0..ROUNDS * 4 {
        let start = clock.mono_ns();
        for chunk in &chunks {
            columns.clear();
            decode_xor(chunk, &mut columns).map_err(|e| e.to_string())?;
        }
        best = best.min(clock.mono_ns() - start);
    }
    black_box(&columns);
    Ok((best as f64 / samples, chunks.iter().map(Vec::len).sum::<usize>() as f64 / samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_is_a_positive_number() {
        let clock = koios_model::SystemClock::shared();
        for row in measure(&*clock, TARGET, 10).unwrap() {
            // Memory of so few series may be found in what the process already has.
            let fine = row.koios > 0.0 || row.what.starts_with("memory");
            assert!(fine && row.koios.is_finite(), "{}: {}", row.what, row.koios);
        }
    }

    #[test]
    fn scratch_goes_away() {
        let path = {
            let scratch = Scratch::new("test").unwrap();
            std::fs::write(scratch.path().join("x"), "12345").unwrap();
            assert_eq!(dir_bytes(scratch.path()), 5);
            scratch.path().to_owned()
        };
        assert!(!path.exists());
    }
}
