//! Who asks a source of targets, and whom the others ask instead. Pure.
//!
//! Of the ready nodes of a zone that scrape, the best by rendezvous over the source's key leads: it asks the source once
//! per refresh. The others ask the leader, more often, because an unchanged list costs nothing there. Who does not get
//! through to the leader for a refresh and `SLACK_NS` asks the source itself; who has never heard anything, after `SLACK_NS`. While the leader gets through to nothing
//! either, the others try one after another, by rank, so that a source in trouble is not asked by all at once.
//!
//! The view is a hint: two leaders for a moment ask twice, none for a moment asks later. Nothing here drops a target.

use std::sync::Arc;

use crate::ownership::ranked;
use crate::view::{ClusterView, Member};

/// What a follower allows beyond a refresh, nanoseconds.
pub const SLACK_NS: u64 = 10_000_000_000;
/// How often a follower asks the leader, nanoseconds: a part of the refresh within these bounds.
const FOLLOW_PART: u64 = 4;
const FOLLOW_NS_MIN: u64 = 1_000_000_000;
const FOLLOW_NS_MAX: u64 = 15_000_000_000;
/// Refreshes between one rank's patience with a silent source and the next one's.
const RANK_REFRESHES: u64 = 2;

/// The ready nodes of the observer's zone that scrape, the leader for `key` first.
pub fn ranks(view: &ClusterView, key: u64) -> Vec<Arc<Member>> {
    let Some(zone) = view.own().map(|m| m.record.zone.clone()) else { return Vec::new() };
    let mut candidates = view.ready("scrape");
    candidates.retain(|m| m.record.zone == zone);
    ranked(&candidates, key)
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Rest,
    /// Ask the source.
    AskSource,
    /// Ask this node, which should lead.
    AskNode(Arc<Member>),
}

/// Where one node stands with one source.
#[derive(Clone, Debug)]
pub struct Course {
    key: u64,
    refresh_ns: u64,
    leads: bool,
    /// The leader that is followed.
    followed: Option<String>,
    /// When it last answered as a leader, or when it was first followed.
    reached_ns: u64,
    /// It was asked, and has not answered since.
    is_open: bool,
    polled_ns: Option<u64>,
    /// When somebody known asked the source last, and when it last answered well; the latter, or the start.
    tried_ns: Option<u64>,
    heard_ns: Option<u64>,
    since_ns: u64,
}

impl Course {
    /// Nothing is known at `now_ns`.
    pub fn new(key: u64, refresh_ms: i64, now_ns: u64) -> Self {
        Self {
            key,
            refresh_ns: refresh_ms.max(1_000) as u64 * 1_000_000,
            leads: false,
            followed: None,
            reached_ns: now_ns,
            is_open: false,
            polled_ns: None,
            tried_ns: None,
            heard_ns: None,
            since_ns: now_ns,
        }
    }

    /// What is to be done now; to be called about once a second, and not while something is under way.
    pub fn turn(&mut self, now_ns: u64, view: &ClusterView) -> Turn {
        let ranks = ranks(view, self.key);
        // Nobody scrapes here before there is a ready node.
        let Some(leader) = ranks.first() else { return Turn::Rest };
        self.leads = leader.name == view.me;
        let is_due = |at: Option<u64>, every: u64| at.is_none_or(|t| now_ns.saturating_sub(t) >= every);
        let ask_source = is_due(self.tried_ns, self.refresh_ns);
        if self.leads {
            self.followed = None;
            return if ask_source { Turn::AskSource } else { Turn::Rest };
        }
        if self.followed.as_ref() != Some(&leader.name) {
            self.followed = Some(leader.name.clone());
            (self.reached_ns, self.polled_ns) = (now_ns, None);
        }
        let every = (self.refresh_ns / FOLLOW_PART).clamp(FOLLOW_NS_MIN, FOLLOW_NS_MAX);
        if is_due(self.polled_ns, every) {
            return Turn::AskNode(leader.clone());
        }
        let rank = ranks.iter().position(|m| m.name == view.me).unwrap_or(ranks.len()) as u64;
        let patience = self.refresh_ns.saturating_mul(1 + RANK_REFRESHES * rank) + SLACK_NS;
        // Who knows nothing yet has nothing to be patient with.
        let refresh_ns = self.heard_ns.map_or(0, |_| self.refresh_ns);
        let is_lost = self.is_open && is_due(Some(self.reached_ns), refresh_ns + SLACK_NS);
        let is_silent = is_due(Some(self.heard_ns.unwrap_or(self.since_ns)), patience);
        if ask_source && (is_lost || is_silent) { Turn::AskSource } else { Turn::Rest }
    }

    /// The source was asked from here.
    pub fn asked_source(&mut self, now_ns: u64, well: bool) {
        self.tried_ns = Some(now_ns);
        if well {
            self.heard_ns = Some(now_ns);
        }
    }

    /// A node was asked from here, and did not answer so far.
    pub fn asked_node(&mut self, now_ns: u64) {
        (self.polled_ns, self.is_open) = (Some(now_ns), true);
    }

    /// A node that leads told since when it has tried the source and since when it has heard of it, nanoseconds ago.
    /// Whether what it has is as fresh as what is here.
    pub fn answered(&mut self, now_ns: u64, leads: bool, tried: Option<u64>, heard: Option<u64>) -> bool {
        let at = |ago: Option<u64>| ago.map(|ago| now_ns.saturating_sub(ago));
        if leads {
            (self.reached_ns, self.is_open) = (now_ns, false);
            self.tried_ns = self.tried_ns.max(at(tried));
        }
        let is_fresh = at(heard) >= self.heard_ns;
        self.heard_ns = self.heard_ns.max(at(heard));
        is_fresh
    }

    /// Whether this node leads, how long ago the source was tried, and how long ago it was heard, nanoseconds.
    pub fn standing(&self, now_ns: u64) -> (bool, Option<u64>, Option<u64>) {
        let ago = |at: Option<u64>| at.map(|t| now_ns.saturating_sub(t));
        (self.leads, ago(self.tried_ns), ago(self.heard_ns))
    }

    /// The node that is followed.
    pub fn followed(&self) -> Option<&str> {
        self.followed.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::NodeState;
    use crate::ownership::tests::member;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;
    const ALL: [&str; 4] = ["a", "b", "c", "far"];

    fn view(me: &str, ready: &[&str]) -> ClusterView {
        let members = ALL.map(|n| {
            let mut m = member(n, if n == "far" { "y" } else { "z" }, 1);
            if !ready.contains(&n) {
                m.record.state = NodeState::Joining;
            }
            (n.to_owned(), Arc::new(m))
        });
        ClusterView { me: me.into(), members: members.into(), ..ClusterView::default() }
    }

    fn led_by(name: &str) -> u64 {
        (0..).find(|k| ranks(&view("a", &ALL), *k)[0].name == name).unwrap()
    }

    /// Nodes of one zone through `seconds`: how often the source was asked. `is_up` says whether a node runs.
    fn play(
        seconds: u64,
        refresh_s: i64,
        key: u64,
        is_up: &dyn Fn(&str, u64) -> bool,
    ) -> (u64, [Option<u64>; 3]) {
        let names = ["a", "b", "c"];
        let mut nodes = names.map(|_| Course::new(key, refresh_s * 1_000, 0));
        let mut asked = 0;
        for now in (0..seconds).map(|s| s * S) {
            // The failure detector needs ten seconds.
            let ready: Vec<&str> = names
                .into_iter()
                .filter(|n| is_up(n, now / S) || is_up(n, (now / S).saturating_sub(10)))
                .collect();
            for (i, name) in names.into_iter().enumerate().filter(|(_, n)| is_up(n, now / S)) {
                match nodes[i].turn(now, &view(name, &ready)) {
                    Turn::Rest => {}
                    Turn::AskSource => {
                        nodes[i].asked_source(now, true);
                        asked += 1;
                    }
                    Turn::AskNode(m) => {
                        nodes[i].asked_node(now);
                        let at = names.iter().position(|n| *n == m.name).unwrap();
                        if is_up(&m.name, now / S) {
                            let (leads, tried, heard) = nodes[at].standing(now);
                            nodes[i].answered(now, leads, tried, heard);
                        }
                    }
                }
            }
        }
        (asked, [0, 1, 2].map(|i| nodes[i].standing(seconds * S).2))
    }

    #[test]
    fn one_node_of_a_zone_asks_and_the_others_follow() {
        let (asked, heard) = play(600, 60, led_by("a"), &|_, _| true);
        assert_eq!(asked, 10);
        assert!(heard.iter().all(|h| h.is_some_and(|h| h <= 60 * S)), "{heard:?}");
        assert_eq!(ranks(&view("far", &ALL), 7).len(), 1, "another zone asks for itself");
        assert!(matches!(Course::new(1, 60_000, 0).turn(0, &view("a", &[])), Turn::Rest));
    }

    #[test]
    fn a_dead_leader_is_replaced_in_the_rhythm() {
        let (asked, heard) = play(600, 60, led_by("b"), &|n, s| n != "b" || s < 100);
        assert!((9..=11).contains(&asked), "{asked}");
        assert!(heard[0].is_some_and(|h| h <= 60 * S) && heard[2].is_some_and(|h| h <= 60 * S), "{heard:?}");
    }

    #[test]
    fn a_leader_that_cannot_be_reached_is_not_waited_for() {
        let mut course = Course::new(led_by("b"), 60_000, 0);
        let v = view("a", &ALL);
        let mut first = None;
        for now in (0..200).map(|s| s * S) {
            match course.turn(now, &v) {
                Turn::AskNode(_) => course.asked_node(now),
                Turn::AskSource => {
                    first.get_or_insert(now);
                    course.asked_source(now, true);
                }
                Turn::Rest => {}
            }
        }
        assert_eq!(first, Some(10 * S));
        let mut course = Course::new(led_by("b"), 60_000, 0);
        course.turn(0, &v);
        course.asked_node(0);
        course.answered(0, true, Some(0), Some(0));
        course.asked_node(69 * S);
        assert_eq!(course.turn(69 * S, &v), Turn::Rest, "it may still come");
        assert_eq!(course.turn(70 * S, &v), Turn::AskSource);
    }

    #[test]
    fn a_silent_source_is_tried_by_one_after_the_other() {
        let key = led_by("b");
        let order: Vec<String> = ranks(&view("a", &ALL), key).iter().map(|m| m.name.clone()).collect();
        let mut first = Vec::new();
        for name in &order[1..] {
            let mut course = Course::new(key, 60_000, 0);
            let v = view(name, &ALL);
            let at = (0..2_000).map(|s| s * S).find(|now| match course.turn(*now, &v) {
                Turn::AskNode(_) => {
                    course.asked_node(*now);
                    // It leads and asks, but never hears.
                    course.answered(*now, true, None, None);
                    false
                }
                turn => turn == Turn::AskSource,
            });
            first.push(at.unwrap() / S);
        }
        assert!(first[0] >= 190 && first[1] >= first[0] + 120, "{first:?}");
    }

    proptest! {
        /// Whoever comes and goes: every node that stays has news that is not older than a refresh and the bounds.
        #[test]
        fn news_is_never_old(key in any::<u64>(), downs in proptest::collection::vec((0usize..3, 0u64..500, 20u64..200), 0..4)) {
            let names = ["a", "b", "c"];
            // One of them always stays.
            let is_up = |n: &str, s: u64| n == "a" || !downs.iter().any(|(d, from, long)| names[*d] == n && (*from..from + long).contains(&s));
            let (_, heard) = play(700, 60, key, &is_up);
            prop_assert!(heard[0].is_some_and(|h| h <= 150 * S), "{heard:?}");
        }
    }
}
