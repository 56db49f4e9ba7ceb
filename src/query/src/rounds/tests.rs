//! The rounds of a query, by hand.

use super::*;
use crate::testing::{member, view};

fn want() -> Want {
    Want {
        query_id: String::new(),
        mint: 0,
        maxt: 100,
        matchers: Vec::new(),
        series_max: 1,
        bytes_max: 1,
        samples_max: 1,
        patience: Duration::from_secs(1),
        ..Want::default()
    }
}

#[test]
fn a_block_that_only_a_head_speaks_of_is_read_here_or_named() {
    let v = Arc::new(view("a", vec![member("a", "B"), member("b", "B")]));
    let catalogue = Arc::new(CatalogueView::new(BTreeMap::new(), BTreeMap::new()));
    let (mut r, first) = Rounds::start(&v, &want(), catalogue.clone(), &|_| false);
    assert_eq!(first.len(), 2);
    let id = BlockId::from_parts(7, 7);
    for (node, scope) in &first {
        r.answered(node, scope, Vec::new());
        r.forgotten(node, &[id]);
    }
    let elsewhere = Arc::new(member("c", "C"));
    r.forgotten(&elsewhere, &[BlockId::from_parts(8, 8)]);
    let next = r.next(&|| catalogue.clone(), &|_| false);
    assert_eq!((next.len(), next[0].0.name.as_str(), &next[0].1.blocks), (1, "a", &vec![id]));
    let detail = "the bucket does not answer".to_owned();
    let missing = Missing { part: Part::Block(id), reason: crate::MissingReason::Gone, detail };
    r.answered(&next[0].0, &next[0].1, vec![missing]);
    let again = r.next(&|| catalogue.clone(), &|_| false);
    assert_eq!(again[0].0.name, "b", "somebody else may have it");
    r.no_answer(&again[0].0, &again[0].1, "is down");
    assert!(r.next(&|| catalogue.clone(), &|_| false).is_empty());
    let gaps = r.verdict();
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0].holders[0].contains(&id.to_string()));
}

#[test]
fn who_else_is_asked_for_the_blocks_of_a_late_node() {
    let v = Arc::new(view("a", vec![member("a", "B"), member("b", "B"), member("c", "B"), member("d", "F")]));
    let catalogue = Arc::new(CatalogueView::new(BTreeMap::new(), BTreeMap::new()));
    let (r, _) = Rounds::start(&v, &want(), catalogue, &|_| false);
    let ids: Vec<BlockId> = (0..20).map(|i| BlockId::from_parts(i, 1)).collect();
    let scope = Scope { may_split: true, ..want().scope(false, ids.clone(), false) };
    let late = v.members["b"].clone();
    let others = r.substitutes(&late, &scope, &|_| false);
    let mut asked: Vec<BlockId> = others.iter().flat_map(|(_, s)| s.blocks.clone()).collect();
    asked.sort();
    assert_eq!(asked, ids, "each block once");
    assert!(others.iter().all(|(m, s)| (m.name == "a" || m.name == "c") && !s.may_split));
    let avoid = r.substitutes(&late, &scope, &|m| m.name == "c");
    assert!(avoid.len() == 1 && avoid[0].0.name == "a", "nobody is left: this node reads itself");
}

#[test]
fn a_head_can_be_done_without_when_it_is_the_only_one() {
    let mut c = member("c", "B");
    c.record.head.sole = vec![koios_cluster::SoleRange { from: 50, until: 60 }];
    let v = Arc::new(view("a", vec![member("a", "B"), member("b", "B"), c]));
    let catalogue = Arc::new(CatalogueView::new(BTreeMap::new(), BTreeMap::new()));
    let (mut r, first) = Rounds::start(&v, &want(), catalogue, &|_| false);
    let (b, c) = (v.members["b"].clone(), v.members["c"].clone());
    assert!(r.whole_without(&[]) && r.whole_without(&[&b]));
    assert!(!r.whole_without(&[&c]), "what it alone holds would be missing");
    assert!(!r.whole_without(&[&b, &c]));
    let scope = &first.iter().find(|(m, _)| m.name == "b").unwrap().1;
    for _ in 0..2 {
        r.no_answer(&b, scope, "is down");
    }
    assert!(r.whole_without(&[&b]), "it is counted once, though several of its questions failed");
    assert!(!r.whole_without(&[&v.members["a"].clone()]), "but no second node");
    assert_eq!(r.verdict(), []);
}

#[test]
fn heads_and_blocks_of_peers_are_asked_for_apart() {
    let v = Arc::new(view("a", vec![member("a", "B"), member("b", "B"), member("c", "B")]));
    let day = 86_400_000;
    let blocks: BTreeMap<BlockId, Arc<koios_block::BlockMeta>> = (0..40i64)
        .map(|i| {
            let id = BlockId::from_parts(i as u64, 1);
            let (from, until) = (i * day / 4, (i + 1) * day / 4);
            let text = format!(
                r#"{{"ulid":"{id}","minTime":{from},"maxTime":{until},"stats":{{}},"compaction":{{"level":1,"sources":["{id}"]}},"version":1}}"#
            );
            (id, Arc::new(koios_block::BlockMeta::parse(text.as_bytes()).unwrap()))
        })
        .collect();
    let all: Vec<BlockId> = blocks.keys().copied().collect();
    let catalogue = Arc::new(CatalogueView::new(blocks, BTreeMap::new()));
    let want = Want { maxt: 10 * day, ..want() };
    let (_, first) = Rounds::start(&v, &want, catalogue, &|_| false);
    let mut seen: Vec<BlockId> = first.iter().flat_map(|(_, s)| s.blocks.clone()).collect();
    seen.sort();
    assert_eq!(seen, all, "each block is asked for once");
    for (node, scope) in first.iter().filter(|(m, _)| m.name != "a") {
        assert!(scope.own == scope.blocks.is_empty() && scope.may_split, "{}", node.name);
        let starts: Vec<u64> = scope.blocks.iter().map(|id| id.timestamp_ms() / 8).collect();
        assert!(starts.windows(2).all(|w| w[0] == w[1]), "slices of two days: {starts:?}");
    }
    assert_eq!(first.iter().filter(|(m, _)| m.name == "a").count(), 1, "this node takes no detour");
}

#[test]
fn parts_of_a_question_are_all_of_it() {
    let node = Arc::new(member("b", "B"));
    let scope = Scope { may_split: true, ..want().scope(true, Vec::new(), false) };
    for (wanted, made) in [(0, 2), (3, 3), (1000, SHARDS_MAX)] {
        let parts = Rounds::split(&node, &scope, wanted);
        assert_eq!(parts.len() as u32, made);
        for n in 0..200u32 {
            let labels = koios_model::Labels::from_pairs([("n", n.to_string())]);
            assert_eq!(parts.iter().filter(|(_, s)| s.shard.holds(&labels)).count(), 1);
        }
        assert!(parts.iter().all(|(_, s)| !s.may_split && s.own));
    }
}
