//! The small commands beside running a node.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::bench;
use crate::blocks_tool;
use crate::cli::{Check, Cluster, Command, Query, Test};
use crate::tsdb_tool;

/// Runs one.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Check { what: Check::Config { files } } => check_config(&files),
        Command::Cluster { what: Cluster::Status { url } } => print_from(&url, "/cluster", &[]),
        Command::Cluster { what: Cluster::SafeToStop { url } } => print_from(&url, "/-/safe-to-stop", &[]),
        Command::Cluster { what: Cluster::Explain { url, query, target, start, end } } => {
            let given = [("query", query), ("target", target), ("start", start), ("end", end)];
            let params: Vec<_> = given.into_iter().filter_map(|(n, v)| Some((n, v?))).collect();
            print_lines(&url, "/api/v1/cluster/explain", &params)
        }
        Command::Query { what: Query::Instant { url, time, expr } } => {
            let mut params = vec![("query", expr)];
            params.extend(time.map(|t| ("time", t)));
            print_from(&url, "/api/v1/query", &params)
        }
        Command::Query { what: Query::Range { url, start, end, step, expr } } => {
            let params = [("query", expr), ("start", start), ("end", end), ("step", step)];
            print_from(&url, "/api/v1/query_range", &params)
        }
        Command::Test { what: Test::Promql { files } } => test_promql(&files),
        Command::Test { what: Test::Rules { files } } => test_rules(&files),
        Command::Tsdb { what } => tsdb_tool::run(what),
        Command::Blocks { what } => blocks_tool::run(what),
        Command::Bench(args) => bench::run(&args),
    }
}

fn check_config(files: &[PathBuf]) -> ExitCode {
    let mut failed = 0;
    for file in files {
        match koios_config::load(file) {
            Ok(config) => println!("{}: ok, {} scrape jobs", file.display(), config.scrape_configs.len()),
            Err(errors) => {
                failed += 1;
                eprintln!("{errors}");
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn test_promql(files: &[PathBuf]) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) => {
                println!("{}: {e}", file.display());
                failed += 1;
                continue;
            }
        };
        let report = koios_promql::script::run_script(&file.display().to_string(), &text);
        passed += report.passed;
        failed += report.failed.len();
        for f in &report.failed {
            println!(
                "{}:{}: {}\n  expected: {}\n  got:      {}",
                file.display(),
                f.line,
                f.query,
                f.expected,
                f.got
            );
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn test_rules(files: &[PathBuf]) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        let report = koios_rules::run_unit_file(file);
        passed += report.passed;
        failed += report.failed.len();
        report.failed.iter().for_each(|why| println!("{}: {why}", file.display()));
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Asks a running node and prints its answer.
fn print_from(url: &str, path: &str, params: &[(&str, String)]) -> ExitCode {
    print_as(url, path, params, &|text| text.to_owned())
}

/// Asks a running node and prints the sentences of its answer, or its error.
fn print_lines(url: &str, path: &str, params: &[(&str, String)]) -> ExitCode {
    print_as(url, path, params, &|text| {
        let Ok(answer) = serde_json::from_str::<serde_json::Value>(text) else { return text.to_owned() };
        let words = |v: &serde_json::Value| -> Vec<String> {
            v.as_array().into_iter().flatten().filter_map(|l| l.as_str()).map(str::to_owned).collect()
        };
        match answer["error"].as_str() {
            Some(error) => error.to_owned(),
            None => [words(&answer["data"]["lines"]), words(&answer["warnings"])].concat().join("\n"),
        }
    })
}

fn print_as(url: &str, path: &str, params: &[(&str, String)], shape: &dyn Fn(&str) -> String) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("koios: {e}");
            return ExitCode::FAILURE;
        }
    };
    let target = format!("{}{path}", url.trim_end_matches('/'));
    let asked = runtime.block_on(async {
        let url = reqwest::Url::parse_with_params(&target, params).map_err(|e| e.to_string())?;
        let request = reqwest::Client::new().get(url).timeout(std::time::Duration::from_secs(150));
        let response = request.send().await.map_err(|e| e.to_string())?;
        let ok = response.status().is_success();
        Ok::<_, String>((ok, response.text().await.map_err(|e| e.to_string())?))
    });
    match asked {
        Ok((ok, text)) => {
            println!("{}", shape(&text).trim_end());
            if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!(
                "koios: {target} does not answer: {e}; fix: give --url the HTTP address of a running node"
            );
            ExitCode::FAILURE
        }
    }
}
