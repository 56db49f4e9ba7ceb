//! The board: what `/api/v1/targets` shows of this node.
//!
//! Pools post their lists, scrapers their last outcome; readers render JSON without asking any actor.

use std::collections::BTreeMap;
use std::sync::Arc;

use koios_model::Slot;
use koios_scrape::{DroppedTarget, TargetStatus};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// A target's last outcome, shared with its scraper.
pub type SharedStatus = Arc<Mutex<TargetStatus>>;

/// What a pool posts.
#[derive(Clone, Default)]
pub struct JobBoard {
    /// Targets scraped here, with their slot.
    pub active: Vec<(Slot, SharedStatus)>,
    /// Targets that relabelling dropped, at most as many as the job keeps.
    pub dropped: Vec<DroppedTarget>,
    /// How many were dropped.
    pub dropped_count: usize,
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

    /// `{"active":[…],"dropped":[…],"droppedCounts":{…}}`.
    pub fn to_json(&self) -> String {
        let jobs = self.jobs.lock().clone();
        let (mut active, mut dropped, mut counts) = (Vec::new(), Vec::new(), Map::new());
        for (name, job) in jobs {
            for (slot, status) in job.active {
                let mut entry = serde_json::to_value(&*status.lock()).unwrap_or(Value::Null);
                if let Some(fields) = entry.as_object_mut() {
                    fields.insert("slot".into(), Value::from(slot.0));
                }
                active.push(entry);
            }
            dropped.extend(job.dropped.iter().filter_map(|d| serde_json::to_value(d).ok()));
            counts.insert(name, Value::from(job.dropped_count));
        }
        json!({ "active": active, "dropped": dropped, "droppedCounts": counts }).to_string()
    }
}
