//! The scripts that real Prometheus answers made.
//!
//! Each file has a floor of evaluations that must pass; floors only rise, and nothing may fail. Every expression of the scripts
//! must also survive printing and parsing.

use std::path::PathBuf;

use koios_promql::script::{ScriptReport, run_script};
use koios_promql::{parse, prettify};

/// File and number of evaluations that pass.
const FLOORS: [(&str, usize); 21] = [
    ("aggregators", 93),
    ("at_modifier", 44),
    ("collision", 2),
    ("duration_expression", 33),
    ("extended_vectors", 108),
    ("fill-modifier", 19),
    ("functions", 255),
    ("histograms", 112),
    ("info", 30),
    ("limit", 25),
    ("literals", 16),
    ("name_label_dropping", 19),
    ("native_histograms", 322),
    ("operators", 131),
    ("range_queries", 12),
    ("selectors", 16),
    ("staleness", 9),
    ("start_timestamps", 13),
    ("subquery", 25),
    ("trig_functions", 12),
    ("type_and_unit", 34),
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
        if report.passed < floor || !report.failed.is_empty() {
            below.push_str(&format!("floor {floor} not reached: {}", show(&report)));
        }
    }
    assert!(below.is_empty(), "{below}");
}

/// The queries of a script: what follows the times of an `eval`.
fn queries(text: &str) -> Vec<String> {
    let evals = text.lines().map(str::trim).filter(|l| l.starts_with("eval"));
    let words = |l: &str| if l.contains(" instant ") { 4 } else { 8 };
    evals
        .map(|l| {
            let mut rest = l;
            for _ in 0..words(l) {
                rest = rest.split_once(char::is_whitespace).map_or("", |(_, r)| r.trim_start());
            }
            rest.to_owned()
        })
        .collect()
}

#[test]
fn every_query_survives_printing() {
    let mut seen = 0;
    for (name, _) in FLOORS {
        for query in queries(&script(name)) {
            let tree = parse(&query).unwrap_or_else(|e| panic!("{name}: {query}: {e}"));
            for printed in [tree.to_string(), prettify(&tree)] {
                let again = parse(&printed).unwrap_or_else(|e| panic!("{query} as {printed}: {e}"));
                assert_eq!(again, tree, "{query} as {printed}");
            }
            seen += 1;
        }
    }
    assert!(seen > 1300, "{seen}");
}
