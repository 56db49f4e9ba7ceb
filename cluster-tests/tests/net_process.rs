//! Nodes that die, stop or start together, on a network of their own.

use std::process::Command;
use std::time::{Duration, Instant};

use koios_cluster_tests::netns::{Lab, Writer, lab};
use koios_cluster_tests::push::{self, Push, ms};
use koios_cluster_tests::{Node, until};

fn signal(node: &Node, name: &str) {
    let sent = Command::new("kill").args([name, &node.pid().to_string()]).status();
    assert!(sent.is_ok_and(|s| s.success()), "{name} to {}", node.spec.name);
}

async fn whole_everywhere(nodes: &[Node], writer: &Writer) {
    for node in nodes {
        let api = node.api();
        until(&format!("{} has all of it", node.spec.name), lab::PATIENCE, || writer.whole(&api)).await;
    }
}

/// Fault: the only node is killed (SIGKILL) in the middle of pushes, five times, as soon as a few more were
/// acknowledged. Expected: after each start every acknowledged sample is there, once, with its value; a torn end of
/// the log is dropped and said. Observed: the acknowledgement log of self-describing samples against a query for all
/// of them; no other node has a copy that could stand in.
#[tokio::test]
async fn s01_killed_while_it_appends() {
    let Some(lab) = Lab::start(1, 1) else { return };
    let mut nodes = lab.whole().await;
    let mut writer = Writer::start("killed", 50, &nodes);
    for round in 0..5 {
        writer.goes_on(0, 8 + round, lab::PATIENCE).await;
        // Not between two pushes: the next one is on its way by then.
        let acked = writer.acked();
        tokio::time::sleep(Duration::from_millis(23 * (round as u64 + 1))).await;
        nodes[0].kill();
        nodes[0] = nodes[0].spec.start();
        nodes[0].ready().await;
        assert!(writer.acked() >= acked && nodes[0].log().contains("log replayed"));
        writer.whole(&nodes[0].api()).await.expect("every acknowledged sample");
    }
    writer.stop().await;
    whole_everywhere(&nodes, &writer).await;
    eprintln!("1: {} of {} batches acknowledged over five kills", writer.acked(), writer.batches().len());
}

/// Fault: all five nodes are killed at once while they are pushed to, and started at once. Expected: all are ready
/// within two minutes, nothing acknowledged is lost, and every node gives the same answer. Observed: time until each
/// lists five ready nodes; the acknowledgement log.
#[tokio::test]
async fn s38_all_nodes_start_again_at_once() {
    let Some(lab) = Lab::start(5, 38) else { return };
    let mut nodes = lab.whole().await;
    let mut writer = Writer::start("restarted", 100, &nodes);
    for at in 0..nodes.len() {
        writer.goes_on(at, 10, lab::PATIENCE).await;
    }
    nodes.iter_mut().for_each(Node::kill);
    let begun = Instant::now();
    let mut nodes: Vec<Node> = nodes.iter().map(|n| n.spec.start()).collect();
    lab::all_ready(&nodes).await;
    let ready = begun.elapsed();
    assert!(ready < Duration::from_secs(120), "ready after {ready:?}");
    for at in 0..nodes.len() {
        writer.goes_on(at, 3, lab::PATIENCE).await;
    }
    writer.stop().await;
    whole_everywhere(&nodes, &writer).await;
    eprintln!("38: five nodes ready {ready:?} after a kill of all, {} batches acknowledged", writer.acked());
    // Without the first one, which is the seed of all others. Each has known the others for a second or more.
    nodes.iter_mut().for_each(Node::kill);
    let rest: Vec<Node> = nodes[1..].iter().map(|n| n.spec.start()).collect();
    for node in &rest {
        let api = node.api();
        until("four nodes find each other by their peer books", Duration::from_secs(120), || async {
            let states = api.nodes().await?;
            if states.values().filter(|s| *s == "ready").count() == 4 {
                Ok(())
            } else {
                Err(format!("{states:?}"))
            }
        })
        .await;
    }
}

/// Fault: three of four nodes are killed and started again in turn, three times each within a minute or so, while
/// samples are pushed. Expected: no panic, every question answered truly, and what gossip remembers of the dead stays far
/// below what a message can carry. Observed: the oracle after every restart; identities, their bytes and panics as every
/// node counts them.
#[tokio::test]
async fn s37_ten_times_the_churn() {
    let Some(lab) = Lab::start(4, 37) else { return };
    let mut nodes = lab.whole().await;
    let mut writer = Writer::start("churned", 20, &nodes);
    let begun = Instant::now();
    for restart in 0..9 {
        writer.goes_on(0, 3, lab::PATIENCE).await;
        let at = 1 + restart % 3;
        nodes[at].kill();
        nodes[at] = nodes[at].spec.start();
        nodes[at].ready().await;
        for node in &nodes {
            writer.check(&node.api()).await.unwrap_or_else(|why| panic!("{}: {why}", node.spec.name));
        }
    }
    let churned = begun.elapsed();
    lab::all_ready(&nodes).await;
    writer.stop().await;
    whole_everywhere(&nodes, &writer).await;
    for node in &nodes {
        let (_, text) = node.api().get("/metrics", &[]).await.expect("metrics");
        let metric = |name: &str| -> f64 {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("no {name}"))
        };
        let (ids, bytes) = (metric("koios_gossip_identities"), metric("koios_gossip_identity_bytes"));
        assert!(
            ids <= 13.0 && bytes < metric("koios_gossip_identity_bytes_limit") / 10.0,
            "{ids}, {bytes} B"
        );
        assert_eq!((metric("koios_panics_total"), metric("koios_gossip_task_restarts_total")), (0.0, 0.0));
        assert!(!node.log().contains("panicked"), "{}", node.spec.name);
    }
    eprintln!("37: nine restarts in {churned:?}, {} batches acknowledged", writer.acked());
}

/// Fault: the node that all pushes go to, and that is asked, is stopped (SIGSTOP) for ten seconds and goes on, with
/// gossip and connections of before. Expected: the others say that it is dead and take writes meanwhile; what it
/// acknowledges late is kept; nothing is lost and nothing is there twice, not even a batch that was sent again by
/// hand because no answer came. Observed: acknowledgement log, a batch pushed to the stopped node and again to
/// another, node lists. `KOIOS_STOP_SECONDS` sets another length; five minutes are run in the simulator, and here by hand.
#[tokio::test]
async fn s46_stopped_for_ten_seconds() {
    let length = std::env::var("KOIOS_STOP_SECONDS").map_or(10, |s| s.parse().expect("a number of seconds"));
    let Some(lab) = Lab::start(3, 46) else { return };
    let nodes = lab.whole().await;
    lab::settled(&nodes).await;
    let mut writer = Writer::start("stopped", 20, &nodes);
    for at in 0..nodes.len() {
        writer.goes_on(at, 10, lab::PATIENCE).await;
    }
    signal(&nodes[0], "-STOP");
    let stopped = Instant::now();
    let t = ms();
    let batch = || {
        Push::v1(
            (0..20)
                .map(|n| push::series(&[("__name__", "again"), ("n", &n.to_string())], &[(t, n as f64)]))
                .collect(),
        )
    };
    let (to, body) = (nodes[0].spec.http(), batch());
    let hanging = tokio::spawn(async move { body.to(to).await });
    lab::state_is(&nodes[1].api(), "n0", "dead").await;
    let reply = until("a write while one is stopped", lab::PATIENCE, || async {
        let reply = batch().to(nodes[1].spec.http()).await?;
        if reply.status == 204 { Ok(reply) } else { Err(format!("{reply:?}")) }
    })
    .await;
    assert_eq!(reply.status, 204);
    writer.goes_on(1, 5, Duration::from_secs(30)).await;
    for node in &nodes[1..] {
        writer.check(&node.api()).await.expect("a true answer while one is stopped");
    }
    tokio::time::sleep(Duration::from_secs(length).saturating_sub(stopped.elapsed())).await;
    signal(&nodes[0], "-CONT");
    for _ in 0..10 {
        writer.check(&nodes[0].api()).await.expect("a true answer of the one that slept");
    }
    let late = hanging.await.expect("the task");
    lab::all_ready(&nodes).await;
    writer.goes_on(0, 5, lab::PATIENCE).await;
    writer.stop().await;
    whole_everywhere(&nodes, &writer).await;
    for node in &nodes {
        let at = koios_cluster_tests::api::now();
        let counts = node.api().vector("count_over_time(again[1h])", at).await.unwrap();
        assert_eq!(counts.len(), 20);
        assert!(counts.values().all(|n| n == "1"), "{}: {counts:?}", node.spec.name);
    }
    eprintln!("46: stopped for {:?}, the push that hung got {late:?}", stopped.elapsed());
}
