//! Rule unit-test files, as `promtool test rules` takes them.
//!
//! Input series and rules are replayed from the start of a test to its latest evaluation time, every
//! `evaluation_interval`; then expressions are compared. Alert tests are read in full and count as failed,
//! since alerting rules are not evaluated yet; the same holds for expressions that ask for `ALERTS`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use koios_model::{FloatHistogram, Labels};
use koios_promql::script::{read_histogram, read_metric, read_series};
use koios_promql::{Plan, QueryParams, SampleValue, VectorSample, parse};
use serde::Deserialize;

use crate::eval::{Runner, query};
use crate::file::{Group, Ms, or_default, read_rules};
use crate::store::SeriesStore;

/// Said of everything that needs alerts.
const NO_ALERTS: &str =
    "alerts are not evaluated yet: alert tests come with the rules issue and count as failed until then";
/// Most evaluations of the groups of one test.
const EVALUATIONS_MAX: i64 = 1_000_000;
/// Default of both intervals, ms.
const MINUTE_MS: i64 = 60_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default, deserialize_with = "or_default")]
    rule_files: Vec<String>,
    evaluation_interval: Option<Ms>,
    #[serde(default, deserialize_with = "or_default")]
    group_eval_order: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    fuzzy_compare: bool,
    #[serde(default, deserialize_with = "or_default")]
    tests: Vec<RawTest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTest {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    interval: Option<Ms>,
    start_timestamp: Option<RawTime>,
    #[serde(default, deserialize_with = "or_default")]
    input_series: Vec<RawSeries>,
    #[serde(default, deserialize_with = "or_default")]
    alert_rule_test: Vec<RawAlertTest>,
    #[serde(default, deserialize_with = "or_default")]
    promql_expr_test: Vec<RawExprTest>,
    #[serde(default, deserialize_with = "or_default", rename = "external_labels")]
    _external_labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default", rename = "external_url")]
    _external_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSeries {
    series: String,
    values: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlertTest {
    eval_time: Ms,
    alertname: String,
    #[serde(default, deserialize_with = "or_default", rename = "exp_alerts")]
    _exp_alerts: Vec<RawAlert>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlert {
    #[serde(default, deserialize_with = "or_default", rename = "exp_labels")]
    _exp_labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default", rename = "exp_annotations")]
    _exp_annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExprTest {
    expr: String,
    eval_time: Ms,
    #[serde(default, deserialize_with = "or_default")]
    exp_samples: Vec<RawSample>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSample {
    #[serde(default, deserialize_with = "or_default")]
    labels: String,
    #[serde(default, deserialize_with = "or_default")]
    value: f64,
    #[serde(default, deserialize_with = "or_default")]
    histogram: String,
}

/// Seconds since the epoch, or RFC 3339.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawTime {
    Number(f64),
    Text(String),
}

/// What came out of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitReport {
    /// Expectations that were met.
    pub passed: usize,
    /// Those that were not, and everything that kept a test from running, in words.
    pub failed: Vec<String>,
}

/// Runs a test file; rule files are looked for relative to it.
pub fn run_unit_file(path: &Path) -> UnitReport {
    let mut report = UnitReport::default();
    if let Err(why) = run(path, &mut report) {
        report.failed.push(why);
    }
    report
}

fn run(path: &Path, report: &mut UnitReport) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let raw: RawFile = serde_saphyr::from_str(&text).map_err(|e| e.to_string())?;
    let mut groups = Vec::new();
    for pattern in &raw.rule_files {
        for file in matching(path.parent().unwrap_or(Path::new("")), pattern)? {
            let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
            groups.extend(read_rules(&file.display().to_string(), &text).map_err(|e| e.to_string())?);
        }
    }
    let order = |g: &Group| raw.group_eval_order.iter().position(|n| *n == g.name).unwrap_or(usize::MAX);
    if let Some(unknown) = raw.group_eval_order.iter().find(|n| !groups.iter().any(|g| g.name == **n)) {
        return Err(format!("group_eval_order names {unknown:?}, and no rule file has such a group"));
    }
    groups.sort_by(|a, b| (order(a), &a.file, &a.name).cmp(&(order(b), &b.file, &b.name)));
    let interval = raw.evaluation_interval.map_or(MINUTE_MS, |i| i.0).max(1);
    for (n, test) in raw.tests.iter().enumerate() {
        let name =
            if test.name.is_empty() { format!("test {}", n + 1) } else { format!("test {:?}", test.name) };
        let mut one = Test { test, name, report, fuzzy: raw.fuzzy_compare };
        if let Err(why) = one.run(&groups, interval) {
            let name = one.name;
            report.failed.push(format!("{name}: {why}"));
        }
    }
    Ok(())
}

/// Files of a pattern: `*` and `?` within the last part of the path.
fn matching(dir: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let full = dir.join(pattern);
    let name = full.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        return Ok(vec![full]);
    }
    let parent = full.parent().unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|e| wild(name.as_bytes(), e.file_name().to_string_lossy().as_bytes()))
        .map(|e| e.path())
        .collect();
    found.sort();
    Ok(found)
}

/// Shell patterns, without backtracking further than the last star.
fn wild(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((sp, st)) = star else { return false };
                star = Some((sp, st + 1));
                (p, t) = (sp + 1, st + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

struct Test<'a> {
    test: &'a RawTest,
    name: String,
    report: &'a mut UnitReport,
    fuzzy: bool,
}

impl Test<'_> {
    fn run(&mut self, groups: &[Group], interval: i64) -> Result<(), String> {
        let start = match &self.test.start_timestamp {
            None => 0,
            Some(RawTime::Number(seconds)) => (seconds * 1000.0) as i64,
            Some(RawTime::Text(t)) => koios_model::timestamp::parse_time(t)
                .ok_or_else(|| format!("start_timestamp {t:?} is neither seconds nor RFC 3339"))?,
        };
        let pairs: Vec<(String, String)> =
            self.test.input_series.iter().map(|s| (s.series.clone(), s.values.clone())).collect();
        let input = read_series(&pairs, start, self.test.interval.map_or(MINUTE_MS, |i| i.0))?;
        let mut store = SeriesStore::new(input);
        let times = self.test.alert_rule_test.iter().map(|a| a.eval_time.0);
        let last = times.chain(self.test.promql_expr_test.iter().map(|e| e.eval_time.0)).max().unwrap_or(0);
        if last / interval > EVALUATIONS_MAX {
            return Err(format!(
                "needs more than {EVALUATIONS_MAX} evaluations; use a longer evaluation_interval"
            ));
        }
        let mut runners: Vec<Runner> = groups.iter().cloned().map(Runner::new).collect();
        let mut t = start;
        let mut params = QueryParams::instant(start);
        params.default_subquery_step_ms = interval;
        while t <= start + last {
            for runner in &mut runners {
                if let Err(faults) = runner.run(t, &params, &mut store) {
                    let (rule, why) = &faults[0];
                    let at = koios_model::duration::format_duration(t - start);
                    let group = &runner.group().name;
                    return Err(format!("group {group:?}: rule {rule:?} at {at}: {why}"));
                }
            }
            t += interval;
        }
        for alert in &self.test.alert_rule_test {
            let at = koios_model::duration::format_duration(alert.eval_time.0);
            self.fail(&format!("alertname {:?} at {at}: {NO_ALERTS}", alert.alertname));
        }
        for e in &self.test.promql_expr_test {
            let at = koios_model::duration::format_duration(e.eval_time.0);
            match self.expression(e, start, &params, &store, start + last) {
                Ok(()) => self.report.passed += 1,
                Err(why) => self.fail(&format!("expr {:?} at {at}:\n{why}", e.expr)),
            }
        }
        Ok(())
    }

    fn fail(&mut self, why: &str) {
        self.report.failed.push(format!("{}: {why}", self.name));
    }

    fn expression(
        &self,
        e: &RawExprTest,
        start: i64,
        params: &QueryParams,
        store: &SeriesStore,
        last: i64,
    ) -> Result<(), String> {
        let at = start + e.eval_time.0;
        let params = QueryParams { start_ms: at, end_ms: at, ..params.clone() };
        let expr = parse(&e.expr).map_err(|e| format!("  {e}"))?;
        let plan = Plan::new(&expr, &params).map_err(|e| format!("  {e}"))?;
        let alerts = |n: &str| ["ALERTS", "ALERTS_FOR_STATE"].contains(&n);
        if plan.selects().iter().any(|s| s.matchers.iter().any(|m| m.name == "__name__" && alerts(&m.value)))
        {
            return Err(format!("  {NO_ALERTS}"));
        }
        let got = query(&expr, &params, store, last).map_err(|e| format!("  {e}"))?;
        let mut got: Vec<(Labels, Shown)> = got.into_iter().map(shown).collect();
        let mut want = Vec::new();
        for s in &e.exp_samples {
            let labels = read_metric(&s.labels).map_err(|e| format!("  labels {:?}: {e}", s.labels))?;
            let value = match s.histogram.as_str() {
                "" => Shown::Float(s.value),
                text => Shown::Histogram(bare(&*read_histogram(text).map_err(|e| format!("  {e}"))?)),
            };
            want.push((labels, value));
        }
        got.sort_by(|a, b| a.0.cmp(&b.0));
        want.sort_by(|a, b| a.0.cmp(&b.0));
        let same = got.len() == want.len()
            && got.iter().zip(&want).all(|(a, b)| a.0 == b.0 && a.1.same(&b.1, self.fuzzy));
        if same {
            Ok(())
        } else {
            Err(format!("  expected: {}\n  got:      {}", listed(&want), listed(&got)))
        }
    }
}

#[derive(Debug)]
enum Shown {
    Float(f64),
    Histogram(FloatHistogram),
}

impl Shown {
    /// The same number, or the next one when comparison is fuzzy.
    fn same(&self, other: &Self, fuzzy: bool) -> bool {
        match (self, other) {
            (Shown::Float(a), Shown::Float(b)) => {
                a == b || (a.is_nan() && b.is_nan()) || (fuzzy && (a.next_up() == *b || a.next_down() == *b))
            }
            (Shown::Histogram(a), Shown::Histogram(b)) => a == b,
            _ => false,
        }
    }
}

/// Without what the notation cannot say for certain: empty buckets and the hint about resets.
fn bare(h: &FloatHistogram) -> FloatHistogram {
    let mut h = h.clone();
    h.compact();
    h.hint = koios_model::CounterReset::Unknown;
    h
}

fn shown(sample: VectorSample) -> (Labels, Shown) {
    let value = match sample.value {
        SampleValue::Float(v) => Shown::Float(v),
        SampleValue::Histogram(h) => Shown::Histogram(bare(&h)),
    };
    (sample.labels, value)
}

fn listed(samples: &[(Labels, Shown)]) -> String {
    let one = |(l, v): &(Labels, Shown)| match v {
        Shown::Float(v) => format!("{l} {v}"),
        Shown::Histogram(h) => format!("{l} {h}"),
    };
    if samples.is_empty() {
        "nothing".to_owned()
    } else {
        samples.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}
