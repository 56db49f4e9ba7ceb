//! Pictures of hand-made views.

use std::collections::BTreeMap;

use koios_cluster::{ClusterView, Liveness, Member, NodeState, SoleRange};
use koios_store::CatalogueView;

use super::*;
use crate::testing::{member, view};

const NOW: i64 = 100_000_000;
const HOUR: i64 = 3_600_000;

fn read() -> CatalogueView {
    CatalogueView::new(BTreeMap::new(), BTreeMap::new())
}

fn node(name: &str) -> Member {
    let mut m = member(name, &format!("bucket of {name}"));
    m.record.head.min_time = Some(NOW - HOUR);
    m
}

fn dead(name: &str, ago_ms: i64) -> Member {
    let mut m = node(name);
    m.liveness = Liveness::Dead { since: NOW - ago_ms };
    m
}

/// Everybody sees the same.
fn agreed(members: Vec<Member>) -> ClusterView {
    let hash = view("a", members.clone()).ring_hash();
    let same = |mut m: Member| {
        m.record.ring_hash = hash;
        m
    };
    view("a", members.into_iter().map(same).collect())
}

fn with<T>(v: &ClusterView, ejected: &[&str], f: impl FnOnce(&Facts<'_>) -> T) -> T {
    let catalogue = read();
    let is = |m: &Member| ejected.contains(&m.name.as_str());
    f(&Facts { view: v, catalogue: &catalogue, ejected: &is, now_ms: NOW })
}

fn sentence(v: &ClusterView, ejected: &[&str]) -> (Level, String) {
    let h = with(v, ejected, health::health);
    (h.level, h.sentence)
}

#[test]
fn a_well_cluster_has_nothing_to_say() {
    let v = agreed(vec![node("a"), node("b"), node("c")]);
    assert_eq!(sentence(&v, &[]), (Level::Well, "all 3 nodes are ready".to_owned()));
    assert_eq!(health::agreement(&v).line, "all views agree (3/3)");
    let mut left = dead("d", 5000);
    left.record.state = NodeState::Leaving;
    left.record.head.min_time = None;
    let v = agreed(vec![node("a"), left]);
    let (level, text) = sentence(&v, &[]);
    assert!(level == Level::Well && text.contains("one copy"), "{text}");
    assert_eq!(sentence(&ClusterView::default(), &[]).0, Level::Broken);
}

#[test]
fn one_dead_node_degrades_and_says_what_to_do() {
    let v = agreed(vec![node("a"), node("b"), dead("c", 65_000)]);
    let (level, text) = sentence(&v, &[]);
    assert_eq!(level, Level::Degraded);
    assert!(text.starts_with("2 of 3 nodes are ready; c is dead for 1m5s"), "{text}");
    assert!(text.contains("start it again"), "{text}");
}

#[test]
fn two_dead_nodes_break_it_with_the_range_and_the_quorum() {
    let v = agreed(vec![node("a"), dead("b", 65_000), dead("c", 5000)]);
    let h = with(&v, &[], health::health);
    assert_eq!(h.level, Level::Broken);
    assert!(h.sentence.contains("to now may be missing because b and c are dead"), "{}", h.sentence);
    assert!(h.sentence.contains("bring b or c back"), "{}", h.sentence);
    assert!(h.issues.iter().any(|i| i.cause.contains("remote write is refused: 1 of 3")), "{:?}", h.issues);
}

#[test]
fn who_is_not_reached_or_sees_otherwise_is_named() {
    let mut v = agreed(vec![node("a"), node("b"), node("c")]);
    let (level, text) = sentence(&v, &["b"]);
    assert!(
        level == Level::Degraded && text.contains("b is heard by others but cannot be reached from a"),
        "{text}"
    );
    let mut c = node("c");
    c.record.ring_hash = 1;
    v.members.insert("c".into(), std::sync::Arc::new(c));
    let line = health::agreement(&v).line;
    assert_eq!(line, "views differ (2/3 agree): c see other ready nodes than a");
    assert!(sentence(&v, &[]).1.contains("c see other ready nodes than a"));
}

fn covers(v: &ClusterView, hours: i64, columns: usize) -> (Vec<Cover>, Vec<coverage::Weak>) {
    let c = with(v, &[], |f| coverage::coverage(f, hours * HOUR, columns));
    assert!(c.columns.windows(2).all(|w| w[0].until + 1 == w[1].from), "columns without holes");
    assert!(c.columns.last().is_some_and(|l| l.from <= NOW && l.until >= NOW), "the last one is now");
    (c.columns.into_iter().map(|c| c.cover).collect(), c.weak)
}

#[test]
fn the_strip_tells_empty_covered_single_and_missing_apart() {
    let (strip, weak) = covers(&agreed(vec![node("a"), node("b")]), 4, 8);
    assert_eq!((strip[0], strip[7], weak.len()), (Cover::Empty, Cover::Covered, 0));

    let mut b = node("b");
    b.record.head.sole = vec![SoleRange { from: NOW - HOUR, until: NOW - HOUR / 2 }];
    let (strip, weak) = covers(&agreed(vec![node("a"), b.clone()]), 1, 4);
    assert_eq!((strip[0], strip[3]), (Cover::One, Cover::Covered));
    assert_eq!(weak[0].cause, "only b holds it");

    b.liveness = Liveness::Dead { since: NOW - 1000 };
    let (strip, weak) = covers(&agreed(vec![node("a"), b]), 1, 4);
    assert_eq!((strip[0], strip[3]), (Cover::Missing, Cover::One));
    assert_eq!((weak[0].cover, weak[0].cause.as_str()), (Cover::Missing, "b is dead"));
}

#[test]
fn an_unread_bucket_misses_everything() {
    let v = agreed(vec![node("a")]);
    let unread = CatalogueView::default();
    let facts = Facts { view: &v, catalogue: &unread, ejected: &|_| false, now_ms: NOW };
    let c = coverage::coverage(&facts, HOUR, 4);
    assert!(c.columns.iter().all(|c| c.cover == Cover::Missing));
    assert_eq!(coverage::coverage(&facts, HOUR, usize::MAX).columns.len(), coverage::COLUMNS_MAX);
    assert_eq!(coverage::coverage(&facts, 0, 0).columns.len(), 1);
}

#[test]
fn stopping_is_safe_with_a_quorum_and_replicas_only() {
    let reasons = |v: &ClusterView| with(v, &[], stop::reasons);
    assert_eq!(reasons(&agreed(vec![node("a"), node("b"), node("c")])), Vec::<String>::new());
    let one = reasons(&agreed(vec![node("a"), node("b"), dead("c", 5000)]));
    assert!(one[0].contains("remote write would be refused: 1 of 3"), "{one:?}");
    assert!(one[1].contains("c is away too"), "{one:?}");
    assert!(reasons(&agreed(vec![node("a")]))[0].contains("no other node is ready"));
    assert!(reasons(&ClusterView::default())[0].contains("wait"));

    let mut a = node("a");
    a.record.head.sole = vec![SoleRange { from: NOW - HOUR, until: NOW - HOUR / 2 }];
    let sole = reasons(&agreed(vec![a.clone(), node("b"), node("c")]));
    assert!(sole.len() == 1 && sole[0].contains("only this node holds some of it"), "{sole:?}");
    let mut b = node("b");
    b.record.bucket.clone_from(&a.record.bucket);
    assert_eq!(reasons(&agreed(vec![a, b, node("c")])), Vec::<String>::new(), "a drain uploads it for b");
}

#[test]
fn a_plan_says_who_is_asked_and_who_is_not() {
    let mut young = node("c");
    young.record.head.min_time = Some(NOW);
    young.record.bucket = node("a").record.bucket;
    let v = agreed(vec![node("a"), node("b"), young, dead("d", 10)]);
    let e = with(&v, &["b"], |f| explain::range(f, NOW - HOUR, NOW - 45 * 60_000));
    assert!(
        e.asked
            .iter()
            .any(|a| a.node == "b" && a.own && a.why.iter().any(|w| w.contains("could not be reached")))
    );
    let not: Vec<(&str, &str)> = e.not_asked.iter().map(|(n, w)| (n.as_str(), w.as_str())).collect();
    assert_eq!(not, [("c", "it says that it holds nothing of the range"), ("d", "it is dead")]);
    let (owners, rank) = explain::target(&v, 7, 2);
    assert_eq!((owners.len(), rank.len()), (2, 3));
    assert!(rank[0].starts_with(&owners[0]), "{rank:?} {owners:?}");
}
