//! Who is who: copies, changed addresses, seeds that are gone or somebody else by now.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use koios_cluster_tests::netns::{Cut, Lab, Link, Writer, lab};
use koios_cluster_tests::{Api, Node, NodeSpec, until};

const ENDS: Duration = Duration::from_secs(30);

/// Runs a node that must refuse to start and say all of `words`.
fn refuses(spec: &NodeSpec, words: &[&str]) {
    let (ended, log) = spec.run_to_end(ENDS);
    assert!(ended.is_some_and(|status| !status.success()), "it ends by itself: {log}");
    for word in words {
        assert!(log.contains(word), "want {word:?} in:\n{log}");
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["-a"]).arg(from).arg(to).status();
    assert!(done.is_ok_and(|s| s.success()), "a copy of the storage");
}

/// What `api` says of a node: generation and gossip address.
async fn who(api: &Api, name: &str) -> (u64, String, String) {
    let data = api.data("/api/v1/cluster/nodes", &[]).await.expect("nodes");
    let node =
        data["nodes"].as_array().into_iter().flatten().find(|n| n["name"] == name).expect("the node").clone();
    let word = |key: &str| node[key].as_str().unwrap_or("").to_owned();
    (node["generation"].as_u64().unwrap_or(0), word("gossip"), word("zone"))
}

/// The storage of n1, and its name, on another host.
fn moved(lab: &Lab, to: usize, dir: &str) -> NodeSpec {
    let mut spec = lab.spec(to);
    spec.name = "n1".to_owned();
    spec.dir = lab.dir.path().join(dir);
    spec
}

/// Fault: the storage of a living node is copied to another machine and started there. Expected: the copy sees that the
/// original lives, refuses to start and says who, where and what to do; the cluster and the original notice nothing.
/// When the original is dead the copy is its successor at another address. Observed: exit and log of the copy; what the
/// others say of the name, events included; every acknowledged sample afterwards.
#[tokio::test]
async fn s14_storage_copied_to_two_nodes() {
    let Some(lab) = Lab::start(4, 14) else { return };
    let mut nodes = lab.cluster(&[lab.spec(0), lab.spec(1), lab.spec(3)]).await;
    let mut writer = Writer::start("copied", 20, &nodes);
    writer.goes_on(1, 10, lab::PATIENCE).await;
    let api = nodes[0].api();
    let before = who(&api, "n1").await;
    copy(&nodes[1].spec.dir, &lab.dir.path().join("copy"));
    let _ = std::fs::remove_file(lab.dir.path().join("copy/lock"));
    refuses(
        &moved(&lab, 2, "copy"),
        &["step identity", "\"n1\" lives at 10.77.0.2:7946", "--storage.path", "--node.name"],
    );
    assert_eq!(who(&api, "n1").await, before);
    let events = api.data("/api/v1/cluster/events", &[]).await.unwrap().to_string();
    assert!(!events.contains("n1 started again") && !events.contains("n1 ready →"), "{events}");
    writer.goes_on(1, 3, lab::PATIENCE).await;
    writer.stop().await;
    nodes[1].kill();
    copy(&nodes[1].spec.dir, &lab.dir.path().join("successor"));
    let successor = moved(&lab, 2, "successor").start();
    nodes[1] = successor;
    until("the successor's address", lab::PATIENCE, || async {
        let (_, gossip, _) = who(&api, "n1").await;
        if gossip == "10.77.0.3:7946" { Ok(()) } else { Err(gossip) }
    })
    .await;
    lab::all_ready(&nodes).await;
    for node in &nodes {
        let api = node.api();
        until("every acknowledged sample", lab::PATIENCE, || writer.whole(&api)).await;
    }
}

/// Fault: nodes that misstate who or where they are. Expected: a second node of a living name is refused, whether it
/// joins that node or another, and a zone that is no name as well, each with what, why and the fix; a changed zone
/// and a changed address are taken over. Observed: exit and log of those that are refused; what the others say of the
/// rest.
#[tokio::test]
async fn s42_duplicate_name_wrong_zone_and_changed_address() {
    let Some(lab) = Lab::start(3, 42) else { return };
    let mut nodes = lab.cluster(&[lab.spec(0), lab.spec(1)]).await;
    let api = nodes[0].api();
    let before = who(&api, "n1").await;
    for name in ["n0", "n1"] {
        let mut twin = lab.spec(2);
        (twin.name, twin.dir) = (name.to_owned(), lab.dir.path().join(format!("twin-{name}")));
        refuses(&twin, &["step identity", &format!("{name:?} lives at"), "--node.name"]);
    }
    refuses(&lab.spec(2).arg("--zone=a b"), &["zone \"a b\" is not usable", "letters, digits"]);
    assert_eq!(who(&api, "n1").await, before);
    assert_eq!(api.nodes().await.unwrap().len(), 2);

    let mut writer = Writer::start("moved", 20, &nodes[..1]);
    writer.goes_on(0, 10, lab::PATIENCE).await;
    writer.stop().await;
    nodes[1].kill();
    nodes[1] = moved(&lab, 2, "n1").arg("--zone=west").start();
    lab::all_ready(&nodes).await;
    until("the new address and zone", lab::PATIENCE, || async {
        let (_, gossip, zone) = who(&api, "n1").await;
        if gossip == "10.77.0.3:7946" && zone == "west" { Ok(()) } else { Err(format!("{gossip} {zone}")) }
    })
    .await;
    for node in &nodes {
        let api = node.api();
        until("every acknowledged sample", lab::PATIENCE, || writer.whole(&api)).await;
    }
}

/// Fault: there is no IPv4 between the nodes. Expected: everything as ever. Observed: node lists, a write, and its
/// answer at both.
#[tokio::test]
async fn s42_ipv6_only() {
    let Some(lab) = Lab::start(2, 426) else { return };
    let six = |id: usize| {
        let host = &lab.hosts[id];
        NodeSpec::at(&format!("n{id}"), lab.dir.path(), host.v6(), lab::PORTS)
            .inside(&host.space)
            .config(&lab.config())
    };
    let first = six(0);
    let nodes = lab.cluster(&[first.clone(), six(1).join(&first)]).await;
    pushed_and_answered(&nodes).await;
    assert_eq!(lab.net.router.count(0, 1, None, None).lost, 0);
    assert_eq!(who(&nodes[1].api(), "n0").await.1, "[fd77::1]:7946");
}

/// Fault: a node is behind a gateway that translates its address, and listens on all of its own. Expected: told its
/// address outside it is reached there and nowhere else; an address that nobody can call is refused. Observed: what
/// the other says of its address, writes and answers through both; nothing is routed to the inner address.
#[tokio::test]
async fn s42_behind_a_translating_gateway() {
    let Some(lab) = Lab::start(2, 427) else { return };
    let outside = Ipv4Addr::new(10, 77, 0, 200);
    lab.net.router.translate(1, outside);
    let mut inner = lab.spec(1);
    inner.ip = Ipv4Addr::UNSPECIFIED.into();
    refuses(
        &inner.clone().arg("--cluster.advertise-address=0.0.0.0:7946"),
        &["--cluster.advertise-address", "nobody can call"],
    );
    let told = inner.arg(format!("--cluster.advertise-address={outside}:7946"));
    let nodes = [lab.spec(0).start(), told.start()];
    let apis = [nodes[0].api(), Api::new(SocketAddr::new(outside.into(), lab::PORTS[0]))];
    for api in &apis {
        until("two ready nodes", lab::PATIENCE, || api.all_ready(2)).await;
    }
    assert_eq!(who(&apis[0], "n1").await.1, format!("{outside}:7946"));
    let mut writer = Writer::start("outside", 20, &nodes[..1]);
    writer.goes_on(0, 10, lab::PATIENCE).await;
    writer.stop().await;
    for api in &apis {
        until("every acknowledged sample", lab::PATIENCE, || writer.whole(api)).await;
    }
}

async fn pushed_and_answered(nodes: &[Node]) {
    let mut writer = Writer::start("ordinary", 20, nodes);
    for at in 0..nodes.len() {
        writer.goes_on(at, 5, lab::PATIENCE).await;
    }
    writer.stop().await;
    for node in nodes {
        let api = node.api();
        until("every acknowledged sample", lab::PATIENCE, || writer.whole(&api)).await;
    }
}

/// Fault: two and two of four nodes are cut apart for longer than gossip remembers the dead (ten minutes, eight
/// seconds here). Expected: when the network is back they find each other by what they have written down, within a
/// minute, without an operator; nothing acknowledged is lost. Observed: node lists, time; acknowledgement log.
#[tokio::test]
async fn s30_partition_longer_than_the_grace() {
    let Some(lab) = Lab::start(4, 30) else { return };
    let grace = Duration::from_secs(8);
    let text = std::fs::read_to_string(lab.config()).unwrap();
    std::fs::write(
        lab.config(),
        format!("{text}koios: {{cluster: {{dead_node_grace: {}s}}}}\n", grace.as_secs()),
    )
    .unwrap();
    let nodes = lab.whole().await;
    let mut writer = Writer::start("graceless", 20, &nodes);
    writer.goes_on(0, 10, lab::PATIENCE).await;
    lab.net.router.between(&[0, 1], &[2, 3], &Link::cut(Cut::All));
    for (at, other) in [(0, "n2"), (1, "n3"), (2, "n0"), (3, "n1")] {
        lab::state_is(&nodes[at].api(), other, "dead").await;
    }
    // All four counts of the dead began before this; gossip looks at them each second.
    tokio::time::sleep(grace + Duration::from_secs(5)).await;
    lab.net.router.heal();
    let begun = Instant::now();
    lab::all_ready(&nodes).await;
    let met = begun.elapsed();
    writer.stop().await;
    for node in &nodes {
        let api = node.api();
        until("every acknowledged sample", lab::PATIENCE, || writer.whole(&api)).await;
    }
    eprintln!("30: met again after {met:?}");
}

/// Fault: the seed is not there when a node starts for the first time; later it is there; then it is gone for ever,
/// and its address belongs to another cluster. Expected: a new node waits, says so, and never serves alone; nodes
/// that have run before find each other without the seed; a new node that meets the other cluster ends with the
/// reason; one that has run before goes on with its peers; neither cluster takes up a node of the other. Observed:
/// logs, readiness, node lists on both sides.
#[tokio::test]
async fn s31_seed_dead_gone_for_ever_and_reused() {
    let Some(lab) = Lab::start(4, 31) else { return };
    let early = lab.spec(1).start();
    until("the step and the fix", ENDS, || async {
        let log = early.log();
        if log.contains("step connect") && log.contains("fix: start that node") { Ok(()) } else { Err(log) }
    })
    .await;
    // Longer than a node that has run before would wait.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(18) {
        assert!(early.api().ready().await.is_err(), "it serves alone");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut nodes = vec![lab.spec(0).start(), early, lab.spec(2).start()];
    lab::all_ready(&nodes).await;
    lab::settled(&nodes).await;
    let mut writer = Writer::start("seedless", 20, &nodes[1..]);
    writer.goes_on(0, 10, lab::PATIENCE).await;
    writer.stop().await;

    nodes.iter_mut().for_each(Node::kill);
    let mut stranger = lab.lone(0).arg("--cluster.name=other");
    (stranger.name, stranger.dir) = ("stranger".to_owned(), lab.dir.path().join("stranger"));
    let other = stranger.start();
    other.ready().await;
    refuses(&lab.spec(3), &["step cluster name", "belongs to cluster \"other\"", "--cluster.name"]);
    let rest: Vec<Node> = nodes[1..].iter().map(|n| n.spec.start()).collect();
    for node in &rest {
        let api = node.api();
        until("both are ready without their seed", lab::PATIENCE, || async {
            let states = api.nodes().await?;
            let well = states["n1"] == "ready" && states["n2"] == "ready" && states.len() == 3;
            if well { api.ready().await } else { Err(format!("{states:?}")) }
        })
        .await;
        assert!(node.log().contains("step cluster name"), "{}", node.log());
        until("every acknowledged sample", lab::PATIENCE, || writer.whole(&api)).await;
    }
    assert_eq!(other.api().nodes().await.unwrap().len(), 1, "the other cluster");
}
