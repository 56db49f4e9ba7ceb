//! Packets that no node sent: a flood of them at a rate, for a while.
//!
//! Owns the pace. Made packets go round in order, so that each kind has its share.

use std::time::{Duration, Instant};

use super::Router;

/// What became of a flood.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Packets that the host's device took.
    pub taken: u64,
    /// How long it lasted.
    pub took: Duration,
}

/// Sends `packets` round and round to a host, `rate` in a second, for `time`. Blocks.
pub fn flood(router: &Router, to: usize, packets: &[Vec<u8>], rate: u64, time: Duration) -> Flooded {
    let begun = Instant::now();
    let (mut sent, mut taken) = (0u64, 0u64);
    while begun.elapsed() < time && !packets.is_empty() {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        if sent >= due {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        // What a busy machine could not send in time is sent later, a little at a time.
        let until = due.min(sent + 256);
        while sent < until {
            taken += u64::from(router.inject(to, &packets[(sent % packets.len() as u64) as usize]));
            sent += 1;
        }
    }
    Flooded { taken, took: begun.elapsed() }
}
