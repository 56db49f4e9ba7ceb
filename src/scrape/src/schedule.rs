//! When a target is scraped: a pure function of its key, so that replicas on different nodes scrape at the
//! same scheduled times and stamp them (design 6). Nothing is random and nothing is remembered.

/// Milliseconds after each multiple of the interval (counted from the epoch) at which the target is due.
pub fn schedule_offset(key: u64, interval_ms: i64) -> i64 {
    let interval = interval_ms.max(1);
    (key % interval as u64) as i64
}

/// The first due time strictly after `now_ms`. Feed a due time back in to get the next one.
pub fn next_due(key: u64, interval_ms: i64, now_ms: i64) -> i64 {
    let interval = interval_ms.max(1);
    let offset = schedule_offset(key, interval);
    let since = (now_ms - offset).rem_euclid(interval);
    now_ms - since + interval
}

/// The due time at or before `now_ms`: what a scrape that starts now is stamped with.
pub fn current_due(key: u64, interval_ms: i64, now_ms: i64) -> i64 {
    next_due(key, interval_ms, now_ms) - interval_ms.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn steps_by_the_interval() {
        let due = next_due(12_345, 10_000, 1_700_000_000_000);
        assert_eq!(due, 1_700_000_002_345);
        assert_eq!(next_due(12_345, 10_000, due), due + 10_000);
        assert_eq!(next_due(12_345, 10_000, due - 1), due);
        assert_eq!(current_due(12_345, 10_000, due), due);
        assert_eq!(current_due(12_345, 10_000, due - 1), due - 10_000);
    }

    proptest! {
        #[test]
        fn same_everywhere(key: u64, interval in 1i64..10_000_000, now in 0i64..4_000_000_000_000, skew in 0i64..10_000_000) {
            let due = next_due(key, interval, now);
            prop_assert!(due > now && due <= now + interval);
            prop_assert_eq!(due.rem_euclid(interval), schedule_offset(key, interval));
            // A node that asks a little later within the same slot gets the same answer.
            let later = now + skew % (due - now);
            prop_assert_eq!(next_due(key, interval, later), due);
        }

        #[test]
        fn offsets_spread(seed: u64) {
            let mut buckets = [0; 10];
            for i in 0..1000u64 {
                let key = xxhash_rust::xxh3::xxh3_64(&(seed ^ i).to_le_bytes());
                buckets[(schedule_offset(key, 60_000) / 6000) as usize] += 1;
            }
            prop_assert!(buckets.iter().all(|n| *n > 40), "{:?}", buckets);
        }
    }
}
