//! Thousands of small clusters under faults: the promises P1 to P7 hold, and planted bugs are found.
//!
//! A failing seed prints itself with its faults; `KOIOS_SIM_SEED=n` runs that one alone. `KOIOS_SIM_SEEDS` sets how
//! many seeds are run (2,000 by default), `KOIOS_SIM_FROM` the first.

use koios_cluster_tests::sim::{Bug, Counts, Outcome, asleep_for_five_minutes, run, without_a_zone};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

fn tell(o: &Outcome) -> String {
    let replay =
        format!("replay: KOIOS_SIM_SEED={} cargo test -p koios-cluster-tests --test simulated", o.seed);
    format!("seed {}:\n  {}\n{}\n{replay}", o.seed, o.violations.join("\n  "), o.story.join("\n"))
}

/// Runs seeds on two threads; gives what failed and the counts of all.
fn all(seeds: std::ops::Range<u64>) -> (Vec<Outcome>, Counts) {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let work = || {
        let (mut failed, mut counts) = (Vec::new(), Counts::default());
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= seeds.end || failed.len() > 9 {
                return (failed, counts);
            }
            let o = run(seed, Bug::None);
            counts.add(o.counts);
            if !o.violations.is_empty() {
                failed.push(o);
            }
        }
    };
    let (mut failed, counts) = std::thread::scope(|s| {
        let other = s.spawn(work);
        let (mut failed, mut counts) = work();
        let (more, others) = other.join().expect("a thread of seeds");
        failed.extend(more);
        counts.add(others);
        (failed, counts)
    });
    failed.sort_by_key(|o| o.seed);
    (failed, counts)
}

#[test]
fn promises_hold_under_faults() {
    if let Some(seed) = number("KOIOS_SIM_SEED") {
        let o = run(seed, Bug::None);
        println!(
            "{}\ncounts {:?}, {} events, trace {:016x}",
            o.story.join("\n"),
            o.counts,
            o.events,
            o.trace
        );
        assert!(o.violations.is_empty(), "{}", tell(&o));
        return;
    }
    let from = number("KOIOS_SIM_FROM").unwrap_or(1);
    let seeds = number("KOIOS_SIM_SEEDS").unwrap_or(2_000);
    let (failed, counts) = all(from..from + seeds);
    println!("{seeds} seeds: {counts:?}");
    let told: Vec<String> = failed.iter().map(tell).collect();
    assert!(failed.is_empty(), "{} seeds failed\n{}", failed.len(), told.join("\n\n"));
    // A simulator that does nothing breaks no promise.
    assert!(
        counts.acked > 100 * seeds && counts.answers > 50 * seeds && counts.blocks > 5 * seeds,
        "{counts:?}"
    );
    let seldom = [counts.gaps, counts.refused, counts.unloads, counts.adopted];
    assert!(seeds < 100 || seldom.iter().all(|n| *n > seeds / 20), "{counts:?}");
    assert!(counts.gaps < counts.answers / 4, "{counts:?}");
}

#[test]
fn s41_a_lost_zone_of_two_nodes_needs_no_warning() {
    for (nodes, cut) in [(4, false), (5, false), (6, false), (5, true), (6, true)] {
        for seed in 1..=15 {
            let o = without_a_zone(seed, nodes, cut);
            assert!(o.violations.is_empty(), "{nodes} nodes, cut {cut}\n{}", tell(&o));
            assert!(o.counts.answers > 50 && o.counts.acked > 100, "{:?}", o.counts);
        }
    }
}

#[test]
fn s46_a_node_sleeps_for_five_minutes() {
    let mut all = Counts::default();
    for (nodes, crash) in [(2, false), (3, false), (3, true), (5, false), (5, true)] {
        for seed in 1..=15 {
            let o = asleep_for_five_minutes(seed, nodes, crash);
            assert!(o.violations.is_empty(), "{nodes} nodes, crash {crash}\n{}", tell(&o));
            all.add(o.counts);
        }
    }
    assert!(all.acked > 75 * 100 && all.gaps > 0, "{all:?}");
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 1..12 {
        let (a, b) = (run(seed, Bug::None), run(seed, Bug::None));
        assert_eq!(a, b);
    }
    assert_ne!(run(1, Bug::None).trace, run(2, Bug::None).trace);
}

fn is_found(bug: Bug, promise: &str, within: u64) {
    let found = (1..=within).map(|seed| run(seed, bug)).find(|o| !o.violations.is_empty());
    let found = found.unwrap_or_else(|| panic!("{bug:?} was not found in {within} seeds"));
    println!("{bug:?}: seed {}: {}", found.seed, found.violations[0]);
    assert!(
        found.violations[0].starts_with(promise),
        "{bug:?} was found for another reason\n{}",
        tell(&found)
    );
}

#[test]
fn an_ack_before_the_sync_is_found() {
    is_found(Bug::AckBeforeSync, "P1", 300);
}

#[test]
fn an_early_unload_is_found() {
    is_found(Bug::EarlyUnload, "P7", 50);
}

#[test]
fn a_quorum_per_request_is_found() {
    is_found(Bug::QuorumPerRequest, "P1", 300);
}
