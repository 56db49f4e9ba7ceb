//! A deadline stops an evaluation within 100 ms, whichever loop it is in.
//!
//! Every kind of long loop gets a query that would take far longer than its deadline. What counts is how long
//! after the deadline the evaluation is over; unoptimised builds get ten times as long.

use std::sync::Arc;

use koios_model::histogram::Buckets;
use koios_model::{Columns, FloatHistogram, Labels, SystemClock};
use koios_promql::{Control, EvalError, Limits, MemorySeries, Plan, QueryParams, SeriesSource, parse};

/// When the evaluation is to stop, ms after it began: early in it, and well inside.
const DEADLINES_MS: [u64; 3] = [10, 40, 120];
/// What is promised.
const LATE_MS: u64 = if cfg!(debug_assertions) { 1000 } else { 100 };
const SERIES: usize = if cfg!(debug_assertions) { 8_000 } else { 50_000 };
/// Samples of the one long series.
const SAMPLES: i64 = 20_000;
const STEP_MS: i64 = 15_000;

fn series(labels: &[(&str, &str)], columns: Columns) -> Arc<MemorySeries> {
    Arc::new(MemorySeries { labels: Labels::from_pairs(labels.iter().copied()), columns })
}

fn store() -> Vec<Arc<MemorySeries>> {
    let mut all = Vec::new();
    let (mut long, mut hists) = (Columns::default(), Columns::default());
    for k in 0..SAMPLES {
        long.push(k * STEP_MS, ((k * 7919) % 1009) as f64);
        let counts: Vec<(i32, f64)> = (0..60).map(|b| (b, (k + i64::from(b)) as f64)).collect();
        let h = FloatHistogram {
            count: 60.0 * k as f64 + 1770.0,
            sum: k as f64,
            positive: Buckets::from_sorted(counts),
            ..FloatHistogram::default()
        };
        hists.push_histogram(k * STEP_MS, Arc::new(h));
    }
    all.push(series(&[("__name__", "long")], long));
    all.push(series(&[("__name__", "hist")], hists));
    for i in 0..SERIES {
        let (n, group) = (i.to_string(), (i % 50).to_string());
        let mut columns = Columns::default();
        for k in 0..4 {
            columns.push((SAMPLES - 4 + k) * STEP_MS, (i * 31 % 977) as f64 + k as f64);
        }
        for name in ["x", "y"] {
            let labels = [("__name__", name), ("i", &n), ("group", &group), ("le", &group)];
            all.push(series(&labels, columns.clone()));
        }
    }
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all
}

/// Loop and query; `true` for a range query over the long series.
const QUERIES: [(&str, &str, bool); 32] = [
    ("raw selector", "x", false),
    ("sorting by value", "sort_desc(x)", false),
    ("sorting by label", "sort_by_label(x, \"i\", \"group\")", false),
    ("top k", "topk(50000, x)", false),
    ("limit", "limitk(50000, x)", false),
    ("limit ratio", "limit_ratio(0.5, x)", false),
    ("sum by", "sum by (i) (x)", false),
    ("quantile by", "quantile by (i) (0.5, x)", false),
    ("values as labels", "count_values(\"v\", x)", false),
    ("matching", "x * on (i) y", false),
    ("matching many", "x * on (i) group_left (group) y", false),
    ("filling", "x + on (i) fill(0) y", false),
    ("and", "x and on (i) y", false),
    ("or", "x or on (i) y", false),
    ("unless", "x unless on (i) y", false),
    ("arithmetic", "-(x + 1) * 2 ^ 3", false),
    ("label_replace", "label_replace(x, \"a\", \"$1-$2\", \"i\", \"(.)(.*)\")", false),
    ("label_join", "label_join(x, \"a\", \"-\", \"i\", \"group\")", false),
    ("info", "info(x, {__name__=\"y\"})", false),
    ("classic quantile", "histogram_quantile(0.9, x)", false),
    ("rate", "rate(x[1m])", false),
    ("subquery", "max_over_time(long[80h:50ms])", false),
    ("tower", "max_over_time(sum_over_time(long[1h:1s])[80h:1m])", false),
    ("quantile of windows", "quantile_over_time(0.5, long[20h])", true),
    ("mad of windows", "mad_over_time(long[20h])", true),
    ("deviation of windows", "stddev_over_time(long[20h])", true),
    ("prediction", "predict_linear(long[20h], 60)", true),
    ("smoothing", "double_exponential_smoothing(long[20h], 0.3, 0.3)", true),
    ("histogram rate", "rate(hist[20h])", true),
    ("histogram sum", "sum_over_time(hist[20h])", true),
    ("native quantile", "histogram_quantile(0.9, hist)", true),
    ("changes", "changes(long[20h]) + resets(long[20h])", true),
];

/// Series whose labels are nearly as long as functions may make them, different only at their ends.
fn long_labels() -> Vec<Arc<MemorySeries>> {
    let end = (SAMPLES - 1) * STEP_MS;
    let mut all = Vec::new();
    for (i, name) in (0..LONG_SERIES).flat_map(|i| [(i, "x"), (i, "y")]) {
        let mut columns = Columns::default();
        (0..4).for_each(|k| columns.push(end - (3 - k) * STEP_MS, (i * 31 % 977) as f64));
        let path = format!("{}{i}", "ab".repeat(30_000));
        all.push(series(&[("__name__", name), ("i", &i.to_string()), ("path", &path)], columns));
    }
    all
}

const LONG_SERIES: usize = if cfg!(debug_assertions) { 200 } else { 2000 };

const LONG_QUERIES: [(&str, &str, bool); 13] = [
    ("joining long", "label_join(x, \"b\", \"-\", \"path\")", false),
    ("replacing in long", "label_replace(x, \"b\", \"$1\", \"path\", \"(.*)\")", false),
    (
        "slow regexp",
        "label_replace(x, \"b\", \"$1\", \"i\", \"(((0*1?)*2?){1,500})*((3?4?){1,500})*.*\")",
        false,
    ),
    ("refused regexp", "label_replace(x, \"b\", \"$1\", \"path\", \"((a*b?)*c?){1,50}.*\")", false),
    ("growing long", "label_replace(x, \"path\", \"$1$1\", \"path\", \"(.*)\")", false),
    ("sorting long", "sort_by_label(x, \"path\")", false),
    ("grouping long", "sum by (path) (x)", false),
    ("matching long", "x * on (path) y", false),
    ("set of long", "x or on (path) y", false),
    ("values of long", "count_values without () (\"v\", x)", false),
    ("picking long", "topk(1, x) by (path)", false),
    ("info of long", "info(x, {__name__=\"y\"})", false),
    ("names of long", "-x + 1", false),
];

#[test]
fn a_deadline_stops_every_loop() {
    let stopped = run_all(&store(), &QUERIES);
    assert!(stopped > 24, "only {stopped} evaluations were long enough to be stopped");
    // In the same test, so that the two do not take each other's processor.
    let stopped = run_all(&long_labels(), &LONG_QUERIES);
    assert!(stopped > 6, "only {stopped} evaluations were long enough to be stopped");
}

/// Gives every query every deadline; how many were stopped by it.
fn run_all(store: &[Arc<MemorySeries>], queries: &[(&str, &str, bool)]) -> usize {
    let clock = SystemClock::shared();
    let end = (SAMPLES - 1) * STEP_MS;
    let (mut late, mut stopped) = (Vec::new(), 0);
    let all = DEADLINES_MS.iter().flat_map(|d| queries.iter().map(move |q| (*d, *q)));
    for (deadline_ms, (name, query, range)) in all {
        let mut params = if range { QueryParams::range(0, end, STEP_MS) } else { QueryParams::instant(end) };
        params.limits = Limits { steps_max: 50_000_000, ..Limits::default() };
        let plan = Plan::new(&parse(query).unwrap(), &params).unwrap();
        let inputs = plan.selects().iter().map(|s| {
            let wanted =
                |m: &&Arc<MemorySeries>| s.matchers.iter().all(|k| k.matches(m.labels.value(&k.name)));
            store.iter().filter(wanted).map(|m| Box::new(m.clone()) as Box<dyn SeriesSource>).collect()
        });
        let inputs = inputs.collect();
        let (begun, now) = (clock.mono_ns(), clock.clone());
        let control = Control::with_deadline(move || now.mono_ns() > begun + deadline_ms * 1_000_000);
        let result = plan.evaluate(inputs, &control);
        let took = (clock.mono_ns() - begun) / 1_000_000;
        stopped += usize::from(matches!(result, Err(EvalError::Timeout)));
        let said =
            result.map_or_else(|e| e.to_string().chars().take(60).collect(), |_| "an answer".to_owned());
        println!("{name}: {deadline_ms} ms given, {took} ms taken, {said}");
        if took > deadline_ms + LATE_MS {
            late.push(format!("{name}: {took} ms, {said}"));
        }
    }
    assert!(late.is_empty(), "{late:#?}");
    stopped
}
