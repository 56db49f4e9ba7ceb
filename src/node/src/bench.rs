//! `koios bench`: what a sample, a series and a query cost on this machine.
//!
//! Two parts. `micro` measures the engines inside this process. `duel` starts this binary and, when one is
//! installed, Debian's `prometheus`, lets both scrape the same targets at the same time, asks both the same
//! questions in turn, and counts processor time and memory from outside. Owns the table that is printed and
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
const SERIES: std::ops::RangeInclusive<usize> = 1000..=200_000;
/// Most samples of one series in the micro measures: one block.
const SAMPLES_MAX: usize = 480;
const SECONDS: std::ops::RangeInclusive<u64> = 5..=600;

/// One line of the table.
struct Row {
    what: String,
    unit: &'static str,
    koios: f64,
    prometheus: Option<f64>,
}

impl Row {
    fn new(what: impl Into<String>, unit: &'static str, koios: f64, prometheus: Option<f64>) -> Self {
        Self { what: what.into(), unit, koios, prometheus }
    }

    fn print(&self) {
        let other = self.prometheus.map_or_else(|| "-".to_owned(), number);
        let ratio = self.prometheus.filter(|p| *p > 0.0).map_or_else(String::new, |p| number(self.koios / p));
        println!("  {:<70} {:>10} {:>10} {:>7}  {}", self.what, number(self.koios), other, ratio, self.unit);
    }

    fn json(&self) -> Value {
        let ratio = self.prometheus.filter(|p| *p > 0.0).map(|p| self.koios / p);
        json!({ "what": self.what, "unit": self.unit, "koios": self.koios, "prometheus": self.prometheus, "ratio": ratio })
    }
}

/// Three significant digits.
fn number(v: f64) -> String {
    match v.abs() {
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
    match measure(series, samples, seconds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("koios bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn measure(series: usize, samples: usize, seconds: u64) -> Result<(), String> {
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

    let beside = duel::run(&clock, series, seconds)?;
    let rival = beside.rival.clone().unwrap_or_else(|| "no prometheus is installed".to_owned());
    println!("\nwhole processes, one scrape a second for {seconds} s, beside: {rival}");
    println!("  {:<70} {:>10} {:>10} {:>7}", "", "koios", "prometheus", "ratio");
    beside.rows.iter().for_each(Row::print);
    let rows: Vec<Value> = inside.iter().chain(&beside.rows).map(Row::json).collect();
    println!(
        "\n{}",
        json!({
            "version": env!("CARGO_PKG_VERSION"), "debug": cfg!(debug_assertions), "series": series,
            "samples": samples, "seconds": seconds, "rival": beside.rival, "rows": rows,
        })
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([number(1234.5), number(99.94), number(0.123)], ["1234", "99.9", "0.12"]);
        let row = Row::new("x", "ns", 3.0, Some(2.0));
        assert_eq!(row.json()["ratio"], json!(1.5));
        assert_eq!(Row::new("x", "ns", 3.0, None).json()["ratio"], Value::Null);
    }
}
