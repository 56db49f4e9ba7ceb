//! Is the answer whole? Which stretch of time may miss data, and because of whom.
//!
//! Pure. What is kept has a copy on a second node, so one missing node takes nothing away, except for the stretches
//! it declared to be held by itself alone (`SoleRange`). Two missing nodes of different zones may take something
//! away. Two of one zone do not where copies lie in two zones at least: what is pushed on a ring of three zones does,
//! and so do the slots of a target while there are other zones; where they may not, the holders declare it too. The
//! rule may accuse too much, never too little: an answer without gaps here is complete.

use std::collections::BTreeSet;

use koios_cluster::replicas::{RING_GRACE_MS, ZONES_SAFE};
use koios_cluster::{ClusterView, Liveness, Member, NodeState, SoleRange};
use koios_store::CatalogueView;

/// Between the reasons of two.
const BOTH: &str = "; ";

/// A stretch of time for which data may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First millisecond.
    pub from: i64,
    /// Last millisecond.
    pub until: i64,
    /// Nodes or blocks that would have to answer.
    pub holders: Vec<String>,
    /// Why they did not.
    pub reason: String,
}

impl Gap {
    /// As a warning for the user.
    pub fn to_warning(&self) -> String {
        format!(
            "incomplete answer: data from {} to {} may be missing, {}",
            koios_model::timestamp::rfc3339(self.from),
            koios_model::timestamp::rfc3339(self.until),
            self.because()
        )
    }

    /// Who and why: `a is dead`, `a and b are joining`.
    pub fn because(&self) -> String {
        let of_many = |reason: &str| match reason.split_once(' ') {
            Some(("is", rest)) => format!("are {rest}"),
            Some(("does", rest)) => format!("do {rest}"),
            _ => reason.to_owned(),
        };
        let reason = match self.holders.len() {
            0 | 1 => self.reason.clone(),
            _ => self.reason.split(BOTH).map(of_many).collect::<Vec<_>>().join(BOTH),
        };
        format!("{} {reason}", self.holders.join(" and "))
    }
}

/// A node that was not heard in this query.
#[derive(Clone, Debug)]
pub struct Absent {
    /// Name.
    pub name: String,
    /// First moment of the data that only this node's disk holds; `None` when it holds none.
    pub from: Option<i64>,
    /// Last moment it can hold data of: `i64::MAX` when it is alive but silent, when it left, or a while after it was
    /// last heard, as it may be cut off and not dead.
    pub until: i64,
    /// Stretches without a second replica.
    pub sole: Vec<(i64, i64)>,
    /// Its zone, where a zone may be lost without losing data, but for `zone_sole`.
    pub zone: Option<String>,
    /// Stretches of which all replicas may lie in its zone.
    pub zone_sole: Vec<(i64, i64)>,
    /// Why it was not heard.
    pub reason: String,
}

/// The zone of a node that is not heard, when what was acknowledged there has copies in others: nodes of two more zones
/// are here, so that a ring of three asked for copies in two. With fewer the zone might go on alone behind a cut, with
/// declarations that nobody here hears.
fn spread_zone(view: &ClusterView, m: &Member) -> Option<String> {
    let others = view.members.values().filter(|o| o.is_alive() && o.record.roles.has("receive"));
    let zones: BTreeSet<&str> =
        others.map(|o| o.record.zone.as_str()).filter(|zone| *zone != m.record.zone).collect();
    (zones.len() + 1 >= ZONES_SAFE).then(|| m.record.zone.clone())
}

fn pairs(ranges: &[SoleRange]) -> Vec<(i64, i64)> {
    ranges.iter().map(|r| (r.from, r.until)).collect()
}

impl Absent {
    /// From what a member says, or said last, beyond what the bucket has of its adopted log.
    pub fn from_member(view: &ClusterView, m: &Member, reason: &str, catalogue: &CatalogueView) -> Self {
        let until = match m.liveness {
            Liveness::Dead { since } if m.record.state == NodeState::Leaving => since,
            // Dead to this node, and maybe alive with others behind a cut: together they take writes as long as
            // the ring counts them.
            Liveness::Dead { since } => since.saturating_add(RING_GRACE_MS),
            Liveness::Alive => i64::MAX,
        };
        Self {
            name: m.name.clone(),
            from: m.record.may_hold_from(),
            until,
            sole: pairs(&m.record.head.sole),
            zone: spread_zone(view, m),
            zone_sole: pairs(&m.record.head.zone_sole),
            reason: reason.to_owned(),
        }
        .beyond(catalogue)
    }

    fn beyond(mut self, catalogue: &CatalogueView) -> Self {
        if let (Some(from), Some(settled)) = (self.from, catalogue.settled(&self.name)) {
            self.from = Some(from.max(settled));
        }
        self
    }

    /// What of `range`, which both may hold, may be on these two only.
    fn missing_with(&self, other: &Self, range: (i64, i64)) -> Vec<(i64, i64)> {
        if self.zone.is_none() || self.zone != other.zone {
            return vec![range];
        }
        let declared = self.zone_sole.iter().chain(&other.zone_sole);
        let mut missing: Vec<_> = declared.filter_map(|sole| both(range, *sole)).collect();
        missing.sort_unstable();
        missing.dedup_by(|next, last| {
            let touches = next.0 <= last.1;
            if touches {
                last.1 = last.1.max(next.1);
            }
            touches
        });
        missing
    }

    /// A node for a stretch of which it lost what it had. What it held alone then is nowhere.
    pub fn hole(m: &Member, lost: koios_cluster::SoleRange, catalogue: &CatalogueView) -> Self {
        Self {
            name: m.name.clone(),
            from: Some(lost.from),
            until: lost.until,
            sole: pairs(&m.record.head.lost_alone),
            // What it declared may be lost with the rest.
            zone: None,
            zone_sole: Vec::new(),
            reason: "lost a part of its data".to_owned(),
        }
        .beyond(catalogue)
    }
}

/// What two stretches have in common.
fn both(a: (i64, i64), b: (i64, i64)) -> Option<(i64, i64)> {
    Some((a.0.max(b.0), a.1.min(b.1))).filter(|(from, until)| from <= until)
}

/// Gaps that the absence of `absent` nodes may leave in `[mint, maxt]`, in time order.
pub fn gaps(absent: &[Absent], mint: i64, maxt: i64) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let held = |a: &Absent| both((a.from?, a.until), (mint, maxt));
    for (i, a) in absent.iter().enumerate() {
        let Some(range) = held(a) else { continue };
        for (from, until) in a.sole.iter().filter_map(|sole| both(range, *sole)) {
            gaps.push(Gap { from, until, holders: vec![a.name.clone()], reason: a.reason.clone() });
        }
        // One that is away, and had lost a part before, is no pair.
        for b in absent[i + 1..].iter().filter(|b| b.name != a.name) {
            let Some(range) = held(b).and_then(|other| both(range, other)) else { continue };
            for (from, until) in a.missing_with(b, range) {
                let holders = vec![a.name.clone(), b.name.clone()];
                let reason =
                    if a.reason == b.reason { a.reason.clone() } else { [&*a.reason, &*b.reason].join(BOTH) };
                gaps.push(Gap { from, until, holders, reason });
            }
        }
    }
    gaps.sort_by(|a, b| (a.from, a.until, &a.holders).cmp(&(b.from, b.until, &b.holders)));
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absent(name: &str, from: i64, until: i64, sole: &[(i64, i64)]) -> Absent {
        let (zone, zone_sole, reason) = (None, Vec::new(), "is down".into());
        Absent { name: name.into(), from: Some(from), until, sole: sole.to_vec(), zone, zone_sole, reason }
    }

    #[test]
    fn a_zone_takes_away_what_was_nowhere_else() {
        let of = |name: &str, zone: &str, zone_sole: &[(i64, i64)]| Absent {
            zone: Some(zone.into()),
            zone_sole: zone_sole.to_vec(),
            ..absent(name, 0, 1000, &[])
        };
        let found =
            |list: &[Absent]| gaps(list, 0, 5000).iter().map(|g| (g.from, g.until)).collect::<Vec<_>>();
        let (a, b) = (of("a1", "a", &[(0, 10), (100, 200)]), of("a2", "a", &[(150, 300), (900, 5000)]));
        assert_eq!(found(&[of("a1", "a", &[]), of("a2", "a", &[]), of("a3", "a", &[])]), []);
        assert_eq!(found(&[a.clone(), b.clone()]), [(0, 10), (100, 300), (900, 1000)]);
        assert_eq!(found(&[of("a1", "a", &[]), of("b1", "b", &[])]), [(0, 1000)], "two zones");
        assert_eq!(
            found(&[of("a1", "a", &[]), absent("a2", 0, 9, &[])]),
            [(0, 9)],
            "nothing known of the zone"
        );
    }

    #[test]
    fn zones_count_while_two_others_are_here() {
        use crate::testing::{member, view};
        let in_zone = |name: &str, zone: &str| {
            let mut m = member(name, "B");
            m.record.zone = zone.into();
            m
        };
        let (mut a1, mut a2) = (in_zone("a1", "a"), in_zone("a2", "a"));
        (a1.liveness, a2.liveness) = (Liveness::Dead { since: 50 }, Liveness::Dead { since: 50 });
        let missing = |others: Vec<Member>| {
            let all = others.into_iter().chain([a1.clone(), a2.clone()]).collect();
            let v = view("b", all);
            let absent = [&a1, &a2].map(|m| Absent::from_member(&v, m, "is dead", &CatalogueView::default()));
            !gaps(&absent, 0, 100).is_empty()
        };
        assert!(!missing(vec![in_zone("b", "b"), in_zone("c", "c")]));
        assert!(missing(vec![in_zone("b", "b"), in_zone("b2", "b")]), "two zones acknowledge in one");
        let mut no_copies = in_zone("c", "c");
        no_copies.record.roles = koios_cluster::keys::Roles::parse("query").unwrap();
        assert!(missing(vec![in_zone("b", "b"), no_copies]));
    }

    #[test]
    fn one_replicated_node_takes_nothing_away() {
        assert_eq!(gaps(&[absent("a", 0, 1000, &[])], 0, 5000), []);
    }

    #[test]
    fn sole_stretches_are_named() {
        let g = gaps(&[absent("a", 0, 1000, &[(0, 100), (500, 600)])], 50, 550);
        assert_eq!(g.iter().map(|g| (g.from, g.until)).collect::<Vec<_>>(), [(50, 100), (500, 550)]);
        assert!(g[0].to_warning().contains("a is down"));
        assert_eq!(gaps(&[absent("a", 0, 1000, &[(0, 100)])], 101, 5000), []);
        let empty = Absent { from: None, ..absent("a", 0, 9, &[(0, 9)]) };
        assert_eq!(gaps(&[empty], 0, 10), [], "a node without data misses nothing");
    }

    #[test]
    fn an_adopted_log_leaves_only_its_tail_missing() {
        let adopted = std::sync::Arc::new([("a".to_owned(), 700)].into());
        let catalogue = CatalogueView::default().with_settled(adopted);
        let lost = |name: &str| absent(name, 0, 1000, &[(0, 1000)]).beyond(&catalogue);
        assert_eq!(gaps(&[lost("a")], 0, 699), []);
        assert_eq!((gaps(&[lost("a")], 0, 5000)[0].from, gaps(&[lost("b")], 0, 699)[0].from), (700, 0));
        let nothing = Absent { from: None, ..absent("a", 0, 9, &[]) };
        assert_eq!(nothing.beyond(&catalogue).from, None);
    }

    #[test]
    fn one_is_and_two_are() {
        let gap = |holders: &[&str], reason: &str| {
            let holders = holders.iter().map(|h| (*h).to_owned()).collect();
            Gap { from: 0, until: 1, holders, reason: reason.into() }.because()
        };
        assert_eq!(gap(&["a"], "is dead"), "a is dead");
        assert_eq!(gap(&["a", "b"], "is dead; does not answer"), "a and b are dead; do not answer");
        let told = "cannot read its head: this is a damaged chunk";
        assert_eq!(gap(&["a", "b"], told), format!("a and b {told}"), "words of others stay");
    }

    #[test]
    fn two_nodes_miss_what_both_could_hold() {
        let long_dead = absent("a", 0, 1000, &[]);
        let fresh = absent("b", 500, i64::MAX, &[]);
        let g = gaps(&[long_dead.clone(), fresh.clone()], 0, 5000);
        assert_eq!(g.len(), 1);
        assert_eq!((g[0].from, g[0].until, g[0].holders.len()), (500, 1000, 2));
        assert_eq!(gaps(&[long_dead, fresh], 1001, 5000), [], "the first was gone by then");
    }
}
