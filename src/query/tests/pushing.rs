//! Parts of queries evaluated on three nodes: the same bits as from chunks, and chunks whenever something is off.

mod nodes;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use koios_promql::{Control, Helpers, Job, Plan, QueryOutput, QueryParams, parse};
use koios_query::scope::Form;
use koios_query::{Coordinator, FragmentLimits, Want};
use nodes::{Cluster, HOUR, Head, made, want};

const EXPRESSIONS: [&str; 16] = [
    "count(m)",
    "count by (job) (rate(m[10m]))",
    "min by (job) (m)",
    "max without (n) (increase(m[30m]))",
    "group(m{job=\"j1\"})",
    "sum by (job) (rate(m[1h]))",
    "avg(avg_over_time(m[2h]))",
    "topk(2, m)",
    "bottomk by (job) (1, delta(m[40m]))",
    "quantile(0.3, m * 2)",
    "stddev by (job) (-m)",
    "m{n=\"3\"} / on () group_left () sum(m)",
    "max(m) - min(m) + count(m > 10)",
    "sort_desc(sum by (n) (m offset 30m))",
    "max by (job) (m) == on (job) max by (job) (m) ",
    "nothing_here",
];

/// Nobody helps.
struct Alone;

impl Helpers for Alone {
    fn most(&self) -> usize {
        0
    }

    fn take(&self, _: Job) {}
}

fn select_want(plan: &Plan, input: usize) -> Want {
    let s = &plan.selects()[input];
    Want { mint: s.min_time_ms, maxt: s.max_time_ms, matchers: s.matchers.clone(), ..want(1) }
}

/// The answer as text, how many parts were evaluated elsewhere, and how many could have been.
async fn answer(
    c: &Cluster,
    a: &Coordinator,
    query: &str,
    params: &QueryParams,
    push: bool,
) -> (String, usize, usize) {
    let plan = Arc::new(Plan::new(&parse(query).unwrap(), params).unwrap());
    let view = c.view("a");
    let mut pushed = Vec::new();
    let spots = plan.pushable();
    for what in spots.iter().filter(|_| push) {
        if let Some(rows) = a.push(&view, query, params, what, &select_want(&plan, what.input)).await {
            pushed.push((what.clone(), rows));
        }
    }
    let mut inputs: Vec<Box<dyn koios_promql::SeriesSet>> = Vec::new();
    for i in 0..plan.selects().len() {
        if pushed.iter().any(|(what, _)| what.input == i) {
            inputs.push(Box::new(Vec::new()));
        } else {
            let selected = a.select(&view, &select_want(&plan, i), Form::Chunks).await.unwrap();
            inputs.push(selected.series.into_set());
        }
    }
    let count = pushed.len();
    let output = plan.evaluate_pushed(inputs, pushed, &Control::new(), Arc::new(Alone));
    let QueryOutput { value, warnings, infos, .. } = output.unwrap();
    (format!("{value:?} {warnings:?} {infos:?}"), count, spots.len())
}

/// Instant, coarse and fine.
fn moments() -> [QueryParams; 3] {
    [
        QueryParams::instant(4 * HOUR + 17_000),
        QueryParams::range(HOUR, 5 * HOUR, 20 * 60_000),
        QueryParams::range(HOUR, 3 * HOUR, 60_000),
    ]
}

async fn six_hours() -> Cluster {
    let mut c = Cluster::start(6, 12, FragmentLimits::default(), Vec::new()).await;
    c.heads_from = Some(100 * HOUR);
    c
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_and_chunks_give_the_same_bits() {
    let c = six_hours().await;
    let a = c.coordinator(0);
    let (mut pushed, mut possible) = (0, 0);
    for query in EXPRESSIONS {
        for params in moments() {
            let chunks = answer(&c, &a, query, &params, false).await;
            let rows = answer(&c, &a, query, &params, true).await;
            assert_eq!(rows.0, chunks.0, "{query}");
            (pushed, possible) = (pushed + rows.1, possible + rows.2);
        }
    }
    assert!(pushed * 3 > possible && pushed > 20, "{pushed} of {possible} parts");
    assert_eq!(a.stats.pushed.load(Ordering::Relaxed), pushed as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_off_means_chunks() {
    let mut c = six_hours().await;
    let a = c.coordinator(0);
    let (query, params) = ("count by (job) (m)", moments()[0].clone());
    let (right, pushed, _) = answer(&c, &a, query, &params, true).await;
    assert_eq!(pushed, 1);

    c.heads_from = None;
    let (got, pushed, _) = answer(&c, &a, query, &params, true).await;
    assert_eq!((got, pushed), (right.clone(), 0), "heads may hold some of it");
    c.heads_from = Some(100 * HOUR);

    c.nodes[2].pool.full.store(true, Ordering::SeqCst);
    let (got, pushed, _) = answer(&c, &a, query, &params, true).await;
    assert_eq!((got, pushed), (right.clone(), 0), "one has no room");
    c.nodes[2].pool.full.store(false, Ordering::SeqCst);
    assert!(a.stats.push_declined.load(Ordering::Relaxed) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_peer_of_before_is_asked_for_chunks() {
    let mut c = Cluster::start_with(6, 12, FragmentLimits::default(), Vec::new(), &["b"]).await;
    c.heads_from = Some(100 * HOUR);
    let a = c.coordinator(0);
    for query in EXPRESSIONS {
        let (got, pushed, _) = answer(&c, &a, query, &moments()[0], true).await;
        assert_eq!(pushed, 0, "{query}");
        assert_eq!(got, answer(&c, &a, query, &moments()[0], false).await.0);
    }
    assert!(!a.peers.reach().is_ejected("b", 1), "it is only old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_this_nodes_own_head_still_has_is_not_overlooked() {
    let head = Head { series: vec![made(99, 4)], ..Head::default() };
    let mut c = Cluster::start(6, 12, FragmentLimits::default(), vec![head]).await;
    c.heads_from = Some(100 * HOUR);
    let a = c.coordinator(0);
    let (got, pushed, _) = answer(&c, &a, "count(m)", &moments()[0], true).await;
    assert_eq!(pushed, 0);
    assert!(got.contains("13.0"), "twelve in blocks, one in the head: {got}");
}
