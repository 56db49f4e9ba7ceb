//! The board: what `/api/v1/targets` shows of this node.
//!
//! Pools post their lists, scrapers their last outcome; readers render JSON without asking any actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use koios_model::metadata::MetricMetadata;
use koios_model::timestamp::rfc3339;
use koios_model::{Labels, Matcher, Slot};
use koios_scrape::ingest::Family;
use koios_scrape::{DroppedTarget, SharedFamilies, TargetStatus};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// A target's last outcome, shared with its scraper.
pub type SharedStatus = Arc<Mutex<TargetStatus>>;

/// A target that is scraped here.
#[derive(Clone)]
pub struct BoardTarget {
    /// Hash of the target, by which its owners are found.
    pub key: u64,
    /// The replica it is scraped for.
    pub slot: Slot,
    /// Its last outcome.
    pub status: SharedStatus,
    /// What it says about its families.
    pub families: SharedFamilies,
}

/// One line of `/api/v1/targets/metadata`.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetMetadata {
    /// Labels of the target.
    pub target: Labels,
    /// Family.
    pub metric: String,
    /// What it says.
    pub metadata: MetricMetadata,
}

/// What a pool posts.
#[derive(Clone, Default)]
pub struct JobBoard {
    /// Targets scraped here.
    pub active: Vec<BoardTarget>,
    /// Targets that relabelling dropped, at most as many as the job keeps.
    pub dropped: Vec<DroppedTarget>,
    /// How many were dropped.
    pub dropped_count: usize,
    /// Slots that are another node's now and are scraped here until that node has begun.
    pub lingering: usize,
}

/// What is said about each family.
pub type Sayings = BTreeMap<String, BTreeSet<MetricMetadata>>;

fn words(f: &Family) -> MetricMetadata {
    MetricMetadata { kind: f.kind, help: f.help.clone(), unit: f.unit.clone() }
}

/// All jobs.
#[derive(Default)]
pub struct TargetBoard {
    jobs: Mutex<BTreeMap<String, JobBoard>>,
}

impl TargetBoard {
    /// Posts a job's lists.
    pub fn post(&self, job: &str, board: JobBoard) {
        self.jobs.lock().insert(job.to_owned(), board);
    }

    /// A job is gone.
    pub fn remove(&self, job: &str) {
        self.jobs.lock().remove(job);
    }

    /// Targets scraped here.
    pub fn active(&self) -> usize {
        self.jobs.lock().values().map(|j| j.active.len()).sum()
    }

    /// Slots that are scraped here only until their new owner has begun.
    pub fn lingering(&self) -> usize {
        self.jobs.lock().values().map(|j| j.lingering).sum()
    }

    /// What all targets say, by family, each different saying once, sorted: of one family or of all, at most
    /// `limit` families and `per_metric` sayings of each.
    pub fn metadata(&self, metric: Option<&str>, limit: usize, per_metric: usize) -> Sayings {
        let mut out = Sayings::new();
        for target in self.targets() {
            let families = target.families.lock();
            let mut say = |name: &str, family: &Family| {
                if let Some(said) = out.get_mut(name) {
                    if said.len() < per_metric {
                        said.insert(words(family));
                    }
                } else if out.len() < limit && per_metric > 0 {
                    out.insert(name.to_owned(), [words(family)].into());
                }
            };
            match metric {
                Some(name) => families.get(name).into_iter().for_each(|f| say(name, f)),
                None => families.iter().for_each(|(name, f)| say(name, f)),
            }
        }
        out
    }

    /// What single targets say, of one family or of all, of the targets whose labels satisfy all matchers; at
    /// most `limit` lines.
    pub fn target_metadata(
        &self,
        matchers: &[Matcher],
        metric: Option<&str>,
        limit: usize,
    ) -> Vec<TargetMetadata> {
        let mut out = Vec::new();
        for target in self.targets() {
            let labels = target.status.lock().labels.clone();
            if !matchers.iter().all(|m| m.matches(labels.value(&m.name))) {
                continue;
            }
            let families = target.families.lock();
            let mut said: Vec<(&str, &Family)> = match metric {
                Some(name) => families.get(name).map(|f| (name, f)).into_iter().collect(),
                None => families.iter().collect(),
            };
            said.sort_unstable_by_key(|(name, _)| *name);
            out.extend(said.into_iter().take(limit - out.len()).map(|(name, f)| TargetMetadata {
                target: labels.clone(),
                metric: name.to_owned(),
                metadata: words(f),
            }));
        }
        out
    }

    fn targets(&self) -> Vec<BoardTarget> {
        self.jobs.lock().values().flat_map(|j| j.active.iter().cloned()).collect()
    }

    /// Slots scraped here, each with its target: `[{"key","slot","job","url","labels","health","lastError"}]`. Keys are
    /// hexadecimal. A slot of which `taken` says from whom it was taken, and until when (milliseconds), has `takenFrom` and
    /// `takenUntil`, too.
    pub fn slots_json(&self, taken: impl Fn(u64, Slot) -> Option<(String, i64)>) -> String {
        let line = |t: BoardTarget| {
            let s = t.status.lock();
            let labels: Map<String, Value> =
                s.labels.iter().map(|(n, v)| (n.to_owned(), Value::from(v))).collect();
            let mut entry = json!({
                "key": format!("{:016x}", t.key),
                "slot": t.slot.0,
                "job": s.scrape_pool,
                "url": s.scrape_url,
                "labels": labels,
                "health": s.health,
                "lastError": s.last_error,
            });
            if let Some((from, until)) = taken(t.key, t.slot) {
                entry["takenFrom"] = Value::from(from);
                entry["takenUntil"] = Value::from(rfc3339(until));
            }
            entry
        };
        self.targets().into_iter().map(line).collect::<Value>().to_string()
    }

    /// How many targets are scraped here for each slot number, and which job has how many slots here.
    pub fn counts(&self) -> (BTreeMap<u8, usize>, BTreeMap<String, usize>) {
        let (mut slots, mut jobs) = (BTreeMap::new(), BTreeMap::new());
        for (name, job) in self.jobs.lock().iter() {
            job.active.iter().for_each(|t| *slots.entry(t.slot.0).or_default() += 1);
            jobs.insert(name.clone(), job.active.len());
        }
        (slots, jobs)
    }

    /// `{"active":[…],"dropped":[…],"droppedCounts":{…}}`.
    pub fn to_json(&self) -> String {
        let jobs = self.jobs.lock().clone();
        let (mut active, mut dropped, mut counts) = (Vec::new(), Vec::new(), Map::new());
        for (name, job) in jobs {
            for target in job.active {
                let mut entry = serde_json::to_value(&*target.status.lock()).unwrap_or(Value::Null);
                if let Some(fields) = entry.as_object_mut() {
                    fields.insert("slot".into(), Value::from(target.slot.0));
                }
                active.push(entry);
            }
            dropped.extend(job.dropped.iter().filter_map(|d| serde_json::to_value(d).ok()));
            counts.insert(name, Value::from(job.dropped_count));
        }
        json!({ "active": active, "dropped": dropped, "droppedCounts": counts }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_scrape::parse::Format;
    use koios_scrape::{BodyView, IngestSettings, ScrapeLoopState};

    fn target(job: &str, body: &str) -> BoardTarget {
        let config = koios_config::ScrapeConfig::named(job, &koios_config::Config::default().global);
        let group = [("__address__", "h:1"), ("job", job)];
        let labels = Labels::from_pairs(group);
        let made = koios_scrape::populate_labels(&labels, &Labels::empty(), &config).unwrap().unwrap();
        let mut state = ScrapeLoopState::new(made.labels.clone(), IngestSettings::of(&config));
        let view = BodyView { bytes: body.as_bytes(), format: Format::Text };
        assert!(state.ingest(1, Ok(view), 0.0, &mut Vec::new()).up);
        let status = Arc::new(Mutex::new(TargetStatus::new(&made, "h")));
        BoardTarget { key: made.key, slot: Slot(0), status, families: state.families().clone() }
    }

    #[test]
    fn sayings_are_joined_and_bounded() {
        let board = TargetBoard::default();
        let said = ["# HELP a one\n# HELP b x\n", "# HELP a two\n", "# HELP a one\n# TYPE c gauge\n"];
        for (i, body) in said.iter().enumerate() {
            let job = format!("j{i}");
            board.post(&job, JobBoard { active: vec![target(&job, body)], ..JobBoard::default() });
        }
        let all = board.metadata(None, 10, 10);
        assert_eq!(
            all.iter().map(|(n, s)| (n.as_str(), s.len())).collect::<Vec<_>>(),
            [("a", 2), ("b", 1), ("c", 1)]
        );
        assert_eq!(board.metadata(Some("a"), 10, 1)["a"].len(), 1);
        assert_eq!((board.metadata(None, 2, 9).len(), board.metadata(Some("no"), 9, 9).len()), (2, 0));
        let one = board.target_metadata(&[Matcher::equal("job", "j0")], None, 9);
        assert_eq!(one.iter().map(|t| t.metric.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(board.target_metadata(&[], Some("a"), 2).len(), 2);
        assert_eq!(board.target_metadata(&[], None, 0).len(), 0);
        let slots: Value =
            serde_json::from_str(&board.slots_json(|key, _| (key == 1).then(|| ("a".to_owned(), 0))))
                .unwrap();
        assert_eq!((slots.as_array().unwrap().len(), &slots[0]["labels"]["job"]), (3, &Value::from("j0")));
        assert_eq!((board.counts().0[&0], board.counts().1["j1"]), (3, 1));
        board.remove("j0");
        assert!(!board.metadata(None, 9, 9).contains_key("b"));
    }
}
