//! Prints nanoseconds per scraped sample: parse, cache hit, staleness bookkeeping, output. Plain timing loops,
//! because the numbers wanted are few and coarse. Run with `cargo bench -p koios-scrape`.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use koios_config::ScrapeConfig;
use koios_model::{Labels, SystemClock};
use koios_scrape::parse::{Format, ParsedSample, parse};
use koios_scrape::{BodyView, IngestSettings, ScrapeLoopState};

/// A body like node_exporter's: families of 10 series, 90 to 120 bytes a line.
fn body(series: usize, round: usize) -> String {
    let mut out = String::new();
    for i in 0..series {
        if i % 10 == 0 {
            let _ = writeln!(out, "# HELP node_family_{} Seconds that something took.", i / 10);
            let _ = writeln!(out, "# TYPE node_family_{} counter", i / 10);
        }
        let value = (i * 7919 + round * 13) as f64 / 100.0;
        let _ = writeln!(
            out,
            "node_family_{}{{cpu=\"{}\",mode=\"iowait\",device=\"/dev/mapper/volume-{i}\",zone=\"eu-central-1\"}} {value}",
            i / 10,
            i % 16
        );
    }
    out
}

fn settings() -> Arc<IngestSettings> {
    let global = koios_config::Config::default().global;
    IngestSettings::of(&ScrapeConfig::named("bench", &global))
}

fn time(name: &str, samples: usize, bytes: usize, mut run: impl FnMut(usize)) {
    run(0);
    run(1);
    let rounds = (20_000_000 / samples).clamp(5, 400);
    let mut best = f64::MAX;
    let clock = SystemClock::shared();
    for repeat in 0..5 {
        let start = clock.mono_ns();
        for round in 0..rounds {
            run(repeat * rounds + round);
        }
        best = best.min((clock.mono_ns() - start) as f64 / (rounds * samples) as f64);
    }
    let speed = bytes as f64 / samples as f64 / best * 1000.0;
    println!("{name:<44} {best:7.1} ns/sample  {speed:7.0} MB/s");
}

fn main() {
    for series in [1000, 20_000] {
        let bodies: Vec<String> = (0..8).map(|round| body(series, round)).collect();
        let shuffled: String = {
            let mut lines: Vec<&str> = bodies[0].lines().filter(|l| !l.starts_with('#')).collect();
            lines.sort_by_key(|l| xxhash_rust::xxh3::xxh3_64(l.as_bytes()));
            lines.join("\n") + "\n"
        };
        let bytes = bodies[0].len();
        println!("{series} series, {} bytes a sample", bytes / series);
        time("lexer alone", series, bytes, |round| {
            let mut sum = 0.0;
            let mut sink = |s: ParsedSample<'_>| sum += s.value;
            parse(Format::Text, bodies[round % 8].as_bytes(), &mut sink).unwrap();
            black_box(sum);
        });
        for (name, bodies) in [
            ("scrape, same order", bodies.as_slice()),
            ("scrape, order always new", &[bodies[0].clone(), shuffled]),
        ] {
            let mut state =
                ScrapeLoopState::new(Labels::from_pairs([("instance", "i"), ("job", "j")]), settings());
            let mut out = Vec::new();
            time(name, series, bytes, |round| {
                out.clear();
                let view = BodyView { bytes: bodies[round % bodies.len()].as_bytes(), format: Format::Text };
                let report = state.ingest(round as i64, Ok(view), 0.1, &mut out);
                assert!(report.up);
                black_box(&out);
            });
        }
        time("first scrape (every series new)", series, bytes, |round| {
            let mut state =
                ScrapeLoopState::new(Labels::from_pairs([("instance", "i"), ("job", "j")]), settings());
            let mut out = Vec::new();
            let view = BodyView { bytes: bodies[round % 8].as_bytes(), format: Format::Text };
            state.ingest(round as i64, Ok(view), 0.1, &mut out);
            black_box(&out);
        });
    }
}
