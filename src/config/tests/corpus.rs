//! The corpus of configurations in `config/`: every broken one gives place, cause and fix, every good one and
//! every shipped one loads.
//!
//! The first line of a broken file says what is expected of its first error:
//! `# expect: <line>:<column> <part of the cause> | <part of the fix>`.

use std::fs;
use std::path::{Path, PathBuf};

use koios_config::{ConfigErrors, load};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "yml")).collect();
    files.sort();
    files
}

/// Why the errors are not what the file expects.
fn check(text: &str, errors: &ConfigErrors) -> Result<(), String> {
    let first = &errors.0[0];
    let line = text.lines().next().unwrap_or_default();
    let expected = line.strip_prefix("# expect: ").ok_or("no `# expect:` line")?;
    let (place, words) = expected.split_once(' ').ok_or("no place")?;
    let (cause, fix) = words.split_once(" | ").ok_or("no ` | `")?;
    let got = format!("{}:{}", first.place.line, first.place.column);
    if got != place {
        return Err(format!("place {got}, expected {place}"));
    }
    if !first.cause.contains(cause) || !first.fix.contains(fix) || first.fix.is_empty() {
        return Err(format!("cause {:?}, fix {:?}", first.cause, first.fix));
    }
    // The frame shows the line and underlines the place.
    let shown = first.to_string();
    let caret =
        shown.lines().find(|l| l.trim_start_matches([' ', '|']).starts_with('^')).ok_or("no caret")?;
    let gutter = first.place.line.to_string().len() + 3;
    let at = caret.find('^').ok_or("no caret")?;
    if at + 1 != gutter + first.place.column as usize {
        return Err(format!("caret at {at} in\n{shown}"));
    }
    Ok(())
}

#[test]
fn every_broken_file_gives_place_cause_and_fix() {
    let files = files("bad");
    assert!(files.len() >= 60, "only {} cases", files.len());
    let mut wrong = Vec::new();
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        match load(path) {
            Ok(_) => wrong.push(format!("{name}: accepted")),
            Err(errors) => {
                if let Err(why) = check(&text, &errors) {
                    wrong.push(format!("{name}: {why}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), files.len(), wrong.join("\n"));
}

#[test]
fn every_good_and_every_shipped_file_loads() {
    let all: Vec<_> = files("good").into_iter().chain(files("")).collect();
    assert!(all.len() >= 6, "{all:?}");
    for path in all {
        let config = load(&path).unwrap_or_else(|e| panic!("{e}"));
        // What is shown is itself a configuration with the same meaning, but for secrets.
        let shown = config.redacted_yaml();
        let again =
            koios_config::parse(&shown, &path.to_string_lossy()).unwrap_or_else(|e| panic!("{e}\n{shown}"));
        assert_eq!(again.global, config.global, "{}", path.display());
        assert_eq!(again.koios, config.koios);
        assert_eq!(again.redacted_yaml(), shown);
        for (a, b) in again.scrape_configs.iter().zip(&config.scrape_configs) {
            assert_eq!(
                (&a.job_name, a.scrape_interval_ms, &a.relabel_configs),
                (&b.job_name, b.scrape_interval_ms, &b.relabel_configs)
            );
        }
    }
}
