//! The data of the bench: realistic in shape, the same in every run.
//!
//! A target has a thousand series in ten families of a hundred. A series has ten labels once it is scraped
//! (name, seven exposed, job, instance). By family: 30 % never change, 40 % are counters and 20 % gauges of
//! whole numbers, 10 % are floats that share no digits.

use std::fmt::Write as _;

use koios_model::Labels;

/// Series of one target.
pub const TARGET: usize = 1000;
const FAMILY: usize = 100;

/// Deterministic noise (SplitMix64, Steele et al. 2014).
pub fn noise(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What a family is.
fn kind(n: usize) -> &'static str {
    match n % TARGET / FAMILY % 10 {
        0..=2 => "constant",
        3..=6 => "counter",
        7..=8 => "gauge",
        _ => "noise",
    }
}

/// The value of series `n` at scrape `tick`.
pub fn value(n: usize, tick: u64) -> f64 {
    let r = noise((n as u64) << 32 ^ tick);
    match kind(n) {
        "constant" => (n * 1000) as f64,
        "counter" => (tick * 40 + r % 40 + (n as u64 % 1000) * 1000) as f64,
        "gauge" => (r % 1000) as f64,
        _ => f64::from_bits(0x3ff0_0000_0000_0000 | r >> 12),
    }
}

/// Metric name of series `n`.
pub fn name(n: usize) -> String {
    let kind = kind(n);
    let suffix = if kind == "counter" { "_total" } else { "" };
    format!("bench_{kind}_{}{suffix}", n % TARGET / FAMILY)
}

/// Exposed labels of series `n`.
fn exposed(n: usize) -> [(&'static str, String); 7] {
    let target = n / TARGET;
    let path = ["/api/v1/read", "/api/v1/write", "/healthz", "/metrics", "/login"][n % 5];
    [
        ("cluster", "eu-central-1".to_owned()),
        ("code", if n % 10 < 5 { "200" } else { "500" }.to_owned()),
        ("container", format!("worker-{}", n % FAMILY / 10)),
        ("namespace", format!("team-{}", target % 30)),
        ("node", format!("node-{}", target % 100)),
        ("path", path.to_owned()),
        ("pod", format!("service-{}-{:08x}", target % 40, noise(target as u64) as u32)),
    ]
}

/// All ten labels of series `n`, as a scrape would make them.
pub fn labels(n: usize) -> Labels {
    let (name, target) = (name(n), n / TARGET);
    let instance = format!("10.0.{}.{}:9100", target / 250, target % 250);
    let exposed = exposed(n);
    let mut pairs: Vec<(&str, &str)> = exposed.iter().map(|(n, v)| (*n, v.as_str())).collect();
    pairs.extend([("__name__", name.as_str()), ("instance", instance.as_str()), ("job", "bench")]);
    Labels::from_pairs(pairs)
}

/// The exposition of a target at a scrape, Prometheus text format.
pub fn exposition(target: usize, tick: u64) -> String {
    let mut out = String::with_capacity(TARGET * 180);
    for n in target * TARGET..(target + 1) * TARGET {
        let name = name(n);
        if n % FAMILY == 0 {
            let kind = if kind(n) == "counter" { "counter" } else { "gauge" };
            let _ = writeln!(out, "# HELP {name} A family of the bench.\n# TYPE {name} {kind}");
        }
        out.push_str(&name);
        for (i, (label, value)) in exposed(n).iter().enumerate() {
            let _ = write!(out, "{}{label}=\"{value}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(out, "}} {}", value(n, tick));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_is_as_promised() {
        let count = |k| (0..TARGET).filter(|n| kind(*n) == k).count();
        assert_eq!(
            [count("constant"), count("counter"), count("gauge"), count("noise")],
            [300, 400, 200, 100]
        );
        assert_eq!(labels(1234).len(), 10);
        assert!((1..100).all(|t| value(300, t) > value(300, t - 1)), "a counter rises");
    }

    #[test]
    fn series_of_a_target_differ_and_repeat() {
        let body = exposition(1, 7);
        let series: std::collections::BTreeSet<&str> = body
            .lines()
            .filter(|l| !l.starts_with('#'))
            .filter_map(|l| l.rsplit_once(' '))
            .map(|(s, _)| s)
            .collect();
        assert_eq!(series.len(), TARGET);
        assert_eq!(body, exposition(1, 7));
        let all: std::collections::BTreeSet<u64> = (0..3 * TARGET).map(|n| labels(n).hash64()).collect();
        assert_eq!(all.len(), 3 * TARGET);
    }
}
