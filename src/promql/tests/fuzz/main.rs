//! Seeded mutation fuzzing of parser, printers, planner and engine.
//!
//! Inputs come from three sources in turn: token soup over the whole vocabulary, known queries whose pieces
//! are swapped for pieces of others, and known queries with random bytes. A short run is part of every test
//! run; `KOIOS_FUZZ_SECONDS` makes it long and `KOIOS_FUZZ_SEED` different. Nothing may panic; what parses must
//! print and parse again to the same tree; what plans must end within its limits.

mod inputs;

use std::sync::Arc;

use inputs::{Inputs, Rng};
use koios_model::{Columns, Labels, SystemClock};
use koios_promql::{
    Control, EngineOptions, Helpers, Job, Limits, MemorySeries, ParserOptions, Plan, QueryOutput,
    QueryParams, Select, SeriesSource, expr_to_json, parse, parse_selector, parse_with, prettify,
};

/// Seconds of a run when nothing else is said.
const SECONDS: u64 = 2;
/// Deadline of one evaluation, ms, and when it counts as stuck.
const EVALUATION_MS: u64 = 50;
const STUCK_MS: u64 = 30_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Feeds `one` until the time is up; says which input was at fault when it panics.
fn feed(what: &str, seed: u64, mut one: impl FnMut(&mut Rng, &str) -> bool) {
    let (seed, seconds) = (number("KOIOS_FUZZ_SEED", seed), number("KOIOS_FUZZ_SECONDS", SECONDS));
    let clock = SystemClock::shared();
    let (mut rng, inputs, until) =
        (Rng::new(seed), Inputs::load(), clock.mono_ns() + seconds * 1_000_000_000);
    let (mut fed, mut valid) = (0u64, 0u64);
    while clock.mono_ns() < until {
        for _ in 0..64 {
            let input = inputs.next(&mut rng);
            let run = std::panic::AssertUnwindSafe(|| one(&mut rng, &input));
            let ended = std::panic::catch_unwind(run);
            fed += 1;
            valid += u64::from(
                *ended
                    .as_ref()
                    .unwrap_or_else(|_| panic!("{what}: input {fed} of seed {seed} fails: {input:?}")),
            );
        }
    }
    println!("{what}: seed {seed}, {seconds} s, {fed} inputs, {valid} of them valid");
    assert!(valid * 100 > fed, "{what}: only {valid} of {fed} inputs were valid; the fuzzer says nothing");
}

#[test]
fn parser_and_printers() {
    feed("parser", 1, |_, input| {
        let _ = parse_with(input, &ParserOptions::stable());
        let _ = parse_selector(input);
        let tree = match parse(input) {
            Ok(tree) => tree,
            Err(e) => {
                assert!(e.start <= e.end && e.end <= input.len(), "{e:?}");
                assert!(!e.to_string().is_empty());
                return false;
            }
        };
        let _ = expr_to_json(&tree);
        for printed in [tree.to_string(), prettify(&tree)] {
            let again = parse(&printed).unwrap_or_else(|e| panic!("printed as {printed}: {e}"));
            assert_eq!(again, tree, "printed as {printed}");
        }
        true
    });
}

/// Helpers that do what they are given at once.
struct Shards(usize);

impl Helpers for Shards {
    fn most(&self) -> usize {
        self.0
    }

    fn block_series(&self) -> Option<usize> {
        Some(self.0)
    }

    fn take(&self, job: Job) {
        job();
    }
}

fn store() -> Vec<Arc<MemorySeries>> {
    let mut all = Vec::new();
    for (i, name) in
        ["metric", "http_requests_total", "m_bucket", "target_info"].into_iter().cycle().take(12).enumerate()
    {
        let mut columns = Columns::default();
        for k in 0..40i64 {
            columns.push(k * 15_000, ((k * 7 + i as i64 * 13) % 23) as f64 - 4.0);
        }
        let le = ["0.1", "1", "+Inf"][i / 4].to_owned();
        let labels = [("__name__", name.to_owned()), ("job", format!("j{}", i % 3)), ("le", le)];
        all.push(Arc::new(MemorySeries { labels: Labels::from_pairs(labels), columns }));
    }
    all
}

fn params(rng: &mut Rng) -> QueryParams {
    let times = [0, 1, -1, 300_000, 599_999, 1 << 60, -(1 << 60), i64::MAX, 1 << 53, 1_700_000_000_000];
    let steps = [0, 1, 15_000, 60_000, i64::MAX, -1, 3_600_000];
    let (start, step) = (times[rng.below(times.len())], steps[rng.below(steps.len())]);
    let end = if rng.below(3) == 0 {
        times[rng.below(times.len())]
    } else {
        start.saturating_add(step.saturating_mul(rng.below(40) as i64))
    };
    let options = if rng.below(2) == 0 { EngineOptions::all() } else { EngineOptions::default() };
    let limits = Limits { samples_max: 200_000, bytes_max: 16 << 20, steps_max: 20_000, ..Limits::default() };
    let lookback = [300_000, 1, 1 << 60, 15_000][rng.below(4)];
    QueryParams { lookback_ms: lookback, options, limits, ..QueryParams::range(start, end, step) }
}

#[test]
fn planner_and_engine() {
    let (store, clock) = (store(), SystemClock::shared());
    feed("planner", 2, |rng, input| {
        let Ok(tree) = parse(input) else { return false };
        let Ok(plan) = Plan::new(&tree, &params(rng)) else { return false };
        let plan = Arc::new(plan);
        let inputs = || -> Vec<Vec<Box<dyn SeriesSource>>> {
            let of = |s: &Select| {
                assert!(s.min_time_ms <= s.max_time_ms.saturating_add(1), "{s:?}");
                let wanted =
                    |m: &&Arc<MemorySeries>| s.matchers.iter().all(|k| k.matches(m.labels.value(&k.name)));
                store.iter().filter(wanted).map(|m| Box::new(m.clone()) as Box<dyn SeriesSource>).collect()
            };
            plan.selects().iter().map(of).collect()
        };
        let (begun, now) = (clock.mono_ns(), clock.clone());
        let control = Control::with_deadline(move || now.mono_ns() > begun + EVALUATION_MS * 1_000_000);
        let alone = plan.evaluate(inputs(), &control);
        let helped = plan.evaluate_helped(inputs(), &control, Arc::new(Shards(1 + rng.below(3))));
        if let (Ok(alone), Ok(helped)) = (alone, helped) {
            let text = |o: QueryOutput| format!("{:?} {:?} {:?}", o.value, o.warnings, o.infos);
            assert_eq!(text(helped), text(alone), "with helpers: {input}");
        }
        // Far more than is promised, since wall time says little on a busy machine; `stopping.rs` is exact.
        let took = (clock.mono_ns() - begun) / 1_000_000;
        assert!(took < STUCK_MS, "{took} ms");
        true
    });
}
