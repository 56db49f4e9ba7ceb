//! Time to decode a sample of an XOR chunk, by the shape of the values.
//!
//! `cargo bench -p koios-chunk --bench decode`. Chunks of 120 samples, 400 of each shape, best of 15 passes over all of
//! them, so caches are warm and what is measured is the decoder.

use koios_chunk::{XorAppender, decode_xor};
use koios_model::{Columns, SystemClock};

const CHUNKS: usize = 400;
const SAMPLES: usize = 120;
const PASSES: usize = 15;

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Milliseconds to the next sample and value after `v`.
type Shape = fn(&mut u64, f64) -> (i64, f64);

const SHAPES: [(&str, Shape); 6] = [
    ("constant", |_, v| (15_000, v)),
    ("integer counter", |s, v| (15_000, v + (splitmix(s) % 200) as f64)),
    ("integer gauge", |s, _| (15_000, (splitmix(s) % 50) as f64)),
    ("noisy float", |s, _| (15_000, (splitmix(s) >> 11) as f64 / 9e15)),
    ("counter, jittered times", |s, v| {
        (15_000 + (splitmix(s) % 9) as i64 - 4, v + (splitmix(s) % 200) as f64)
    }),
    ("gauge, rarely changed", |s, v| (15_000, if splitmix(s).is_multiple_of(10) { v + 1.0 } else { v })),
];

fn main() {
    let clock = SystemClock::shared();
    for (name, step) in SHAPES {
        let mut seed = 42;
        let mut chunks = Vec::new();
        for c in 0..CHUNKS {
            let mut a = XorAppender::new();
            let (mut t, mut v) = (1_700_000_000_000 + c as i64, (splitmix(&mut seed) % 1000) as f64);
            for _ in 0..SAMPLES {
                a.append(t, v);
                let (dt, next) = step(&mut seed, v);
                (t, v) = (t + dt, next);
            }
            chunks.push(a.into_bytes());
        }
        let bytes: usize = chunks.iter().map(Vec::len).sum();
        let mut out = Columns::default();
        let mut best = u64::MAX;
        let mut check = 0.0;
        for _ in 0..PASSES {
            let start = clock.mono_ns();
            for chunk in &chunks {
                out.clear();
                decode_xor(chunk, &mut out).expect("a sound chunk");
                check += out.values[SAMPLES - 1];
            }
            best = best.min(clock.mono_ns() - start);
        }
        let samples = (CHUNKS * SAMPLES) as f64;
        let (ns, size) = (best as f64 / samples, bytes as f64 / samples);
        println!("{name:>24}: {ns:5.2} ns and {size:4.2} bytes a sample (check {:.0})", check % 1000.0);
    }
}
