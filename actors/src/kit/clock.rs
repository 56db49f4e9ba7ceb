//! Timers from an absolute schedule.
//!
//! `run_interval` replays every tick it missed: after a stall of half a second a 10 ms interval fires fifty
//! times at once. Here the next wake is computed from the schedule when the last one was handled, so a stall
//! skips ticks and never repeats them.

use std::time::Duration;

/// Milliseconds until the next multiple of `interval_ms` plus `offset_ms` that is strictly after `now_ms`,
/// and that moment.
pub fn next_due(now_ms: i64, interval_ms: i64, offset_ms: i64) -> (Duration, i64) {
    let interval = interval_ms.max(1);
    let since = (now_ms - offset_ms).rem_euclid(interval);
    let due = now_ms - since + interval;
    (Duration::from_millis((due - now_ms) as u64), due)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::{Actor, AsyncContext, Context};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The fault: missed ticks come all at once.
    #[actix::test]
    async fn actix_run_interval_replays_missed_ticks() {
        struct Ticker(Arc<AtomicUsize>);
        impl Actor for Ticker {
            type Context = Context<Self>;
            fn started(&mut self, ctx: &mut Self::Context) {
                ctx.run_interval(Duration::from_millis(10), |me, _| {
                    me.0.fetch_add(1, Ordering::SeqCst);
                });
            }
        }
        let ticks = Arc::new(AtomicUsize::new(0));
        let _addr = Ticker(ticks.clone()).start();
        tokio::time::sleep(Duration::from_millis(25)).await;
        let before = ticks.load(Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(500));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let burst = ticks.load(Ordering::SeqCst) - before;
        assert!(burst > 20, "{burst} ticks came at once");
    }

    #[test]
    fn a_stall_skips_ticks() {
        assert_eq!(next_due(1000, 100, 7), (Duration::from_millis(7), 1007));
        assert_eq!(next_due(1007, 100, 7), (Duration::from_millis(100), 1107));
        assert_eq!(
            next_due(1999, 100, 7),
            (Duration::from_millis(8), 2007),
            "one tick after a stall, on the grid"
        );
        assert_eq!(next_due(-5, 100, 0), (Duration::from_millis(5), 0));
    }
}
