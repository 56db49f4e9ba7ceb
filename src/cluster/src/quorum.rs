//! One pushed batch on its way to its replicas: who is asked, who answered, what the sender is told. Pure.
//!
//! Counted per series, never per request: two requests that each lost another series prove nothing about either.
//! A series is kept when as many distinct nodes, in as many distinct zones, stored it as its `Replicas` demand; an
//! exact duplicate counts as stored. It is refused when permanent refusals leave no way to that, whatever a
//! retry brings. Everything else is a failure that a retry may cure. A node that fails is replaced by a spare.
//! Answers may come late, twice, or after their node was given up: a copy is a copy.
//!
//! Bounds: work is linear in series × (replicas + spares); each node is asked at most once per series.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::replicas::{Replicas, next_spare};
use crate::view::Member;

/// What a node says of one sample set of one series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored<R> {
    /// In its log, as durable as the log's mode promises; or was there before, bit for bit.
    Yes,
    /// Never will be, and why.
    Refused(R),
    /// Not now.
    Failed,
}

/// One request to one node.
#[derive(Clone, Debug)]
pub struct Send {
    /// Who is asked.
    pub node: Arc<Member>,
    /// Which series of the batch, by position, ascending.
    pub series: Vec<u32>,
}

/// What the sender of the batch is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<R> {
    /// Series that are kept.
    pub stored: usize,
    /// Series that never will be, by position, with the first reason heard.
    pub refused: Vec<(u32, R)>,
    /// Series that a retry may save, by position.
    pub unavailable: Vec<u32>,
}

impl<R> Verdict<R> {
    /// Success: everything is kept.
    pub fn is_stored(&self) -> bool {
        self.refused.is_empty() && self.unavailable.is_empty()
    }

    /// The sender should send the same batch again (5xx); only without this do refusals make it a 4xx.
    pub fn is_retryable(&self) -> bool {
        !self.unavailable.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Stored,
    Refused,
    Unavailable,
}

#[derive(Debug)]
struct Series<R> {
    replicas: Replicas,
    pending: Vec<Arc<Member>>,
    stored: Vec<Arc<Member>>,
    failed: Vec<Arc<Member>>,
    refused: Vec<(Arc<Member>, R)>,
    fate: Fate,
}

/// The state of one batch.
#[derive(Debug)]
pub struct Quorum<R> {
    series: Vec<Series<R>>,
    open: usize,
}

impl<R: Clone> Quorum<R> {
    /// A batch whose series are placed as given, and the first requests. A series without a place (`Err`) is
    /// unavailable from the start; the others are sent all the same, so that a retry finds them stored.
    pub fn new<E>(placed: Vec<Result<Replicas, E>>) -> (Self, Vec<Send>) {
        let mut out = Outbox::default();
        let mut series = Vec::with_capacity(placed.len());
        for (at, replicas) in placed.into_iter().enumerate() {
            let fate = if replicas.is_ok() { Fate::Open } else { Fate::Unavailable };
            let none = Replicas { nodes: Vec::new(), spares: Vec::new(), quorum: 1, zones: 1 };
            let replicas = replicas.unwrap_or(none);
            replicas.nodes.iter().for_each(|m| out.add(m, at));
            let pending = replicas.nodes.clone();
            let (stored, failed, refused) = (Vec::new(), Vec::new(), Vec::new());
            series.push(Series { replicas, pending, stored, failed, refused, fate });
        }
        let open = series.iter().filter(|s| s.fate == Fate::Open).count();
        (Self { series, open }, out.sends())
    }

    /// A node answered for some series, by position. Positions that do not exist and nodes that were not asked
    /// are ignored. Gives requests to spares.
    pub fn replied(&mut self, node: &str, results: &[(u32, Stored<R>)]) -> Vec<Send> {
        let mut out = Outbox::default();
        for (at, result) in results {
            self.one(node, *at as usize, result, &mut out);
        }
        out.sends()
    }

    /// A node did not answer in time or cannot be reached. Gives requests to spares.
    pub fn lost(&mut self, node: &str) -> Vec<Send> {
        let mut out = Outbox::default();
        for at in 0..self.series.len() {
            self.one(node, at, &Stored::Failed, &mut out);
        }
        out.sends()
    }

    /// What the sender is told, once every series is decided.
    pub fn verdict(&self) -> Option<Verdict<R>> {
        if self.open > 0 {
            return None;
        }
        let of = |fate: Fate| {
            let list = self.series.iter().enumerate();
            list.filter(move |(_, s)| s.fate == fate).map(|(at, s)| (at as u32, s))
        };
        Some(Verdict {
            stored: of(Fate::Stored).count(),
            refused: of(Fate::Refused)
                .filter_map(|(at, s)| s.refused.first().map(|(_, why)| (at, why.clone())))
                .collect(),
            unavailable: of(Fate::Unavailable).map(|(at, _)| at).collect(),
        })
    }

    /// Nodes that still owe an answer for an undecided series.
    pub fn awaited(&self) -> Vec<Arc<Member>> {
        let open = self.series.iter().filter(|s| s.fate == Fate::Open);
        let nodes: BTreeMap<&str, &Arc<Member>> =
            open.flat_map(|s| &s.pending).map(|m| (m.name.as_str(), m)).collect();
        nodes.into_values().cloned().collect()
    }

    fn one(&mut self, node: &str, at: usize, result: &Stored<R>, out: &mut Outbox) {
        let Some(s) = self.series.get_mut(at) else { return };
        if s.fate != Fate::Open {
            return;
        }
        let was_failed = s.failed.iter().position(|m| m.name == node);
        let member = match (s.pending.iter().position(|m| m.name == node), was_failed, result) {
            (Some(i), _, _) => s.pending.remove(i),
            // Given up already, and it stored or refused all the same.
            (None, Some(i), Stored::Yes | Stored::Refused(_)) => s.failed.remove(i),
            _ => return,
        };
        match result {
            Stored::Yes => s.stored.push(member),
            Stored::Refused(why) => s.refused.push((member, why.clone())),
            Stored::Failed => {
                let zone = member.record.zone.clone();
                s.failed.push(member);
                let held: Vec<Arc<Member>> = s.stored.iter().chain(&s.pending).cloned().collect();
                if let Some(spare) = next_spare(&mut s.replicas.spares, &zone, &held) {
                    out.add(&spare, at);
                    s.pending.push(spare);
                }
            }
        }
        s.fate = s.decide();
        self.open -= usize::from(s.fate != Fate::Open);
    }
}

impl<R> Series<R> {
    fn decide(&self) -> Fate {
        let r = &self.replicas;
        if r.satisfied(self.stored.iter()) {
            return Fate::Stored;
        }
        let hopeful = self.stored.iter().chain(&self.pending).chain(&self.failed);
        if !self.refused.is_empty() && !r.satisfied(hopeful) {
            return Fate::Refused;
        }
        // Not before all have spoken: one more refusal may spare the sender its retries, in whatever order they come.
        if self.pending.is_empty() { Fate::Unavailable } else { Fate::Open }
    }
}

/// Requests by node.
#[derive(Default)]
struct Outbox(BTreeMap<String, Send>);

impl Outbox {
    fn add(&mut self, node: &Arc<Member>, at: usize) {
        let send = self.0.entry(node.name.clone());
        send.or_insert_with(|| Send { node: node.clone(), series: Vec::new() }).series.push(at as u32);
    }

    fn sends(self) -> Vec<Send> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests;
