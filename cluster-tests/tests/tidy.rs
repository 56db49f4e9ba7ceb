//! The house rules, as a test: arrows between crates, bans, sizes, essays, shipped files.
//!
//! Reads the sources as text. A rule that is broken names the file and the line.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Level of each crate, and the neighbours on its own level that it may use.
const LEVELS: [(&str, u8, &[&str]); 21] = [
    ("model", 0, &[]),
    ("config", 0, &["model"]),
    ("telemetry", 0, &["model"]),
    ("proto", 0, &[]),
    ("chunk", 1, &[]),
    ("block", 1, &["chunk"]),
    ("relabel", 1, &[]),
    ("tsdb", 2, &[]),
    ("compact", 2, &[]),
    ("promql", 2, &[]),
    ("scrape", 2, &[]),
    ("objstore", 2, &[]),
    ("cluster", 3, &[]),
    ("store", 3, &["cluster"]),
    ("query", 3, &["store", "cluster"]),
    ("rules", 3, &["query"]),
    ("remote", 3, &["cluster"]),
    ("http", 4, &[]),
    ("actors", 4, &[]),
    ("node", 5, &[]),
    ("cluster-tests", 5, &[]),
];

/// Libraries that only some crates may name in their manifest.
const LIBRARIES: [(&str, &[&str]); 6] = [
    ("actix", &["actors", "node"]),
    ("actix-rt", &["actors", "node"]),
    ("actix-web", &["http", "node"]),
    ("chitchat", &["cluster"]),
    ("object_store", &["objstore"]),
    ("tonic", &["proto", "query", "store", "node", "cluster-tests"]),
];

/// Texts that may appear only below the named paths.
const CALLS: [(&str, &[&str]); 8] = [
    ("do_send(", &["actors/src/kit/"]),
    ("SyncArbiter", &["actors/src/kit/"]),
    ("run_interval", &["actors/src/kit/"]),
    ("actix::Supervisor", &["actors/src/kit/"]),
    ("unbounded_channel", &["actors/src/kit/"]),
    ("Instant::now", &["src/model/src/clock.rs", "actors/src/kit/"]),
    ("SystemTime::now", &["src/model/src/clock.rs"]),
    ("self_node_state", &["src/cluster/src/gossip/keeper.rs"]),
];

const UNFINISHED: [&str; 5] = ["todo!(", "unimplemented!(", "#[ignore", "FIXME", "assert!(true"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("workspace root")
}

/// All files below `dir`, without build output.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        fs::read_dir(dir).expect("directory").map(|e| e.expect("entry").path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", ".git", "node_modules", "gen", "data"].contains(&name.as_str()) {
                files(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut all = Vec::new();
    for top in ["src", "actors", "proto", "cluster-tests"] {
        files(&root.join(top), &mut all);
    }
    all.into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .map(|p| {
            let text = fs::read_to_string(&p).expect("source");
            (p.strip_prefix(&root).expect("below the root").display().to_string(), text)
        })
        .collect()
}

fn manifests() -> BTreeMap<String, Vec<String>> {
    let root = root();
    let mut crates = BTreeMap::new();
    let mut dirs: Vec<PathBuf> =
        fs::read_dir(root.join("src")).expect("src").map(|e| e.expect("entry").path()).collect();
    dirs.extend(["actors", "proto", "cluster-tests"].map(|d| root.join(d)));
    for dir in dirs.into_iter().filter(|d| d.join("Cargo.toml").exists()) {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(dir.join("Cargo.toml")).expect("manifest");
        let mut section = "";
        let mut deps = Vec::new();
        for line in text.lines() {
            if let Some(s) = line.strip_prefix('[') {
                section = if s.starts_with("dependencies") { "dependencies" } else { "" };
            } else if section == "dependencies"
                && let Some((dep, _)) = line.split_once('=')
            {
                deps.push(dep.trim().trim_end_matches(".workspace").to_owned());
            }
        }
        crates.insert(name, deps);
    }
    crates
}

fn report(broken: Vec<String>) {
    assert!(broken.is_empty(), "house rules broken:\n  {}", broken.join("\n  "));
}

#[test]
fn dependencies_point_down() {
    let level = |name: &str| LEVELS.iter().find(|(n, _, _)| *n == name);
    let mut broken = Vec::new();
    for (name, deps) in manifests() {
        let Some((_, own, neighbours)) = level(&name) else {
            broken.push(format!("crate {name} has no level in this test"));
            continue;
        };
        for dep in deps.iter().filter_map(|d| d.strip_prefix("koios-")) {
            match level(dep) {
                Some((_, theirs, _)) if theirs < own || neighbours.contains(&dep) => {}
                _ => broken.push(format!("{name} (L{own}) must not use {dep}")),
            }
        }
        for (library, allowed) in LIBRARIES {
            if deps.iter().any(|d| d == library) && !allowed.contains(&name.as_str()) {
                broken.push(format!("{name} must not use {library}"));
            }
        }
        if *own <= 1 && deps.iter().any(|d| d == "tokio") {
            broken.push(format!("{name} (L{own}) must not use tokio"));
        }
    }
    report(broken);
}

#[test]
fn banned_calls_stay_where_they_belong() {
    let mut broken = Vec::new();
    for (path, text) in sources().iter().filter(|(p, _)| !p.starts_with("cluster-tests/")) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for (call, allowed) in CALLS {
                if code.contains(call) && !allowed.iter().any(|a| path.starts_with(a)) {
                    broken.push(format!("{path}:{}: {call} is not allowed here", number + 1));
                }
            }
            for mark in UNFINISHED {
                if code.contains(mark) {
                    broken.push(format!("{path}:{}: {mark} marks unfinished work", number + 1));
                }
            }
        }
    }
    report(broken);
}

#[test]
fn files_and_functions_are_short_and_open_with_an_essay() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > LINES_MAX {
            broken.push(format!("{path}: {} lines, at most {LINES_MAX}", lines.len()));
        }
        if !text.starts_with("//!") {
            broken.push(format!("{path}: does not open with //! and what it owns"));
        }
        for (start, name, length) in functions(&lines) {
            if length > FUNCTION_LINES_MAX {
                broken.push(format!(
                    "{path}:{start}: fn {name} has {length} lines, at most {FUNCTION_LINES_MAX}"
                ));
            }
        }
    }
    report(broken);
}

/// Line, name and length of every function; formatted code closes a function at its own indentation.
fn functions(lines: &[&str]) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let words: Vec<&str> = trimmed.split_whitespace().collect();
        let Some(at) = words.iter().position(|w| *w == "fn") else { continue };
        let known =
            ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern", "\"C\"", "default"];
        if !words[..at].iter().all(|w| known.contains(w)) {
            continue;
        }
        let name = words.get(at + 1).unwrap_or(&"").split(['(', '<']).next().unwrap_or("").to_owned();
        let indent = &line[..line.len() - trimmed.len()];
        let close = format!("{indent}}}");
        let end = lines[i..].iter().position(|l| *l == close);
        if let Some(end) = end.filter(|_| !line.trim_end().ends_with(';') && !line.trim_end().ends_with('}'))
        {
            found.push((i + 1, name, end + 1));
        }
    }
    found
}

#[test]
fn the_function_counter_counts() {
    let text = "impl A {\n    pub fn one(&self) {\n        1;\n    }\n    fn two();\n}\nasync fn three(\n    a: u8,\n) {\n    if a {\n    }\n}";
    let lines: Vec<&str> = text.lines().collect();
    let names: Vec<(String, usize)> = functions(&lines).into_iter().map(|(_, n, l)| (n, l)).collect();
    assert_eq!(names, [("one".to_owned(), 3), ("three".to_owned(), 6)]);
}

#[test]
fn nothing_names_this_workplace() {
    let root = root();
    let mut all = Vec::new();
    files(&root, &mut all);
    let mut broken = Vec::new();
    for path in all {
        let shown = path.strip_prefix(&root).expect("below the root").display().to_string();
        if shown == "Cargo.lock" || shown.ends_with("tidy.rs") || shown.ends_with("package-lock.json") {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            for name in ["crates.io", "/work/", "pypi.org", "npmjs.org", "deb.debian.org"] {
                if line.contains(name) {
                    broken.push(format!("{shown}:{}: names {name}", number + 1));
                }
            }
        }
    }
    report(broken);
}

#[test]
fn shipped_configurations_load_and_promised_documents_exist() {
    let root = root();
    let mut shipped = 0;
    for entry in fs::read_dir(root.join("config")).expect("config") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|e| e == "yml") {
            koios_config::load(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            shipped += 1;
        }
    }
    assert!(shipped >= 2, "config/ ships {shipped} files");
    for doc in [
        "README.md",
        "docs/ARCHITECTURE.md",
        "docs/life-of-a-sample.md",
        "docs/life-of-a-query.md",
        "docs/formats/wal.md",
        "docs/formats/block.md",
    ] {
        assert!(root.join(doc).exists(), "{doc} is missing");
    }
}
