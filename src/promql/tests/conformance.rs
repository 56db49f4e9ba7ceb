//! The scripts that real Prometheus answers made.
//!
//! Each file has a floor of evaluations that must pass; floors only rise. Every expression of the scripts
//! must also survive printing and parsing.

use std::path::PathBuf;

use koios_promql::script::{ScriptReport, run_script};

/// File and number of evaluations that pass.
const FLOORS: [(&str, usize); 21] = [
    ("aggregators", 0),
    ("at_modifier", 0),
    ("collision", 0),
    ("duration_expression", 0),
    ("extended_vectors", 0),
    ("fill-modifier", 0),
    ("functions", 0),
    ("histograms", 0),
    ("info", 0),
    ("limit", 0),
    ("literals", 0),
    ("name_label_dropping", 0),
    ("native_histograms", 0),
    ("operators", 0),
    ("range_queries", 0),
    ("selectors", 0),
    ("staleness", 0),
    ("start_timestamps", 0),
    ("subquery", 0),
    ("trig_functions", 0),
    ("type_and_unit", 0),
];

fn folder() -> PathBuf {
    let shared = std::env::var_os("KOIOS_SHARED").map(PathBuf::from);
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..");
    shared.unwrap_or_else(|| root.join("shared")).join("conformance/promql")
}

fn script(name: &str) -> String {
    let path = folder().join(format!("{name}.test"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn show(report: &ScriptReport) -> String {
    let mut out = format!("{}: {} passed, {} failed\n", report.name, report.passed, report.failed.len());
    for f in &report.failed {
        out.push_str(&format!("  line {}: {}\n    as {}\n    {}\n", f.line, f.query, f.expected, f.got));
    }
    out
}

#[test]
fn scripts_pass_as_often_as_ever() {
    let mut below = String::new();
    for (name, floor) in FLOORS {
        let report = run_script(name, &script(name));
        println!("{}", show(&report));
        if report.passed < floor {
            below.push_str(&format!("floor {floor} not reached: {}", show(&report)));
        }
    }
    assert!(below.is_empty(), "{below}");
}
