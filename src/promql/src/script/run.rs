//! Running scripts.

use crate::api::{
    Control, EngineOptions, EvalError, QueryOutput, QueryParams, SampleValue, SeriesSource, Value,
    VectorSample,
};
use crate::plan::Plan;
use crate::syntax::ast::{At, Expr, ExprKind};
use crate::syntax::parse;

use super::compare;
use super::parse::{Command, Eval, Kind, Text, Times, parse_script};
use super::store::{Store, custom_buckets};

/// Samples a query of a script may hold, as upstream.
const SAMPLES_MAX: u64 = 10_000;

/// Functions whose value may change with the evaluation time though their arguments do not.
const TIME_DEPENDENT: [&str; 17] = [
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "predict_linear",
    "time",
    "timestamp",
    "start_timestamp",
    "start",
    "end",
    "step",
    "range",
    "end()",
];

/// One evaluation that did not come out as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Line of the command, from 1.
    pub line: usize,
    /// The query, or the broken command.
    pub query: String,
    /// In which form it was run.
    pub expected: String,
    /// What went wrong.
    pub got: String,
}

/// The outcome of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptReport {
    /// Name of the script.
    pub name: String,
    /// Evaluations as expected, each with all its repetitions.
    pub passed: usize,
    /// The others, and commands that could not be read.
    pub failed: Vec<Failure>,
}

/// Runs a script against an empty store.
pub fn run_script(name: &str, text: &str) -> ScriptReport {
    let mut report = ScriptReport { name: name.to_owned(), ..ScriptReport::default() };
    let mut store = Store::default();
    for Command { line, kind } in parse_script(text) {
        match kind {
            Kind::Clear => store.clear(),
            Kind::Load { interval, with_nhcb, series } => {
                for s in &series {
                    store.add(&s.labels, interval, &s.values, &s.starts);
                }
                if with_nhcb {
                    let classic: Vec<_> = series.into_iter().map(|s| (s.labels, s.values)).collect();
                    for (labels, values) in custom_buckets(&classic) {
                        store.add(&labels, interval, &values, &[]);
                    }
                }
                store.commit();
            }
            Kind::Eval(e) => match run_eval(&e, &store) {
                Ok(()) => report.passed += 1,
                Err((expected, got)) => {
                    report.failed.push(Failure { line, query: e.query.clone(), expected, got });
                }
            },
            Kind::Broken(got) => report.failed.push(Failure {
                line,
                query: String::new(),
                expected: "a valid command".to_owned(),
                got,
            }),
        }
    }
    report
}

/// The form that failed and why.
type Outcome = Result<(), (String, String)>;

fn run_eval(e: &Eval, store: &Store) -> Outcome {
    let Some(times) = e.times else {
        return Err(("times".to_owned(), "missing".to_owned()));
    };
    if !e.is_instant() {
        return once(e, store, &e.query, times).map_err(|got| ("range".to_owned(), got));
    }
    let mut runs = vec![(e.query.clone(), times)];
    runs.extend(repetitions(&e.query, times.start));
    for (query, times) in runs {
        let form = format!("{query} @ {}ms", times.start);
        once(e, store, &query, times).map_err(|got| (form.clone(), got))?;
        as_range(e, store, &query, times).map_err(|got| (format!("{form} in range mode"), got))?;
    }
    Ok(())
}

fn params(times: Times) -> QueryParams {
    let mut p = QueryParams::range(times.start, times.end, times.step);
    p.options = EngineOptions { type_and_unit_labels: false, ..EngineOptions::all() };
    p.limits.samples_max = SAMPLES_MAX;
    p
}

fn query(store: &Store, text: &str, times: Times) -> Result<QueryOutput, String> {
    let expr = parse(text).map_err(|e| e.to_string())?;
    let plan = Plan::new(&expr, &params(times)).map_err(|e| e.to_string())?;
    let inputs: Vec<Vec<Box<dyn SeriesSource>>> = plan.selects().iter().map(|s| store.select(s)).collect();
    plan.evaluate(inputs, &Control::new()).map_err(|e: EvalError| e.to_string())
}

fn once(e: &Eval, store: &Store, text: &str, times: Times) -> Result<(), String> {
    match (query(store, text, times), &e.fail) {
        (Err(got), Some(want)) => failure(want, &got),
        (Err(got), None) => Err(format!("error: {got}")),
        (Ok(_), Some(want)) => Err(format!("expected an error ({want:?}), got none")),
        (Ok(output), None) => {
            compare::annotations(e, &output)?;
            compare::value(e, &output.value, times)
        }
    }
}

fn failure(want: &Text, got: &str) -> Result<(), String> {
    if compare::text_matches(want, got) {
        Ok(())
    } else {
        Err(format!("expected error {want:?}, got {got:?}"))
    }
}

/// The same as the middle step of a range query.
fn as_range(e: &Eval, store: &Store, text: &str, times: Times) -> Result<(), String> {
    const MINUTE: i64 = 60_000;
    let skipped =
        ["start()", "end()", "range()", "step()"].iter().any(|f| text.to_ascii_lowercase().contains(f));
    if skipped || e.ordered || e.string.is_some() || e.matrix.is_some() {
        return Ok(());
    }
    let around = Times { start: times.start - MINUTE, end: times.start + MINUTE, step: MINUTE };
    let output = match (query(store, text, around), &e.fail) {
        (Err(_), Some(_)) => return Ok(()),
        (Err(got), None) => return Err(format!("error: {got}")),
        (Ok(_), Some(_)) => return Ok(()),
        (Ok(output), None) => output,
    };
    let Value::Matrix(series) = output.value else {
        return Err("range query gave no matrix".to_owned());
    };
    compare::sorted(&series)?;
    let mut samples = Vec::new();
    for s in &series {
        let float = s.floats.iter().find(|p| p.0 == times.start).map(|p| SampleValue::Float(p.1));
        let hist =
            s.histograms.iter().find(|p| p.0 == times.start).map(|p| SampleValue::Histogram(p.1.clone()));
        if let Some(value) = float.or(hist) {
            samples.push(VectorSample { labels: s.labels.clone(), t_ms: times.start, value });
        }
    }
    if e.scalar.is_some()
        && let [VectorSample { value: SampleValue::Float(v), .. }] = samples.as_slice()
    {
        return compare::scalar(e, *v);
    }
    compare::vector(e, &samples)
}

/// The query with `@ t` on every selector, at other times.
fn repetitions(text: &str, t: i64) -> Vec<(String, Times)> {
    let Ok(mut expr) = parse(text) else {
        return Vec::new();
    };
    if depends_on_time(&expr) {
        return Vec::new();
    }
    pin(&mut expr, t);
    let pinned = expr.to_string();
    let times = if t == 0 { vec![-1000, 0, 1000] } else { vec![-10 * t, 0, t / 5, t, 10 * t] };
    times.into_iter().map(|t| (pinned.clone(), Times { start: t, end: t, step: 0 })).collect()
}

fn depends_on_time(expr: &Expr) -> bool {
    if let ExprKind::Call(c) = &expr.kind
        && TIME_DEPENDENT.contains(&c.func.name)
    {
        return true;
    }
    // Below a pinned subquery nothing depends on the time outside.
    if matches!(&expr.kind, ExprKind::Subquery(_)) {
        return false;
    }
    expr.children().into_iter().any(depends_on_time)
}

fn pin(expr: &mut Expr, t: i64) {
    let at = match &mut expr.kind {
        ExprKind::Vector(v) => Some(&mut v.at),
        ExprKind::Matrix(m) => Some(&mut m.selector.at),
        ExprKind::Subquery(s) => Some(&mut s.at),
        _ => None,
    };
    if let Some(at) = at {
        if !matches!(at, Some(At::Time(_))) {
            *at = Some(At::Time(t));
        }
        return;
    }
    for child in expr.children_mut() {
        pin(child, t);
    }
}
