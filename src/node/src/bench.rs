//! `koios bench`: what a sample, a series and a query cost on this machine.
//!
//! Two parts. `micro` measures the engines inside this process. `duel` starts this binary and, when they are
//! installed, Debian's `prometheus` and `victoria-metrics`, lets all scrape the same targets at the same time, asks
//! them the same questions in turn, kills and starts them again, and counts processor time and memory from outside. Owns the table that is printed and
//! its last line, the same numbers as JSON. Sets no target: a number is only comparable within one run.
//! Everything is bounded in time, and every process and directory that was made is gone at the end.

mod data;
mod duel;
mod micro;
mod process;
mod questions;
mod targets;

use std::process::ExitCode;

use koios_model::SystemClock;
use serde_json::{Value, json};

use crate::cli::BenchArgs;

/// Fewest and most series: a run must end, and so must its memory.
const SERIES: std::ops::RangeInclusive<usize> = 1000..=1_000_000;
/// Most samples of one series in the micro measures: one block.
const SAMPLES_MAX: usize = 480;
const SECONDS: std::ops::RangeInclusive<u64> = 5..=1800;
const INTERVAL: std::ops::RangeInclusive<u64> = 1..=60;

/// One line of the table.
struct Row {
    what: String,
    unit: &'static str,
    koios: f64,
    /// What the peers come to, in the order of their names.
    peers: Vec<f64>,
}

impl Row {
    fn new(what: impl Into<String>, unit: &'static str, koios: f64) -> Self {
        Self { what: what.into(), unit, koios, peers: Vec::new() }
    }

    /// From figures of which the first is ours.
    fn beside(what: impl Into<String>, unit: &'static str, figures: &[f64]) -> Self {
        let (koios, peers) = figures.split_first().map_or((f64::NAN, &[][..]), |(k, p)| (*k, p));
        Self { what: what.into(), unit, koios, peers: peers.to_vec() }
    }

    /// Ours as a part of the better peer's.
    fn ratio(&self) -> Option<f64> {
        let best = self.peers.iter().copied().fold(f64::INFINITY, f64::min);
        (best.is_finite() && best > 0.0).then(|| self.koios / best)
    }

    fn print(&self) {
        let peers: String = self.peers.iter().map(|p| format!(" {:>10}", number(*p))).collect();
        let ratio = self.ratio().map_or_else(String::new, number);
        println!("  {:<70} {:>10}{peers} {ratio:>7}  {}", self.what, number(self.koios), self.unit);
    }

    fn json(&self) -> Value {
        json!({ "what": self.what, "unit": self.unit, "koios": self.koios, "peers": self.peers, "ratio": self.ratio() })
    }
}

/// Three significant digits; a dash for what could not be measured.
fn number(v: f64) -> String {
    match v.abs() {
        a if a.is_nan() => "-".to_owned(),
        a if a >= 100.0 => format!("{v:.0}"),
        a if a >= 10.0 => format!("{v:.1}"),
        _ => format!("{v:.2}"),
    }
}

/// Measures and prints.
pub fn run(args: &BenchArgs) -> ExitCode {
    let series = args.series.clamp(*SERIES.start(), *SERIES.end()).next_multiple_of(data::TARGET);
    let samples = args.samples.clamp(2, SAMPLES_MAX);
    let seconds = args.seconds.clamp(*SECONDS.start(), *SECONDS.end());
    let interval = args.interval.clamp(*INTERVAL.start(), *INTERVAL.end());
    match measure(series, samples, duel::Length { seconds, interval }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("koios bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(series: usize, samples: usize, length: duel::Length) -> Result<(), String> {
    let clock = SystemClock::shared();
    let profile = if cfg!(debug_assertions) { " (debug build: the numbers mean little)" } else { "" };
    println!(
        "koios {}{profile}, {series} series of 10 labels: 30 % constant, 40 % counters,",
        env!("CARGO_PKG_VERSION")
    );
    println!("20 % whole gauges, 10 % noisy floats. Smaller is better everywhere.\n");
    let inside = micro::measure(&*clock, series, samples)?;
    println!("inside one process, one thread, {samples} samples a series");
    inside.iter().for_each(Row::print);

    let duel::Length { seconds, interval } = length;
    let beside = duel::run(&clock, series, length)?;
    let peers =
        if beside.peers.is_empty() { "no peer is installed".to_owned() } else { beside.peers.join(", ") };
    println!("\nwhole processes, a scrape every {interval} s for {seconds} s, beside: {peers}");
    let names: String = beside.peers.iter().map(|p| format!(" {:>10.10}", p)).collect();
    println!("  {:<70} {:>10}{names} {:>7}", "", "koios", "ratio");
    beside.rows.iter().for_each(Row::print);
    let rows: Vec<Value> = inside.iter().chain(&beside.rows).map(Row::json).collect();
    println!(
        "\n{}",
        json!({
            "version": env!("CARGO_PKG_VERSION"), "debug": cfg!(debug_assertions), "series": series,
            "samples": samples, "seconds": seconds, "interval": interval, "peers": beside.peers, "rows": rows,
        })
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(
            [number(1234.5), number(99.94), number(0.123), number(f64::NAN)],
            ["1234", "99.9", "0.12", "-"]
        );
        let row = Row::beside("x", "ns", &[3.0, 4.0, 2.0]);
        assert_eq!((row.json()["ratio"].clone(), row.peers.len()), (json!(1.5), 2));
        assert_eq!(Row::new("x", "ns", 3.0).json()["ratio"], Value::Null);
    }
}
