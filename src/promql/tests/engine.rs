//! Behaviour that the conformance scripts do not reach: the default of immediate name removal, bounds,
//! cancelling, the time ranges of selects, determinism, and rolling windows against single ones.

use std::sync::Arc;

use koios_model::{Code, Coded, Columns, Labels};
use koios_promql::{
    Control, EngineOptions, EvalError, MemorySeries, Plan, QueryOutput, QueryParams, SampleValue,
    SeriesSource, Value, parse,
};
use proptest::prelude::*;

fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> Arc<MemorySeries> {
    let mut columns = Columns::default();
    for (t, v) in samples {
        columns.push(*t, *v);
    }
    Arc::new(MemorySeries { labels: Labels::from_pairs(labels.iter().copied()), columns })
}

fn run_with(
    store: &[Arc<MemorySeries>],
    query: &str,
    params: &QueryParams,
    control: &Control,
) -> Result<QueryOutput, EvalError> {
    let plan = Plan::new(&parse(query).unwrap(), params)?;
    let inputs = plan
        .selects()
        .iter()
        .map(|s| {
            let matching =
                |m: &&Arc<MemorySeries>| s.matchers.iter().all(|k| k.matches(m.labels.value(&k.name)));
            store.iter().filter(matching).map(|m| Box::new(m.clone()) as Box<dyn SeriesSource>).collect()
        })
        .collect();
    plan.evaluate(inputs, control)
}

fn run(store: &[Arc<MemorySeries>], query: &str, params: &QueryParams) -> Result<QueryOutput, EvalError> {
    run_with(store, query, params, &Control::new())
}

/// `labels value` of each element, sorted.
fn vector(store: &[Arc<MemorySeries>], query: &str, params: &QueryParams) -> Vec<String> {
    let Value::Vector(v) = run(store, query, params).unwrap().value else {
        panic!("{query} is no vector");
    };
    let mut out: Vec<String> = v
        .iter()
        .map(|s| match &s.value {
            SampleValue::Float(f) => format!("{} {f}", s.labels),
            SampleValue::Histogram(h) => format!("{} {h}", s.labels),
        })
        .collect();
    out.sort();
    out
}

fn two_metrics() -> Vec<Arc<MemorySeries>> {
    vec![
        series(&[("__name__", "b_total"), ("x", "1")], &[(0, 5.0), (60_000, 7.0)]),
        series(&[("__name__", "a_total"), ("x", "1")], &[(0, 1.0), (60_000, 2.0)]),
        series(&[("__name__", "a_total"), ("x", "2")], &[(0, 10.0), (60_000, 30.0)]),
    ]
}

#[test]
fn names_go_at_once_by_default() {
    let (store, at) = (two_metrics(), QueryParams::instant(60_000));
    assert_eq!(vector(&store, "-a_total", &at), ["{x=\"1\"} -2", "{x=\"2\"} -30"]);
    for query in
        ["rate({x=\"1\"}[5m])", "abs({x=\"1\"})", "{x=\"1\"} + 1", "-{x=\"1\"}", "sum(rate({x=\"1\"}[5m]))"]
    {
        let error = run(&store, query, &at).unwrap_err();
        assert_eq!(error.to_string(), "vector cannot contain metrics with the same labelset", "{query}");
        assert_eq!(error.code(), Code::Execution);
    }
    assert_eq!(
        vector(&store, "label_replace(-a_total, \"y\", \"$1\", \"__name__\", \"(.*)\")", &at),
        ["{x=\"1\"} -2", "{x=\"2\"} -30"]
    );
    let mut delayed = at.clone();
    delayed.options = EngineOptions::all();
    let kept = "label_replace(-{x=\"1\"}, \"__name__\", \"n_$1\", \"__name__\", \"(.*)\")";
    assert_eq!(vector(&store, kept, &delayed), ["n_a_total{x=\"1\"} -2", "n_b_total{x=\"1\"} -7"]);
    assert_eq!(vector(&store, "sum({x=\"1\"} > bool 6)", &delayed), ["{} 1"]);
}

#[test]
fn matching_errors_are_told_apart() {
    let (store, at) = (two_metrics(), QueryParams::instant(60_000));
    for (query, text) in [
        (
            "a_total + on() b_total",
            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
        ),
        (
            "b_total + on() a_total",
            "found duplicate series for the match group {} on the right hand-side of the operation: [{__name__=\"a_total\", x=\"1\"}, {__name__=\"a_total\", x=\"2\"}];many-to-many matching not allowed: matching labels must be unique on one side",
        ),
        (
            "a_total + on() group_left(x) b_total",
            "multiple matches for labels: grouping labels must ensure unique matches",
        ),
    ] {
        assert_eq!(run(&store, query, &at).unwrap_err().to_string(), text);
    }
    assert!(vector(&store, "a_total + on() nothing", &at).is_empty());
    assert_eq!(vector(&store, "a_total * on() group_left() b_total", &at), ["{x=\"1\"} 14", "{x=\"2\"} 210"]);
}

#[test]
fn bounds_hold() {
    let store = two_metrics();
    let mut p = QueryParams::range(0, 60_000, 1);
    p.limits.samples_max = 1000;
    assert_eq!(run(&store, "a_total", &p).unwrap_err(), EvalError::TooManySamples);
    p.limits.steps_max = 10;
    assert!(run(&store, "a_total", &p).is_err());
    let mut p = QueryParams::instant(0);
    p.limits.series_max = 1;
    assert_eq!(run(&store, "a_total", &p).unwrap_err(), EvalError::TooManySeries(1));
    p.limits.series_max = 100;
    p.limits.bytes_max = 16;
    assert!(matches!(run(&store, "a_total", &p).unwrap_err(), EvalError::TooManyBytes(16)));
    assert_eq!(run(&store, "a_total[1m]", &QueryParams::range(0, 1, 1)).unwrap_err().code(), Code::BadData);
    assert_eq!(run(&store, "1", &QueryParams::range(1, 0, 1)).unwrap_err().code(), Code::BadData);
}

#[test]
fn cancel_and_deadline_stop_it() {
    let store = two_metrics();
    let control = Control::new();
    control.cancel();
    let at = QueryParams::instant(0);
    assert_eq!(run_with(&store, "a_total", &at, &control).unwrap_err(), EvalError::Canceled);
    let late = Control::with_deadline(|| true);
    let error = run_with(&store, "sum(a_total)", &at, &late).unwrap_err();
    assert_eq!(error.code(), Code::Timeout);
    assert_eq!(error.to_string(), "query timed out in expression evaluation");
}

#[test]
fn selects_say_what_they_need() {
    let select = |query: &str, p: &QueryParams| {
        let plan = Plan::new(&parse(query).unwrap(), p).unwrap();
        let s = &plan.selects()[0];
        (s.min_time_ms, s.max_time_ms)
    };
    let m = 60_000;
    let p = QueryParams::range(100 * m, 110 * m, m);
    for (query, bounds) in [
        ("x", (95 * m + 1, 110 * m)),
        ("x offset 1m", (94 * m + 1, 109 * m)),
        ("x offset -1m", (96 * m + 1, 111 * m)),
        ("rate(x[10m])", (90 * m + 1, 110 * m)),
        ("rate(x[10m] @ 60)", (-9 * m + 1, m)),
        ("x @ end()", (105 * m + 1, 110 * m)),
        // Subqueries ask for all that they span, as Prometheus does, not from their first step on.
        ("max_over_time(rate(x[10m])[30m:2m])", (60 * m + 1, 110 * m)),
        ("max_over_time(x[30m:7m] offset 1m)", (64 * m + 1, 105 * m)),
        ("rate(x[10m] anchored)", (85 * m + 1, 110 * m)),
        ("rate(x[10m] smoothed)", (85 * m + 1, 115 * m)),
    ] {
        assert_eq!(select(query, &p), bounds, "{query}");
    }
    let plan = Plan::new(&parse("sum by (a) (x) / sum by (a) (x) + rate(x[5m])").unwrap(), &p).unwrap();
    assert_eq!(plan.selects().len(), 2);
    assert_eq!(plan.selects()[0].hints.grouping, ["a"]);
    assert_eq!((plan.selects()[1].hints.func.as_str(), plan.selects()[1].hints.range_ms), ("rate", 5 * m));
}

#[test]
fn deep_queries_run() {
    let store = two_metrics();
    let text = vec!["b_total"; 480].join(" + ");
    let at = QueryParams::instant(60_000);
    assert_eq!(vector(&store, &text, &at), [format!("{{x=\"1\"}} {}", 7 * 480)]);
}

#[test]
fn order_of_series_does_not_matter() {
    let values = [1e100, 1.0, -1e100, 0.1, 7.7e-9, 3.0];
    let mut store: Vec<_> = (0..30)
        .map(|i| {
            let v = values[i % values.len()] * (i as f64 + 0.5);
            series(&[("__name__", "x"), ("i", &i.to_string())], &[(0, v)])
        })
        .collect();
    let at = QueryParams::instant(0);
    let queries = ["sum(x)", "avg(x)", "stddev(x)", "limitk(3, x)", "quantile(0.3, x)", "topk(4, x)"];
    let first: Vec<_> = queries.iter().map(|q| vector(&store, q, &at)).collect();
    for turn in 0..10 {
        store.rotate_left(7);
        store.swap(turn, 29 - turn);
        let again: Vec<_> = queries.iter().map(|q| vector(&store, q, &at)).collect();
        assert_eq!(again, first);
    }
}

fn sample_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-5i32..50).prop_map(f64::from),
        3 => -1e3..1e3f64,
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-0.0), Just(1e300)],
    ]
}

fn bits(output: &QueryOutput) -> Vec<(i64, u64)> {
    match &output.value {
        Value::Matrix(m) => m.iter().flat_map(|s| s.floats.iter().map(|(t, v)| (t, v.to_bits()))).collect(),
        Value::Vector(v) => v
            .iter()
            .map(|s| match s.value {
                SampleValue::Float(f) => (s.t_ms, f.to_bits()),
                SampleValue::Histogram(_) => (s.t_ms, 0),
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A range query gives at each step, bit for bit, what an instant query gives there.
    #[test]
    fn ranges_are_rows_of_instants(
        values in proptest::collection::vec(sample_value(), 1..60),
        gap in 1i64..40,
        range in 1i64..200,
        whole in any::<bool>(),
    ) {
        let value = |v: f64| if whole { v.trunc() } else { v };
        let samples: Vec<(i64, f64)> =
            values.iter().enumerate().map(|(i, v)| (i as i64 * gap * 1000 + i as i64 % 3, value(*v))).collect();
        let store = [series(&[("__name__", "x")], &samples)];
        let end = samples.len() as i64 * gap * 1000 + 50_000;
        let step = end / 7 + 1;
        for f in ["max", "min", "sum", "avg", "count", "stddev", "last", "first", "mad", "ts_of_max"] {
            let query = format!("{f}_over_time(x[{range}s])");
            check_rows(&store, &query, end, step)?;
        }
        for f in ["rate", "increase", "delta", "irate", "idelta", "changes", "resets", "deriv"] {
            check_rows(&store, &format!("{f}(x[{range}s])"), end, step)?;
        }
        check_rows(&store, &format!("quantile_over_time(0.3, x[{range}s])"), end, step)?;
        check_rows(&store, &format!("rate(x[{range}s] smoothed) or rate(x[{range}s] anchored)"), end, step)?;
        check_rows(&store, "x smoothed + x offset 3s", end, step)?;
    }

    /// Whatever the text is, parsing and planning end with a result or an error.
    #[test]
    fn any_text_is_answered(words in proptest::collection::vec(proptest::sample::select(vec![
        "(", ")", "[", "]", "{", "}", ",", "+", "-", "^", "sum", "by", "rate", "x", "5m", "1", "\"a\"", "=~", "=",
        "offset", "@", "start", "bool", "on", "group_left", "fill", ":", " ", "anchored", "</", "step", "and", "#",
        "`", "'", "é", "\\", "0x", "1e", "inf",
    ]), 0..25)) {
        for text in [words.concat(), words.join(" ")] {
            if let Ok(expr) = parse(&text) {
                prop_assert_eq!(&parse(&expr.to_string()).unwrap(), &expr);
                let _ = Plan::new(&expr, &QueryParams::instant(0));
            }
        }
    }
}

fn check_rows(store: &[Arc<MemorySeries>], query: &str, end: i64, step: i64) -> Result<(), TestCaseError> {
    let ranged = run(store, query, &QueryParams::range(0, end, step)).unwrap();
    let mut single = Vec::new();
    let mut t = 0;
    while t <= end {
        single.extend(bits(&run(store, query, &QueryParams::instant(t)).unwrap()));
        t += step;
    }
    prop_assert_eq!(bits(&ranged), single, "{}", query);
    Ok(())
}

#[test]
fn scalars_come_out_plain() {
    let at = QueryParams::instant(90_000);
    let scalar = |query: &str| match run(&[], query, &at).unwrap().value {
        Value::Scalar(t, v) => (t, v),
        other => panic!("{query}: {other:?}"),
    };
    assert_eq!(scalar("2 ^ 3 ^ 2 % 5 + time()"), (90_000, 92.0));
    assert_eq!(scalar("-2 ^ 2"), (90_000, -4.0));
    assert_eq!(scalar("1 <= bool 2"), (90_000, 1.0));
    assert!(scalar("scalar(nothing)").1.is_nan());
    let error = run(&[], "1 </ 2", &at).unwrap_err().to_string();
    assert_eq!(error, "operator \"</\" not allowed for Scalar operations");
    let Value::Matrix(m) = run(&[], "time() - 1", &QueryParams::range(0, 2000, 1000)).unwrap().value else {
        panic!("no matrix");
    };
    assert!(m[0].floats.iter().eq([(0, -1.0), (1000, 0.0), (2000, 1.0)]));
    assert!(matches!(run(&[], "\"a\"", &at).unwrap().value, Value::String(90_000, s) if s == "a"));
}
