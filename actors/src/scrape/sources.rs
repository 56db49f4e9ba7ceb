//! Sources: the servers that tell this node's jobs their targets, and what is believed of each.
//!
//! Shared by discovery, which looks once a second and takes the lists, and by the reports to peers, who take theirs from
//! here when this node leads (`koios_cluster::discovery` says who asks whom). Jobs with the same source share it. A list
//! that changed is written to disk at once, so that a restart while the source is away costs no target. Questions run
//! on the network runtime, one at a time for each source.
//!
//! Bound: a list is at most `koios_scrape::http_sd::ANSWER_MAX`; what a peer tells, one message.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use koios_cluster::discovery::{Course, Turn};
use koios_cluster::identity::replace_file;
use koios_cluster::{ClusterView, Member};
use koios_config::{HttpSd, StaticGroup};
use koios_model::Clock;
use koios_scrape::http_sd::parse;
use koios_scrape::{Belief, HttpSource, Taken, TargetGroup, source_key};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Asks a node for a report of a kind.
pub type AskNode =
    Arc<dyn Fn(Arc<Member>, String) -> BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync>;

/// The word of the report that followers ask for.
pub const REPORT: &str = "source";
/// Longest wait for a leader.
pub const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// What sources work with.
pub struct SourcesSetup {
    /// Who is there, as seen from here now.
    pub views: watch::Receiver<Arc<ClusterView>>,
    /// Asks a peer.
    pub ask: AskNode,
    /// Where lists are kept.
    pub dir: PathBuf,
    /// Where questions run.
    pub net: Handle,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

struct Entry {
    source: Arc<HttpSource>,
    course: Course,
    belief: Belief,
    targets: Arc<Vec<TargetGroup>>,
    is_asking: bool,
    counts: Counts,
}

/// What happened with a source since it was configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions to the source itself.
    pub asked: u64,
    /// Those without a list for an answer.
    pub failed: u64,
    /// Empty lists that were not believed.
    pub doubted: u64,
    /// Why the last question failed; empty when it did not.
    pub error: String,
}

/// How it stands with a source.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Where it is, without a password.
    pub url: String,
    /// Whether this node asks it for its zone.
    pub leads: bool,
    /// The node whose list is taken otherwise.
    pub followed: Option<String>,
    /// Targets believed.
    pub targets: usize,
    /// How long ago the source was heard, seconds.
    pub heard_s: Option<u64>,
    /// What happened.
    pub counts: Counts,
}

/// See the module.
pub struct Sources {
    setup: SourcesSetup,
    all: Mutex<BTreeMap<u64, Entry>>,
}

impl Sources {
    /// None yet.
    pub fn new(setup: SourcesSetup) -> Arc<Self> {
        Arc::new(Self { setup, all: Mutex::default() })
    }

    /// Keeps exactly these; what is new starts with what the disk remembers.
    pub fn keep<'a>(&self, configs: impl Iterator<Item = &'a HttpSd>) {
        let wanted: BTreeMap<u64, &HttpSd> = configs.map(|c| (source_key(c), c)).collect();
        let mut all = self.all.lock();
        all.retain(|key, _| wanted.contains_key(key));
        for (key, config) in &wanted {
            all.entry(*key).or_insert_with(|| self.open(*key, config));
        }
        tidy(&self.setup.dir, &wanted);
    }

    fn open(&self, key: u64, config: &HttpSd) -> Entry {
        let now_ns = self.setup.clock.mono_ns();
        let source = Arc::new(HttpSource::new(config.clone(), self.setup.clock.clone()));
        let remembered = std::fs::read_to_string(path(&self.setup.dir, key)).ok();
        let read = remembered.map(|text| parse(&text).map_err(|e| (e, config.url.to_string())));
        let belief = match read {
            Some(Ok(groups)) => Belief::remembered(groups, ms(now_ns)),
            Some(Err((error, url))) => {
                tracing::warn!(url, error, "the remembered list of targets is damaged and starts empty");
                Belief::default()
            }
            None => Belief::default(),
        };
        let targets = Arc::new(source.targets(belief.groups()));
        let course = Course::new(key, config.refresh_ms, now_ns);
        Entry { source, course, belief, targets, is_asking: false, counts: Counts::default() }
    }

    /// What a source told.
    pub fn targets(&self, config: &HttpSd) -> Arc<Vec<TargetGroup>> {
        self.all.lock().get(&source_key(config)).map(|e| e.targets.clone()).unwrap_or_default()
    }

    /// Asks where it is time; to be called once a second.
    pub fn look(self: &Arc<Self>) {
        let view = self.setup.views.borrow().clone();
        let now_ns = self.setup.clock.mono_ns();
        for (&key, entry) in self.all.lock().iter_mut().filter(|(_, e)| !e.is_asking) {
            let me = self.clone();
            match entry.course.turn(now_ns, &view) {
                Turn::Rest => continue,
                Turn::AskSource => {
                    let source = entry.source.clone();
                    self.setup.net.spawn(async move { me.hear_source(key, source.ask().await) });
                }
                Turn::AskNode(member) => {
                    entry.course.asked_node(now_ns);
                    let etag = format!("{:016x}", entry.belief.etag());
                    let kind = json!({ "key": format!("{key:016x}"), "etag": etag });
                    let answer = (self.setup.ask)(member, format!("{REPORT} {kind}"));
                    self.setup.net.spawn(async move { me.hear_node(key, answer.await) });
                }
            }
            entry.is_asking = true;
        }
    }

    fn hear_source(&self, key: u64, answer: Result<Vec<StaticGroup>, String>) {
        let now_ns = self.setup.clock.mono_ns();
        let mut all = self.all.lock();
        let Some(entry) = all.get_mut(&key) else { return };
        entry.is_asking = false;
        entry.counts.asked += 1;
        entry.course.asked_source(now_ns, answer.is_ok());
        let url = entry.source.config().url.to_string();
        match answer {
            Ok(groups) => {
                entry.counts.error.clear();
                let taken = entry.belief.take(groups, ms(now_ns));
                if taken == Taken::Doubted {
                    entry.counts.doubted += 1;
                    tracing::warn!(
                        url,
                        "an empty list of targets is not believed yet; the last targets stay"
                    );
                }
                self.settle(key, entry, taken);
            }
            Err(error) => {
                tracing::warn!(url, error, "the source of targets was asked in vain; its last targets stay");
                entry.counts.failed += 1;
                entry.counts.error = error;
            }
        }
    }

    fn hear_node(&self, key: u64, answer: Result<Vec<u8>, String>) {
        let now_ns = self.setup.clock.mono_ns();
        let mut all = self.all.lock();
        let Some(entry) = all.get_mut(&key) else { return };
        entry.is_asking = false;
        let told = answer.and_then(|body| {
            let told: Value = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
            let groups = told["list"].as_str().map(parse).transpose()?;
            Ok((told, groups))
        });
        match told {
            Ok((told, groups)) => {
                let ns = |field: &str| told[field].as_u64().map(|ms| ms.saturating_mul(1_000_000));
                let leads = told["leads"] == true;
                let is_fresh = entry.course.answered(now_ns, leads, ns("tried_ms"), ns("heard_ms"));
                match groups {
                    Some(groups) if is_fresh => {
                        let taken = entry.belief.follow(groups, ms(now_ns));
                        self.settle(key, entry, taken);
                    }
                    None if told["same"] == true => entry.belief.confirm(ms(now_ns)),
                    _ => {}
                }
            }
            Err(error) => tracing::debug!(error, "the node that leads discovery does not answer"),
        }
    }

    fn settle(&self, key: u64, entry: &mut Entry, taken: Taken) {
        if taken != Taken::New {
            return;
        }
        entry.targets = Arc::new(entry.source.targets(entry.belief.groups()));
        let (path, text) = (path(&self.setup.dir, key), entry.belief.text().clone());
        // Off the threads that serve the network, and in the order in which lists came: one question at a time.
        self.setup.net.spawn_blocking(move || {
            let kept = std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))
                .map_err(|e| e.to_string())
                .and_then(|()| replace_file(&path, &text).map_err(|e| e.to_string()));
            if let Err(error) = kept {
                tracing::warn!(path = %path.display(), error, "the list of targets is not kept on disk");
            }
        });
    }

    /// What a peer that follows is told: whether this node leads, how fresh its list is, and the list unless the peer has
    /// it. `None` when the source is not configured here.
    pub fn report(&self, ask: &Value) -> Option<Value> {
        let hex = |field: &str| u64::from_str_radix(ask[field].as_str()?, 16).ok();
        let (key, etag) = (hex("key")?, hex("etag")?);
        let all = self.all.lock();
        let entry = all.get(&key)?;
        let (leads, tried, heard) = entry.course.standing(self.setup.clock.mono_ns());
        let mut told = json!({
            "leads": leads,
            "tried_ms": tried.map(|ns| ns / 1_000_000),
            "heard_ms": heard.map(|ns| ns / 1_000_000),
            "same": entry.belief.etag() == etag,
        });
        if entry.belief.etag() != etag && entry.belief.etag() != 0 {
            told["list"] = Value::from(&**entry.belief.text());
        }
        Some(told)
    }

    /// How it stands with each source.
    pub fn standings(&self) -> Vec<Standing> {
        let now_ns = self.setup.clock.mono_ns();
        let standing = |e: &Entry| {
            let (leads, _, heard) = e.course.standing(now_ns);
            Standing {
                url: e.source.config().url.to_string(),
                leads,
                followed: e.course.followed().map(str::to_owned),
                targets: e.belief.groups().iter().map(|g| g.targets.len()).sum(),
                heard_s: heard.map(|ns| ns / 1_000_000_000),
                counts: e.counts.clone(),
            }
        };
        self.all.lock().values().map(standing).collect()
    }
}

fn ms(ns: u64) -> i64 {
    (ns / 1_000_000) as i64
}

fn path(dir: &Path, key: u64) -> PathBuf {
    dir.join(format!("{key:016x}.json"))
}

/// Removes the lists of sources that are no more.
fn tidy(dir: &Path, wanted: &BTreeMap<u64, &HttpSd>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for file in entries.filter_map(|e| e.ok().map(|e| e.path())) {
        let key = file.file_stem().and_then(|s| u64::from_str_radix(s.to_str()?, 16).ok());
        if key.is_some_and(|key| !wanted.contains_key(&key)) {
            let _ = std::fs::remove_file(&file);
        }
    }
}
