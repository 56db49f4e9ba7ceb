//! The script runner itself: what it must accept, and above all what it must not let pass.

use koios_promql::script::run_script;

const DATA: &str = "load 1m\n  x{a=\"1\"} 0+1x10\n  x{a=\"2\"} 5 _ stale 7x2\n  h {{schema:0 count:3 sum:4 buckets:[1 2]}}x10\n\n";

fn outcome(block: &str) -> (usize, usize) {
    let report = run_script("t", &format!("{DATA}{block}\n"));
    (report.passed, report.failed.len())
}

#[test]
fn right_expectations_pass() {
    for block in [
        "eval instant at 5m x{a=\"1\"}\n  x{a=\"1\"} 5",
        "eval instant at 5m sum(x)\n  {} 12",
        "eval range from 0 to 4m step 1m x{a=\"2\"}\n  x{a=\"2\"} 5 5 _ 7 7",
        "eval instant at 1m 1 + 1\n  2",
        "eval instant at 1m \"a\"\n  expect string \"a\"",
        "eval instant at 1m h\n  expect no_warn\n  h {{count:3 sum:4 buckets:[1 2]}}",
        "eval instant at 1m quantile(2, x)\n  expect warn msg: PromQL warning: quantile value should be between 0 and 1, got 2 (1:10)\n  {} +Inf",
        "eval instant at 1m quantile(2, x)\n  expect warn regex: got 2\n  {} +Inf",
        "eval instant at 1m x + on() x\n  expect fail regex: found duplicate series",
        "eval_fail instant at 1m x + on() x",
        "eval instant at 2m x{a=\"1\"}[2m]\n  expect range vector from 1m to 2m step 1m\n  x{a=\"1\"} 1 2",
        "eval instant at 5m sort_desc(x)\n  expect ordered\n  x{a=\"2\"} 7\n  x{a=\"1\"} 5",
        "eval instant at 5m nothing",
        "clear\n\neval instant at 5m x",
    ] {
        assert_eq!(outcome(block), (1, 0), "{block}");
    }
}

#[test]
fn wrong_expectations_fail() {
    for block in [
        "eval instant at 5m x{a=\"1\"}\n  x{a=\"1\"} 5.1",
        "eval instant at 5m x{a=\"1\"}",
        "eval instant at 5m x{a=\"1\"}\n  x{a=\"1\"} 5\n  y 1",
        "eval range from 0 to 4m step 1m x{a=\"2\"}\n  x{a=\"2\"} 5 5 5 7 7",
        "eval range from 0 to 1m step 1m x{a=\"2\"}\n  x{a=\"2\"} 5 5 5",
        "eval instant at 1m 1 + 1\n  3",
        "eval instant at 1m \"a\"\n  expect string \"b\"",
        "eval instant at 1m h\n  h {{count:3 sum:4 buckets:[1 3]}}",
        "eval instant at 1m h\n  h {{count:3 sum:4 buckets:[1 2] counter_reset_hint:gauge}}",
        "eval instant at 1m quantile(2, x)\n  expect no_warn\n  {} +Inf",
        "eval instant at 1m quantile(1, x)\n  expect warn\n  {} 5",
        "eval instant at 1m quantile(2, x)\n  expect warn msg: PromQL warning: other\n  {} +Inf",
        "eval instant at 1m x\n  expect fail",
        "eval instant at 1m x + on() x\n  expect fail msg: other",
        "eval instant at 5m sort_desc(x)\n  expect ordered\n  x{a=\"1\"} 5\n  x{a=\"2\"} 7",
        "eval instant at 5m sum(",
        "eval sometimes at 5m x",
        "loaad 5m",
        "load 5m\n  x{a=\"1\" 1 2",
        "load 5m\n  x 1 2 huh",
        "load 5m\n  x {{nope:1}}",
        "load 5m\n  x 1x99999999999",
    ] {
        assert_eq!(outcome(block), (0, 1), "{block}");
    }
}

#[test]
fn failures_name_their_line() {
    let report = run_script("t", &format!("{DATA}eval instant at 5m sum(x)\n  {{}} 13\n"));
    assert_eq!((report.failed[0].line, report.failed[0].query.as_str()), (6, "sum(x)"));
    assert!(report.failed[0].got.contains("12"), "{}", report.failed[0].got);
}
