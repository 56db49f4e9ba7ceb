//! Where targets come from: written in the configuration, or in JSON and YAML files that may change.
//!
//! Files are read on each notification of the operating system and at every refresh, whichever comes first;
//! a file that cannot be read or parsed keeps its last good list and says why. Reading is plain and blocking:
//! run it off the async threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use koios_config::{FileSd, ScrapeConfig, StaticGroup, expand_globs};
use koios_model::{Labels, LabelsBuilder};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::target::{ADDRESS, TargetGroup};

/// Bytes of one target file.
const FILE_MAX: u64 = 64 << 20;
/// Label that names the file a target came from.
const FILE_PATH: &str = "__meta_filepath";

/// The groups written in a job.
pub fn static_groups(job: &ScrapeConfig) -> Vec<TargetGroup> {
    let groups = job.static_configs.iter().enumerate();
    groups.map(|(i, g)| group(format!("static/{i}"), g, None)).collect()
}

/// A group with the label that says where it was found.
pub(crate) fn group(source: String, from: &StaticGroup, found: Option<(&str, &str)>) -> TargetGroup {
    let mut labels = LabelsBuilder::from_labels(&from.labels);
    if let Some((name, place)) = found {
        labels.set(name, place);
    }
    let targets = from.targets.iter().map(|t| Labels::from_pairs([(ADDRESS, t.as_str())])).collect();
    TargetGroup { source, labels: labels.build(), targets }
}

/// A file that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// Which.
    pub path: PathBuf,
    /// Why, with line and column where there is one.
    pub cause: String,
}

/// What the files say now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileUpdate {
    /// Groups of all files, the last good list where a file is broken.
    pub groups: Vec<TargetGroup>,
    /// Broken files.
    pub problems: Vec<FileProblem>,
    /// The groups differ from those of the last poll.
    pub changed: bool,
}

/// File discovery of one job.
#[derive(Debug, Default)]
pub struct FileDiscovery {
    patterns: Vec<PathBuf>,
    refresh_ms: i64,
    good: BTreeMap<PathBuf, Vec<TargetGroup>>,
    last: Option<Vec<TargetGroup>>,
}

impl FileDiscovery {
    /// Reads nothing yet.
    pub fn new(configs: &[FileSd]) -> Self {
        Self {
            patterns: configs.iter().flat_map(|c| c.files.clone()).collect(),
            refresh_ms: configs.iter().map(|c| c.refresh_ms).min().unwrap_or(i64::MAX),
            ..Self::default()
        }
    }

    /// How often to poll even when nothing was notified.
    pub fn refresh_ms(&self) -> i64 {
        self.refresh_ms
    }

    /// Reads all files.
    pub fn poll(&mut self) -> FileUpdate {
        let mut update = FileUpdate::default();
        let files = expand_globs(&self.patterns);
        let mut good = BTreeMap::new();
        for path in files {
            match read(&path) {
                Ok(groups) => {
                    good.insert(path, groups);
                }
                Err(cause) => {
                    // A file that is gone takes its targets with it; a broken one does not.
                    if let Some(groups) = self.good.remove(&path).filter(|_| path.exists()) {
                        good.insert(path.clone(), groups);
                    }
                    update.problems.push(FileProblem { path, cause });
                }
            }
        }
        self.good = good;
        update.groups = self.good.values().flatten().cloned().collect();
        update.changed = self.last.as_ref() != Some(&update.groups);
        self.last = Some(update.groups.clone());
        update
    }

    /// Calls `changed` whenever a watched directory changes, from a thread of its own, until the watch is
    /// dropped. Without a watch (the operating system may refuse) polling alone goes on.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn watch(&self, changed: impl Fn() + Send + 'static) -> Result<FileWatch, String> {
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|e| !e.kind.is_access()) {
                changed();
            }
        };
        let mut watcher = notify::recommended_watcher(on_event).map_err(|e| e.to_string())?;
        let mut dirs: Vec<&Path> = self.patterns.iter().filter_map(|p| p.parent()).collect();
        dirs.sort_unstable();
        dirs.dedup();
        for dir in dirs {
            let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            watcher.watch(dir, RecursiveMode::NonRecursive).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        Ok(FileWatch { _watcher: watcher })
    }
}

/// Watches directories for as long as it lives.
#[derive(Debug)]
pub struct FileWatch {
    _watcher: RecommendedWatcher,
}

fn read(path: &Path) -> Result<Vec<TargetGroup>, String> {
    let size = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > FILE_MAX {
        return Err(format!("{size} bytes, more than {FILE_MAX}"));
    }
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
    let groups = if json {
        parse_json(&text).map_err(|e| e.to_string())?
    } else {
        koios_config::parse_target_groups(&text, &path.to_string_lossy()).map_err(|e| e.summary())?
    };
    let place = path.to_string_lossy();
    let named = |(i, g): (usize, &StaticGroup)| group(format!("{place}:{i}"), g, Some((FILE_PATH, &place)));
    Ok(groups.iter().enumerate().map(named).collect())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonGroup {
    targets: Vec<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// Groups in the schema of target files, which servers of targets share.
pub(crate) fn parse_json(text: &str) -> Result<Vec<StaticGroup>, serde_json::Error> {
    let groups: Vec<JsonGroup> = serde_json::from_str(text)?;
    let convert = |g: JsonGroup| StaticGroup {
        targets: g.targets,
        labels: Labels::from_pairs(g.labels.unwrap_or_default()),
    };
    Ok(groups.into_iter().map(convert).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    fn discovery(dir: &Path) -> FileDiscovery {
        FileDiscovery::new(&[FileSd {
            files: vec![dir.join("*.json"), dir.join("b.yml")],
            refresh_ms: 60_000,
        }])
    }

    fn addresses(update: &FileUpdate) -> Vec<String> {
        update.groups.iter().flat_map(|g| &g.targets).map(|t| t.value(ADDRESS).to_owned()).collect()
    }

    #[test]
    fn reads_keeps_the_last_good_list_and_forgets_deleted_files() {
        let dir = tempfile::tempdir().unwrap();
        let (json, yaml) = (dir.path().join("a.json"), dir.path().join("b.yml"));
        fs::write(&json, "[{\"targets\":[\"a:1\"],\"labels\":{\"x\":\"1\"}},{\"targets\":[]}]").unwrap();
        fs::write(&yaml, "- targets: [b:1, b:2]\n  labels: {y: 2}\n").unwrap();
        let mut d = discovery(dir.path());
        let first = d.poll();
        assert_eq!(addresses(&first), ["a:1", "b:1", "b:2"]);
        assert!(first.changed && first.problems.is_empty());
        let group = &first.groups[0];
        assert_eq!((group.labels.value("x"), group.labels.value(FILE_PATH)), ("1", json.to_str().unwrap()));
        assert!(!d.poll().changed);
        fs::write(&yaml, "- targets: [b:1\n").unwrap();
        fs::write(&json, "[{\"target\":[]}]").unwrap();
        let broken = d.poll();
        assert_eq!(addresses(&broken), ["a:1", "b:1", "b:2"]);
        assert_eq!((broken.changed, broken.problems.len()), (false, 2));
        assert!(broken.problems[0].cause.contains("line 1 column 10"), "{:?}", broken.problems);
        assert!(broken.problems[1].cause.contains("b.yml:"), "{:?}", broken.problems);
        fs::remove_file(&json).unwrap();
        fs::remove_file(&yaml).unwrap();
        let gone = d.poll();
        assert!(gone.changed && gone.groups.is_empty());
    }

    #[test]
    fn a_change_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let d = discovery(dir.path());
        let (tx, rx) = mpsc::channel();
        let watch = d.watch(move || {
            let _ = tx.send(());
        });
        let _watch = watch.unwrap();
        fs::write(dir.path().join("a.json"), "[]").unwrap();
        rx.recv_timeout(Duration::from_secs(10)).expect("no notification");
    }
}
