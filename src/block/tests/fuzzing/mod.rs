//! A small deterministic mutation fuzzer, shared by the fuzz tests of several crates.
//!
//! Seeded: a failure names its target and round. One pass takes a second or two; `KOIOS_FUZZ_SECONDS=1200` goes on
//! for that long with new seeds. At its end each target says how many inputs it read and how fast.

#![allow(dead_code)] // each test binary uses another part

use std::path::{Path, PathBuf};
use std::time::Duration;

use koios_block::list_blocks;
use koios_model::SystemClock;

/// Rounds of each target in one pass.
const ROUNDS: u64 = 300;
/// A round that takes longer hangs, even on a busy machine.
const HANG: Duration = Duration::from_secs(20);

/// `splitmix64`.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Flips, overwrites, inserts, removes, repeats or cuts, one to four times.
    pub fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(out.len());
            let len = (1 + self.below(16)).min(out.len() - at);
            match self.below(7) {
                0 if !out.is_empty() => out[at] ^= 1 << self.below(8),
                1 if !out.is_empty() => out[at] = [0, 0x7f, 0x80, 0xff][self.below(4)],
                2 => drop(out.splice(at..at, (0..len).map(|_| 0xff))),
                3 => drop(out.drain(at..at + len)),
                4 => {
                    let again = out[at..at + len].to_vec();
                    drop(out.splice(at..at, again));
                }
                5 if self.below(4) == 0 => out.truncate(at),
                _ if !out.is_empty() => out[at] = self.next() as u8,
                _ => {}
            }
        }
        out
    }
}

/// A Prometheus data directory, read-only.
pub fn data() -> PathBuf {
    let shared = match std::env::var_os("KOIOS_SHARED") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    };
    shared.join("fixtures/prometheus-data/data")
}

/// A block with samples of every kind.
pub fn snapshot() -> PathBuf {
    let dir = std::fs::read_dir(data().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    list_blocks(&dir).unwrap().remove(0).path
}

/// Runs a target on mutations of its corpus, over and over while time is left. Every second input passes through
/// `seal` first, which may set checksums right, so that what is behind them is reached.
pub fn fuzz_sealed(
    name: &str,
    corpus: &[Vec<u8>],
    seal: impl Fn(&mut Vec<u8>),
    mut target: impl FnMut(&[u8]),
) {
    let seconds = std::env::var("KOIOS_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let clock = SystemClock::shared();
    let since = |from: u64| Duration::from_nanos(clock.mono_ns() - from);
    let (start, more) = (clock.mono_ns(), Duration::from_secs(seconds));
    let mut round = 0;
    while round < ROUNDS || since(start) < more {
        let mut random = Random(round);
        let pick = random.below(corpus.len());
        let mut bytes = random.mutate(&corpus[pick]);
        if round % 2 == 1 {
            seal(&mut bytes);
        }
        let began = clock.mono_ns();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&bytes)));
        assert!(outcome.is_ok(), "{name} panics in round {round}");
        assert!(since(began) < HANG, "{name} takes {:?} in round {round}", since(began));
        round += 1;
    }
    let rate = round as f64 / since(start).as_secs_f64();
    eprintln!("fuzz {name}: {round} inputs, {rate:.0} inputs/s");
}

/// `fuzz_sealed` for what has no checksums.
pub fn fuzz(name: &str, corpus: &[Vec<u8>], target: impl FnMut(&[u8])) {
    fuzz_sealed(name, corpus, |_| {}, target);
}
