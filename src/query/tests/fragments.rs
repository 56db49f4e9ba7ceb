//! Fragments over real gRPC between three nodes of one process: asked twice, in parts, elsewhere, and let go of.

mod nodes;

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use koios_query::scope::{Form, Shard};
use koios_query::{FragmentLimits, QueryError, Scope};
use nodes::{Cluster, Found, Head, made, want};

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let step = Duration::from_millis(5);
    for i in 0..4000 {
        if holds() {
            return step * i;
        }
        tokio::time::sleep(step).await;
    }
    panic!("not within 20 s: {what}");
}

fn wants_all(found: &[Found], hours: i64, series: usize) {
    assert_eq!(found.len(), series);
    assert!(found.iter().all(|(_, samples)| samples.len() as i64 == hours * 60));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blocks_of_a_late_node_come_from_another_one_and_it_is_let_go() {
    let c = Cluster::start(12, 20, FragmentLimits::default(), Vec::new()).await;
    let a = c.coordinator(0);
    let (first, gaps) = c.all(&a, 0, &want(12)).await;
    wants_all(&first, 12, 20);
    assert_eq!(gaps, []);
    assert_eq!(a.hedger.hedges.load(Ordering::Relaxed), 0, "nobody is late");

    c.nodes[1].pool.delay_ms.store(4000, Ordering::SeqCst);
    let stopped = || c.nodes[1].parts.served.stopped.load(Ordering::Relaxed);
    let clock = koios_model::clock::SystemClock::shared();
    let (again, gaps) = c.all(&a, 0, &want(12)).await;
    let took = Duration::from_nanos(clock.mono_ns());
    assert_eq!((again, gaps), (first.clone(), Vec::new()), "the same bits");
    assert!(took < Duration::from_millis(3500), "nobody waited for the late node: {took:?}");
    assert_eq!(a.hedger.hedges.load(Ordering::Relaxed), 1);
    assert_eq!(a.hedger.won.load(Ordering::Relaxed), 1);
    assert_eq!(a.hedger.heads_left.load(Ordering::Relaxed), 1, "its head was empty, and has replicas");
    let waited = until("both calls end on the other side", || stopped() >= 2).await;
    assert!(waited < Duration::from_secs(1), "{waited:?}");

    for _ in 0..2 {
        assert_eq!(c.all(&a, 0, &want(12)).await.0, first);
    }
    assert!(a.hedger.avoid("b"), "late again and again: the others are asked first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_head_that_alone_holds_something_is_waited_for() {
    let head = Head { series: vec![made(7, 6)], ..Head::default() };
    let heads = vec![Head::default(), Head::default(), head];
    let mut c = Cluster::start(2, 3, FragmentLimits::default(), heads).await;
    c.nodes[2].pool.delay_ms.store(2500, Ordering::SeqCst);
    let a = c.coordinator(0);
    let (found, _) = c.all(&a, 0, &want(12)).await;
    assert!(!found.iter().any(|(l, _)| l.contains("n=\"7\"")), "replicas are believed to hold it");
    assert_eq!(a.hedger.heads_left.load(Ordering::Relaxed), 1);
    c.sole = vec![("c", 0, 12 * nodes::HOUR)];
    let (found, gaps) = c.all(&a, 0, &want(12)).await;
    assert_eq!(gaps, []);
    assert_eq!(found.iter().find(|(l, _)| l.contains("n=\"7\"")).unwrap().1.len(), 60);
    assert_eq!(a.hedger.heads_left.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn work_ends_soon_after_its_asker_is_gone() {
    let c = Cluster::start(1, 1, FragmentLimits::default(), Vec::new()).await;
    let (a, b) = (c.coordinator(0), &c.nodes[1]);
    b.head.endless.store(true, Ordering::SeqCst);
    let view = c.view("a");
    let want = want(1);
    let asking = tokio::spawn(async move { a.select(&view, &want, Form::Chunks).await.map(|s| s.gaps) });
    until("the head is being read", || b.head.reading.load(Ordering::SeqCst)).await;
    asking.abort();
    let took = until("nobody reads it any more", || !b.head.reading.load(Ordering::SeqCst)).await;
    // Promised are 100 ms; the machine of a test may be busy. Left alone it would read for 30 s.
    assert!(took < Duration::from_millis(600), "{took:?}");
    let stopped = || b.parts.served.stopped.load(Ordering::Relaxed);
    until("it is counted", || stopped() >= 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_number_of_parts_gives_the_same_bits() {
    let whole = Cluster::start(14, 23, FragmentLimits::default(), Vec::new()).await;
    let a = whole.coordinator(0);
    let (all, gaps) = whole.all(&a, 0, &want(14)).await;
    wants_all(&all, 14, 23);
    assert_eq!((gaps, a.stats.split.load(Ordering::Relaxed)), (Vec::new(), 0));
    for (split_series, split_bytes) in [(160, 1 << 30), (50, 1 << 30), (10, 1 << 30), (20_000, 9000), (1, 1)]
    {
        let limits = FragmentLimits { split_series, split_bytes, ..FragmentLimits::default() };
        let c = Cluster::start(14, 23, limits, Vec::new()).await;
        for i in 0..3 {
            let coordinator = c.coordinator(i);
            let (parts, gaps) = c.all(&coordinator, i, &want(14)).await;
            assert_eq!(parts, all, "{split_series} series, {split_bytes} bytes");
            assert_eq!(gaps, []);
            assert!(coordinator.stats.split.load(Ordering::Relaxed) > 0 || split_series == 160);
        }
    }
    // By hand: every number of shards, on one holder.
    for count in [1, 2, 3, 7] {
        let mut series = Vec::new();
        for index in 0..count {
            let scope = Scope { shard: Shard { index, count }, ..whole_scope(&whole) };
            let answer = whole.nodes[2].parts.select(&scope, want(14).matchers, Form::Chunks).await.unwrap();
            series.extend(answer.series);
        }
        let scope = whole_scope(&whole);
        let one = whole.nodes[2].parts.select(&scope, want(14).matchers, Form::Chunks).await.unwrap().series;
        let sorted = |mut list: Vec<koios_chunk::SeriesChunks>| {
            list.sort_by(|a, b| {
                (&a.labels, a.slot, a.chunks[0].min_time).cmp(&(&b.labels, b.slot, b.chunks[0].min_time))
            });
            list
        };
        let (parts, one) = (sorted(series), sorted(one));
        assert!(parts.iter().zip(&one).all(|(p, o)| p.labels == o.labels && p.chunks == o.chunks));
        assert_eq!(parts.len(), one.len());
    }
}

fn whole_scope(c: &Cluster) -> Scope {
    Scope {
        query_id: String::new(),
        mint: 0,
        maxt: i64::MAX,
        own: false,
        blocks: c.blocks.clone(),
        whole_bucket: false,
        series_max: u64::MAX,
        bytes_max: u64::MAX,
        samples_max: u64::MAX,
        shard: Shard::WHOLE,
        may_split: false,
        max_resolution_ms: 0,
        dress: koios_store::Dress::Home,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_without_room_is_not_asked_again_but_another() {
    let c = Cluster::start(12, 5, FragmentLimits::default(), Vec::new()).await;
    let a = c.coordinator(0);
    let (first, _) = c.all(&a, 0, &want(12)).await;
    let held = c.nodes[1].room.clone().acquire_many_owned(8).await.unwrap();
    let (found, gaps) = c.all(&a, 0, &want(12)).await;
    assert_eq!((found, gaps), (first.clone(), Vec::new()));
    assert!(a.hedger.full.load(Ordering::Relaxed) >= 1);
    let refused = c.nodes[1].parts.served.full.load(Ordering::Relaxed);
    assert_eq!(refused, 2, "its head and its blocks, once each");
    assert!(!a.peers.reach().is_ejected("b", 1), "it answered, it is there");
    assert!(a.hedger.avoid("b"));
    let _ = c.all(&a, 0, &want(12)).await;
    assert_eq!(c.nodes[1].parts.served.full.load(Ordering::Relaxed), refused + 1, "only its head is asked");
    drop(held);
    c.nodes[2].pool.full.store(true, Ordering::SeqCst);
    assert_eq!(c.all(&a, 0, &want(12)).await.0, first, "a full pool is no room either");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_levels_of_limits_refuse_and_say_who_they_are() {
    async fn refused(
        asked: impl Future<Output = Result<koios_query::coordinator::Selected, QueryError>>,
    ) -> String {
        match asked.await {
            Err(QueryError::Limit(text)) => text,
            other => panic!("not refused: {other:?}"),
        }
    }
    let c = Cluster::start(6, 50, FragmentLimits::default(), Vec::new()).await;
    let (a, view) = (c.coordinator(0), c.view("a"));
    let few = koios_query::Want { series_max: 20, ..want(6) };
    let text = refused(a.select(&view, &few, Form::Chunks)).await;
    assert!(text.contains("koios.query.max_series") && text.contains("20 series"), "{text}");
    let small = koios_query::Want { bytes_max: 20_000, ..want(6) };
    let text = refused(a.select(&view, &small, Form::Chunks)).await;
    assert!(text.contains("koios.query.max_bytes"), "{text}");
    for (limits, said) in [
        (FragmentLimits { series_max: 30, ..FragmentLimits::default() }, "30 series"),
        (FragmentLimits { bytes_max: 3000, ..FragmentLimits::default() }, "3000 bytes"),
        (FragmentLimits { samples_max: 700, ..FragmentLimits::default() }, "700 samples"),
    ] {
        let c = Cluster::start(6, 50, limits, Vec::new()).await;
        let text = refused(c.coordinator(0).select(&c.view("a"), &want(6), Form::Chunks)).await;
        assert!(text.contains(said) && text.contains("koios.query.fragment_max_"), "{text}");
    }
}
