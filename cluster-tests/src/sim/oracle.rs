//! What was promised and whether it was kept (cluster reference 6.1: P1 to P7).
//!
//! Samples describe themselves, an ack log says what must be there, and every answer is checked: nothing that was
//! never sent, no doubles, in order, and everything acknowledged before the question, unless the answer names the time
//! as incomplete. The oracle also looks inside: what a head forgets must lie in a visible block, and a block that
//! a node lets go must have been served by as many others.

use std::collections::BTreeMap;

use koios_cluster::SoleRange;
use koios_model::{BlockId, Slot};

use super::Counts;
use super::bucket::Bucket;
use super::faults::Planned;
use super::ingest::scheduled_after;
use super::node::{Common, value};
use super::types::{EPOCH, Key, Ms, Note, ReadAnswer, SCRAPED, Sample};

/// Clocks are no further apart than this when a loss is seen.
const CLOCKS_MS: Ms = 15_000;
/// From the moment of a scrape until it is on a slow disk.
const SCRAPE_MS: Ms = 3_000;
/// A fault is felt for this long after it ended.
const AFTER_MS: Ms = 40_000;
/// Nothing may stand still for longer with one fault at a time.
const STOP_MS: Ms = 30_000;

/// A sample that a writer sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// World time of the acknowledgement.
    acked: Option<Ms>,
    /// Another value was sent for the same time, and maybe acknowledged: when replicas were lost in between, those
    /// that are left may not know the first.
    conflict: bool,
    both: bool,
}

/// The judge of one world.
#[derive(Debug, Default)]
pub struct Oracle {
    sent: BTreeMap<u16, BTreeMap<Ms, Sent>>,
    scraped: BTreeMap<u16, BTreeMap<Ms, (u8, Ms)>>,
    covered: BTreeMap<Key, Vec<Ms>>,
    served: BTreeMap<BlockId, BTreeMap<usize, Ms>>,
    /// World times of the last acknowledgement and the last answer.
    pub last_ack: Ms,
    /// The last whole or partial answer.
    pub last_answer: Ms,
    excused: Ms,
    /// What processes said that they alone hold, whose disks were lost then; and when the last peer saw one back on another.
    lost_alone: Vec<SoleRange>,
    loss_seen: Ms,
    /// Zones by node.
    pub zones: Vec<String>,
    /// When answers may not be flagged.
    pub demand: Option<Demand>,
    /// The promises broken.
    pub violations: Vec<String>,
    /// What happened how often.
    pub counts: Counts,
}

/// When a question was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// World time.
    pub at: Ms,
    /// What the wall clock showed that was behind all others.
    pub slowest_clock: Ms,
}

/// World times between which a question may not be flagged for times from another one on, whoever but some is asked.
#[derive(Debug)]
pub struct Demand {
    /// When it is asked.
    pub asked: std::ops::Range<Ms>,
    /// For what.
    pub since: Ms,
    /// Nodes of which this is not demanded.
    pub but: Vec<usize>,
}

/// The value of a conflicting sample; its bits are smaller than those of any true value.
pub const CONFLICT: f64 = 1.0;

impl Oracle {
    /// A promise is broken.
    pub fn broken(&mut self, what: String) {
        self.violations.push(what);
    }

    /// A writer sends a sample for the first time. Tells whether its time was free.
    pub fn sends(&mut self, s: &Sample) -> bool {
        let times = self.sent.entry(s.key.0).or_default();
        if times.contains_key(&s.t) {
            return false;
        }
        times.insert(s.t, Sent { acked: None, conflict: false, both: false });
        true
    }

    /// An acknowledged sample to quarrel with, if there is one.
    pub fn conflict(&mut self, series: u16, before: Ms) -> Option<Sample> {
        let (t, sent) = self.sent.get_mut(&series)?.range_mut(..before).next_back()?;
        sent.acked?;
        sent.conflict = true;
        Some(Sample { key: (series, Slot(0)), t: *t, v: CONFLICT })
    }

    /// Samples were acknowledged.
    pub fn acked(&mut self, now: Ms, items: &[Sample], faults: &[Planned]) {
        self.last_ack = now;
        for s in items {
            if s.v == CONFLICT {
                let since = s.t - EPOCH - AFTER_MS;
                if !faults.iter().any(|f| f.at <= now && since <= f.ends) {
                    self.broken(format!(
                        "P4: a second value for series {} at {} was acknowledged",
                        s.key.0, s.t
                    ));
                }
                if let Some(sent) = self.sent.get_mut(&s.key.0).and_then(|c| c.get_mut(&s.t)) {
                    sent.both = true;
                }
                continue;
            }
            if s.t > EPOCH + now + 900_000 {
                self.broken(format!("P4: a sample from the future ({}) was acknowledged", s.t));
            }
            if let Some(sent) = self.sent.get_mut(&s.key.0).and_then(|c| c.get_mut(&s.t)) {
                sent.acked.get_or_insert(now);
                self.counts.acked += 1;
            }
        }
    }

    /// A node tells of its inside.
    pub fn noted(&mut self, now: Ms, node: usize, note: Note, bucket: &Bucket, nodes: usize) {
        match note {
            Note::Scraped(key, t, v) => {
                assert!(v == value(key.0, t), "BUG: a wrong scrape");
                let at = self.scraped.entry(key.0).or_default().entry(t).or_default();
                if at.0.count_ones() < 2 && at.0 & 1 << node == 0 {
                    *at = (at.0 | 1 << node, now);
                }
                self.covered.entry(key).or_default().push(t);
            }
            Note::Forgets(samples) => {
                if let Some(s) = samples.iter().find(|s| !bucket.holds(s)) {
                    self.broken(format!("P7: node {node} forgot {s:?}, which is in no block"));
                }
            }
            Note::Loads(id) => {
                self.served.entry(id).or_default().insert(node, Ms::MAX);
            }
            Note::SeesDiskLost => self.loss_seen = now,
            Note::Unloads(id) => {
                self.counts.unloads += 1;
                let by = self.served.entry(id).or_default();
                by.remove(&node);
                let others = by.values().filter(|until| **until >= now - 60_000).count();
                if others < 2.min(nodes - 1) {
                    self.broken(format!("P7: node {node} let block {id} go while {others} others served it"));
                }
            }
        }
    }

    /// A disk is lost, with these stretches that were nowhere else.
    pub fn disk_lost(&mut self, alone: &[SoleRange]) {
        self.lost_alone.extend(alone);
        self.lost_alone = SoleRange::merged(std::mem::take(&mut self.lost_alone));
    }

    /// P6: in the end nothing is missing but what a lost disk alone held. A stretch that was open ends when
    /// peers saw the node back on another disk: they had to count it as alive behind a cut until then.
    pub fn healed(&mut self, node: usize, a: &ReadAnswer) {
        let until = EPOCH + self.loss_seen + CLOCKS_MS;
        let alone = |g: &(Ms, Ms)| {
            self.lost_alone
                .iter()
                .any(|r| r.from <= g.0 && g.1 <= if r.until == i64::MAX { until } else { r.until })
        };
        if let Some(gap) = a.gaps.iter().find(|g| !alone(g)) {
            let lost = &self.lost_alone;
            self.broken(format!(
                "P6: after healing node {node} reports gap {gap:?}; lost {lost:?}, seen until {until}"
            ));
        }
    }

    /// A process ended.
    pub fn ended(&mut self, now: Ms, node: usize) {
        for by in self.served.values_mut() {
            if let Some(until) = by.get_mut(&node) {
                *until = (*until).min(now);
            }
        }
    }

    /// An answer to a question that was asked at `asked`.
    pub fn answer(
        &mut self,
        now: Ms,
        asked: Asked,
        node: usize,
        series: &[u16],
        range: (Ms, Ms),
        a: &ReadAnswer,
    ) {
        self.last_answer = now;
        self.counts.answers += 1;
        self.counts.gaps += u64::from(!a.gaps.is_empty());
        if let Some(d) = &self.demand
            && d.asked.contains(&asked.at)
            && !d.but.contains(&node)
            && let Some(gap) = a.gaps.iter().find(|g| g.1 >= EPOCH + d.since)
        {
            self.broken(format!("P2: node {node} flags {gap:?} for nothing, asked at {}", asked.at));
        }
        let flagged = |t: Ms| a.gaps.iter().any(|(from, until)| *from <= t && t <= *until);
        for (s, got) in series.iter().zip(&a.series) {
            if let Some(w) = got.windows(2).find(|w| w[0].0 >= w[1].0) {
                self.broken(format!("P2: series {s} has {} and then {} on node {node}", w[0].0, w[1].0));
            }
            for (t, v) in got {
                if *t < range.0 || *t > range.1 {
                    self.broken(format!("P2: series {s} has a sample at {t} outside of {range:?}"));
                }
                let bad = if *s >= SCRAPED {
                    *v != value(*s, *t)
                } else {
                    match self.sent.get(s).and_then(|c| c.get(t)) {
                        None => true,
                        Some(sent) if *v == CONFLICT => !sent.conflict || !(sent.both || flagged(*t)),
                        Some(_) => *v != value(*s, *t),
                    }
                };
                if bad {
                    self.broken(format!(
                        "P2: series {s} has {v} at {t} on node {node}, which was never sent"
                    ));
                }
            }
            let has = |t: Ms| got.binary_search_by_key(&t, |(t, _)| *t).is_ok();
            let missing = self.expected(*s, range, asked).find(|t| !has(*t) && !flagged(*t));
            if let Some(t) = missing {
                let gaps = &a.gaps;
                self.broken(format!(
                    "P1/P2: series {s} lacks its sample at {t} on node {node}, asked at {asked:?}, range {range:?}, gaps {gaps:?}"
                ));
            }
        }
    }

    fn is_in_one_zone(&self, nodes: u8) -> bool {
        let mut zones = (0..self.zones.len()).filter(|n| nodes >> n & 1 == 1).map(|n| &self.zones[n]);
        let first = zones.next();
        zones.all(|zone| Some(zone) == first)
    }

    /// Times that must be there: acknowledged, or scraped onto two disks, before `asked`.
    fn expected(&self, series: u16, range: (Ms, Ms), asked: Asked) -> Box<dyn Iterator<Item = Ms> + '_> {
        if series >= SCRAPED {
            let times = self.scraped.get(&series).into_iter().flat_map(move |c| c.range(range.0..=range.1));
            // Two in one zone, maybe cut off: the others scrape that moment when their clocks have come there.
            let known =
                move |t: Ms, nodes: u8| !self.is_in_one_zone(nodes) || t + SCRAPE_MS < asked.slowest_clock;
            let twice = times.filter(move |(t, (nodes, at))| {
                nodes.count_ones() >= 2 && *at < asked.at && known(**t, *nodes)
            });
            return Box::new(twice.map(|(t, _)| *t));
        }
        let times = self.sent.get(&series).into_iter().flat_map(move |c| c.range(range.0..=range.1));
        Box::new(times.filter(move |(_, s)| s.acked.is_some_and(|at| at < asked.at)).map(|(t, _)| *t))
    }

    /// P5: with at most one narrow fault at a time neither writing nor asking may stop for long.
    pub fn flows(&mut self, now: Ms, faults: &[Planned], nodes: usize) {
        let active = faults.iter().filter(|f| f.at <= now && now < f.ends + AFTER_MS);
        let (count, wide) = active.fold((0, false), |(n, w), f| (n + 1, w || f.fault.is_wide()));
        if count > 1 || wide || nodes < 3 || now < 30_000 {
            self.excused = now;
            return;
        }
        for (what, last) in [("write", self.last_ack), ("question", self.last_answer)] {
            if now - last.max(self.excused) > STOP_MS {
                self.broken(format!("P5: no {what} succeeded since {last}, it is {now}"));
            }
        }
    }

    /// In quiet times every slot of every target has every scheduled scrape.
    pub fn slots_are_whole(&mut self, common: &Common, faults: &[Planned], until: Ms, nodes: usize) {
        let quiet = |at: Ms| faults.iter().all(|f| at + 5_000 < f.at || f.ends + AFTER_MS + 20_000 < at);
        for (i, target) in common.targets.iter().enumerate() {
            for slot in 0..nodes.min(2) as u8 {
                let have = self.covered.get(&(SCRAPED + i as u16, Slot(slot))).cloned().unwrap_or_default();
                let mut due = scheduled_after(target.key, target.interval_ms, EPOCH + 45_000);
                while due < EPOCH + until {
                    if quiet(due - EPOCH) && !have.contains(&due) {
                        self.broken(format!(
                            "P5: target {i} slot {slot} was not scraped at {due} in quiet times"
                        ));
                        return;
                    }
                    due += target.interval_ms;
                }
            }
        }
    }
}
