//! What happened to the cluster lately, as this node saw it.
//!
//! Owns a log of the last `EVENTS_MAX` events in memory, each with a number that only grows, and how events are made from
//! two views (`between`, pure). Readers take a copy, or wait until there is a newer one; at most `READERS_MAX` wait at a
//! time, so that open pages cannot use up a node. Refuses to keep anything over a restart: the logs of the process do.

use std::collections::VecDeque;
use std::sync::Arc;

use koios_model::Clock;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::view::{ClusterView, Member};

/// Most events kept.
pub const EVENTS_MAX: usize = 512;
/// Most readers that wait for news at a time.
pub const READERS_MAX: usize = 64;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node came, went or changed its state.
    Member,
    /// A node can or cannot be reached from here.
    Reach,
    /// Targets changed hands.
    Ownership,
    /// Data was lost, or a block damaged.
    Data,
    /// This node did or failed to do something of its own.
    Node,
}

impl Kind {
    /// Name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Member => "member",
            Kind::Reach => "reach",
            Kind::Ownership => "ownership",
            Kind::Data => "data",
            Kind::Node => "node",
        }
    }
}

/// Something that happened, before it has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Kind.
    pub kind: Kind,
    /// Node that it is about.
    pub node: String,
    /// What, in words.
    pub what: String,
    /// Why, as far as this node knows; may be empty.
    pub why: String,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows by one with every event of this process.
    pub seq: u64,
    /// Wall clock of the observer, milliseconds.
    pub at_ms: i64,
    /// What.
    pub news: News,
}

/// The log.
pub struct EventLog {
    clock: Arc<dyn Clock>,
    kept: Mutex<VecDeque<Event>>,
    newest: watch::Sender<u64>,
    readers: Arc<Semaphore>,
}

/// Waits for news; gives its place back when dropped.
pub struct Reader {
    log: Arc<EventLog>,
    newest: watch::Receiver<u64>,
    seen: u64,
    _place: OwnedSemaphorePermit,
}

/// What `newest` says when there will be no more.
const CLOSED: u64 = u64::MAX;

impl EventLog {
    /// An empty log.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let (newest, _) = watch::channel(0);
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        Arc::new(Self { clock, kept: Mutex::default(), newest, readers })
    }

    /// Adds an event.
    pub fn add(&self, news: News) {
        tracing::info!(kind = news.kind.as_str(), about = news.node, why = news.why, "{}", news.what);
        let mut kept = self.kept.lock();
        let seq = kept.back().map_or(1, |e| e.seq + 1);
        kept.push_back(Event { seq, at_ms: self.clock.now_ms(), news });
        if kept.len() > EVENTS_MAX {
            kept.pop_front();
        }
        drop(kept);
        self.newest.send_if_modified(|n| *n != CLOSED && std::mem::replace(n, seq) != seq);
    }

    /// Events after number `seq`, oldest first.
    pub fn since(&self, seq: u64) -> Vec<Event> {
        self.kept.lock().iter().filter(|e| e.seq > seq).cloned().collect()
    }

    /// Number of the last event; 0 when there was none.
    pub fn last(&self) -> u64 {
        self.kept.lock().back().map_or(0, |e| e.seq)
    }

    /// Lets all readers go and takes no more.
    pub fn close(&self) {
        self.newest.send_replace(CLOSED);
    }

    /// A reader of everything after number `seq`; `None` when there are `READERS_MAX` already or the log is closed.
    pub fn read_from(self: &Arc<Self>, seq: u64) -> Option<Reader> {
        let place = self.readers.clone().try_acquire_owned().ok()?;
        let newest = self.newest.subscribe();
        let open = *newest.borrow() != CLOSED;
        open.then(|| Reader { log: self.clone(), newest, seen: seq, _place: place })
    }
}

impl Reader {
    /// Waits for events that were not read yet, oldest first; `None` when there will be no more. Safe to drop and call
    /// again.
    pub async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            if *self.newest.borrow_and_update() == CLOSED {
                return None;
            }
            let new = self.log.since(self.seen);
            if let Some(last) = new.last() {
                self.seen = last.seq;
                return Some(new);
            }
            self.newest.changed().await.ok()?;
        }
    }
}

/// What happened between two views of one observer, in name order.
pub fn between(old: &ClusterView, new: &ClusterView) -> Vec<News> {
    let mut out = Vec::new();
    let mut names: Vec<&String> = old.members.keys().chain(new.members.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let member = |what: String, why: String| News { kind: Kind::Member, node: name.clone(), what, why };
        match (old.members.get(name), new.members.get(name)) {
            (None, Some(b)) => {
                out.push(member(format!("{name} is new and {}", b.shown_state()), place(b)));
            }
            (Some(a), None) => {
                let why = "it was silent for too long".to_owned();
                out.push(member(format!("{name} is forgotten, it was {}", a.shown_state()), why));
            }
            (Some(a), Some(b)) if a.generation != b.generation => {
                out.push(member(format!("{name} started again and is {}", b.shown_state()), place(b)));
            }
            (Some(a), Some(b)) => {
                let (before, after) = (a.shown_state(), b.shown_state());
                if before != after {
                    out.push(member(format!("{name} {before} → {after}"), reason(b).to_owned()));
                }
            }
            (None, None) => {}
        }
        let holes = |v: &ClusterView| v.members.get(name).map_or(0, |m| m.record.head.holes.len());
        if holes(new) > holes(old) {
            out.push(News {
                kind: Kind::Data,
                node: name.clone(),
                what: format!("{name} lost a part of what it had stored"),
                why: "its disk or a part of its log is gone; its replicas have the data".to_owned(),
            });
        }
    }
    out
}

fn place(m: &Member) -> String {
    format!("zone {}, version {}, {}", m.record.zone, m.record.version, m.record.http)
}

fn reason(m: &Member) -> &'static str {
    match m.shown_state() {
        "dead" => "the failure detector does not hear it any more",
        "left" => "it was stopped in order",
        "ready" => "it takes part fully",
        "draining" => "it hands over: it was told to stop",
        "leaving" => "it has handed over",
        "joining" => "its logs are read, it looks for its peers",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{NodeState, SoleRange};
    use crate::ownership::tests::member;
    use crate::view::Liveness;
    use koios_model::ManualClock;

    fn view(members: Vec<Member>) -> ClusterView {
        let members = members.into_iter().map(|m| (m.name.clone(), Arc::new(m))).collect();
        ClusterView { members, ..ClusterView::default() }
    }

    fn news(n: &str) -> News {
        News { kind: Kind::Node, node: n.into(), what: n.into(), why: String::new() }
    }

    #[test]
    fn changes_become_sentences() {
        let a = member("a", "z1", 1);
        let mut dead = a.clone();
        dead.liveness = Liveness::Dead { since: 1 };
        let mut left = dead.clone();
        left.record.state = NodeState::Leaving;
        let mut again = a.clone();
        again.generation += 1;
        again.record.head.holes = vec![SoleRange { from: 0, until: 1 }];
        let said = |x: Vec<Member>, y: Vec<Member>| -> Vec<String> {
            between(&view(x), &view(y)).into_iter().map(|n| n.what).collect()
        };
        assert_eq!(said(vec![], vec![a.clone()]), ["a is new and ready"]);
        assert_eq!(said(vec![a.clone()], vec![dead.clone()]), ["a ready → dead"]);
        assert_eq!(said(vec![dead.clone()], vec![left]), ["a dead → left"]);
        assert_eq!(said(vec![dead.clone()], vec![]), ["a is forgotten, it was dead"]);
        let back = said(vec![dead], vec![again.clone()]);
        assert_eq!(back, ["a started again and is ready", "a lost a part of what it had stored"]);
        assert!(said(vec![again.clone()], vec![again]).is_empty());
    }

    #[test]
    fn the_log_is_bounded_and_numbers_go_on() {
        let clock = ManualClock::at(5);
        let log = EventLog::new(clock);
        (0..EVENTS_MAX + 3).for_each(|i| log.add(news(&i.to_string())));
        let all = log.since(0);
        assert_eq!((all.len(), all[0].seq, log.last()), (EVENTS_MAX, 4, EVENTS_MAX as u64 + 3));
        assert_eq!(log.since(log.last() - 1).len(), 1);
        assert_eq!(all[0].at_ms, 5);
    }

    #[tokio::test]
    async fn readers_wait_have_a_bound_and_end() {
        let log = EventLog::new(ManualClock::at(0));
        log.add(news("one"));
        let mut reader = log.read_from(0).unwrap();
        assert_eq!(reader.next().await.unwrap()[0].news.what, "one");
        let adder = log.clone();
        let (got, ()) = tokio::join!(reader.next(), async { adder.add(news("two")) });
        assert_eq!(got.unwrap()[0].seq, 2);
        let more: Vec<Reader> = std::iter::from_fn(|| log.read_from(0)).collect();
        assert_eq!(more.len(), READERS_MAX - 1);
        drop(more);
        log.close();
        assert!(reader.next().await.is_none() && log.read_from(0).is_none());
        log.add(news("three"));
        assert!(reader.next().await.is_none(), "closed for good");
    }
}
