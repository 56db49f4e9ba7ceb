//! Patterns that name files: `*` and `?` in the last path element, as `rule_files`, `scrape_config_files` and
//! `file_sd_configs` use them. At most `FILES_MAX` files per pattern.

use std::fs;
use std::path::{Path, PathBuf};

/// Files that one pattern may name.
const FILES_MAX: usize = 10_000;

/// Files that match patterns whose last element may hold `*` and `?`, sorted within each pattern.
pub fn expand_globs(patterns: &[PathBuf]) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for pattern in patterns {
        let name = pattern.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.contains(['*', '?']) {
            out.push(pattern.clone());
            continue;
        }
        let dir = pattern.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut found: Vec<PathBuf> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| glob_match(&name, &e.file_name().to_string_lossy()))
            .map(|e| e.path())
            .take(FILES_MAX)
            .collect();
        found.sort();
        out.extend(found);
    }
    out
}

/// Whether `name` matches a pattern of `*` (any run) and `?` (any one character).
pub fn glob_match(pattern: &str, name: &str) -> bool {
    let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut i, mut j) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while j < n.len() {
        if i < p.len() && (p[i] == '?' || (p[i] == n[j] && p[i] != '*')) {
            (i, j) = (i + 1, j + 1);
        } else if i < p.len() && p[i] == '*' {
            star = Some((i, j));
            i += 1;
        } else if let Some((at, from)) = star {
            (i, j) = (at + 1, from + 1);
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, want) in [
            ("*.yml", "a.yml", true),
            ("a?c*", "abcd", true),
            ("*.yml", "a.yaml", false),
            ("a*b*c", "aXbYc", true),
        ] {
            assert_eq!(glob_match(pattern, name), want, "{pattern} {name}");
        }
    }
}
