//! Rule unit-test files: what passes, what fails and why; verdicts beside promtool's where it is installed.

use std::path::Path;
use std::process::Command;

use koios_rules::run_unit_file;

const RULES: &str = "groups:
- name: second
  rules:
  - {record: 'job:rate:double', expr: '2 * job:requests:rate5m'}
- name: first
  labels: {}
  rules:
  - {record: 'job:requests:rate5m', expr: 'sum by (job) (rate(requests_total[5m]))', labels: {source: rule, zone: ''}}
  - {record: 'job:up', expr: 'sum by (job) (up)'}
  - {record: 'constant', expr: '42'}
";

/// Verdict of promtool on the same file, when it is there. `labels` of a group came after 2.42.
fn promtool(file: &Path) -> Option<bool> {
    let out = Command::new("promtool").args(["test", "rules"]).arg(file).output().ok()?;
    Some(out.status.success())
}

/// Runs a test file; (passed, failures), the same verdict as promtool unless `ours_alone`.
fn run(body: &str, ours_alone: bool) -> (usize, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rules.yml"), RULES.replace("  labels: {}\n", "")).unwrap();
    let file = dir.path().join("test.yml");
    let head =
        "rule_files: [rules.yml]\nevaluation_interval: 1m\ngroup_eval_order: [first, second]\ntests:\n";
    std::fs::write(&file, format!("{head}{body}")).unwrap();
    let report = run_unit_file(&file);
    if let Some(verdict) = promtool(&file).filter(|_| !ours_alone) {
        assert_eq!(report.failed.is_empty(), verdict, "promtool says {verdict}: {report:?}\n{body}");
    }
    (report.passed, report.failed)
}

const SERIES: &str = "- interval: 1m
  input_series:
  - {series: 'requests_total{job=\"a\",i=\"1\"}', values: '0+60x20'}
  - {series: 'requests_total{job=\"a\",i=\"2\"}', values: '0+120x20'}
  - {series: 'up{job=\"a\"}', values: '1 1 1 _ stale 1x5'}
  - {series: 'up{job=\"b\"}', values: '1 1 stale'}
  promql_expr_test:
";

fn expression(expr: &str, at: &str, samples: &str) -> String {
    format!("{SERIES}  - {{expr: '{expr}', eval_time: {at}, exp_samples: {samples}}}\n")
}

#[test]
fn what_rules_record_can_be_asked_for() {
    for (expr, at, samples) in [
        (
            "job:requests:rate5m",
            "10m",
            "[{labels: 'job:requests:rate5m{job=\"a\",source=\"rule\"}', value: 3}]",
        ),
        ("job:rate:double", "10m", "[{labels: 'job:rate:double{job=\"a\",source=\"rule\"}', value: 6}]"),
        (
            "sum_over_time(job:up[3m])",
            "2m",
            "[{labels: '{job=\"a\"}', value: 3}, {labels: '{job=\"b\"}', value: 2}]",
        ),
        // Marked stale when the rule no longer gives it.
        ("job:up", "2m", "[{labels: 'job:up{job=\"a\"}', value: 1}]"),
        ("job:up", "4m", "[]"),
        ("constant", "0s", "[{labels: constant, value: 42}]"),
        ("1 + 1", "1m", "[{labels: '{}', value: 2}]"),
        ("count(up)", "30m", ""),
    ] {
        let (passed, failed) = run(&expression(expr, at, samples), false);
        assert_eq!((passed, failed.len()), (1, 0), "{expr} at {at}: {failed:?}");
    }
}

#[test]
fn wrong_expectations_fail() {
    for (expr, at, samples) in [
        (
            "job:requests:rate5m",
            "10m",
            "[{labels: 'job:requests:rate5m{job=\"a\",source=\"rule\"}', value: 3.1}]",
        ),
        ("job:requests:rate5m", "10m", "[{labels: 'job:requests:rate5m{job=\"a\"}', value: 3}]"),
        ("job:requests:rate5m", "10m", "[]"),
        ("job:up", "4m", "[{labels: 'job:up{job=\"a\"}', value: 1}]"),
        ("up + on () up", "1m", "[]"),
        ("up ===", "1m", "[]"),
    ] {
        let (passed, failed) = run(&expression(expr, at, samples), false);
        assert_eq!((passed, failed.len()), (0, 1), "{expr} at {at}: {failed:?}");
    }
}

#[test]
fn alerts_are_never_passed_over() {
    let body = "- input_series: []\n  alert_rule_test:\n  - {eval_time: 1m, alertname: Down, exp_alerts: [{exp_labels: {a: b}}]}\n";
    let (_, failed) = run(body, true);
    assert!(failed[0].contains("Down") && failed[0].contains("not evaluated yet"), "{failed:?}");
    let (_, failed) = run(&expression("ALERTS{alertname=\"Down\"}", "1m", "[]"), true);
    assert!(failed[0].contains("not evaluated yet"), "{failed:?}");
}

#[test]
fn what_promtool_2_does_not_know() {
    let body = "- name: later\n  start_timestamp: 2024-01-01T00:00:00Z\n  interval: 30s\n  input_series:\n  - {series: 'h', values: '{{schema:0 count:3 sum:4 buckets:[1 2]}}x10'}\n  - {series: 'x', values: '1+1x10'}\n  promql_expr_test:\n  - {expr: 'h', eval_time: 2m, exp_samples: [{labels: h, histogram: '{{schema:0 count:3 sum:4 buckets:[1 2]}}'}]}\n  - {expr: 'timestamp(x)', eval_time: 1m, exp_samples: [{labels: '{}', value: 1704067260}]}\n  - {expr: 'h', eval_time: 2m, exp_samples: [{labels: h, histogram: '{{schema:0 count:3 sum:4 buckets:[2 1]}}'}]}\n";
    let (passed, failed) = run(body, true);
    assert_eq!((passed, failed.len()), (2, 1), "{failed:?}");
    assert!(failed[0].starts_with("test \"later\""), "{failed:?}");
}

#[test]
fn faults_of_files_are_failures() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.yml");
    for (text, part) in [
        ("tests: [{promql_expr_tests: []}]", "promql_expr_tests"),
        ("rule_files: [none.yml]", "none.yml"),
        ("group_eval_order: [x]\ntests: []", "group_eval_order"),
        ("tests: [{input_series: [{series: 'x', values: 'a b'}]}]", "x"),
        ("evaluation_interval: 1ms\ntests: [{promql_expr_test: [{expr: x, eval_time: 1y}]}]", "evaluations"),
    ] {
        std::fs::write(&file, text).unwrap();
        let failed = run_unit_file(&file).failed;
        assert!(failed.len() == 1 && failed[0].contains(part), "{text}: {failed:?}");
    }
    std::fs::write(&file, "rule_files: ['r*.yml']\ntests: [{promql_expr_test: [{expr: r, eval_time: 0s, exp_samples: [{labels: r, value: 7}]}]}]").unwrap();
    std::fs::write(dir.path().join("r1.yml"), "groups: [{name: g, rules: [{record: r, expr: '7'}]}]")
        .unwrap();
    assert_eq!(run_unit_file(&file).passed, 1);
}
