//! A network in which others send what they like.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use koios_cluster_tests::netns::flood::flood;
use koios_cluster_tests::netns::packet::{udp, udp_payload};
use koios_cluster_tests::netns::{Lab, Writer, lab};
use koios_cluster_tests::{Api, Node, until};

const RATE: u64 = 50_000;
const GOSSIP: u16 = lab::PORTS[2];

fn v4(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => unreachable!("BUG: an IPv4 address was asked for"),
    }
}

/// Seconds of processor time that a process has used, by `/proc`: ticks of 1/100 s.
fn cpu(node: &Node) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.pid())).expect("its status");
    let after = stat.rsplit_once(") ").expect("a name in brackets").1;
    let ticks = |at: usize| after.split(' ').nth(at).and_then(|t| t.parse::<f64>().ok()).expect("ticks");
    (ticks(11) + ticks(12)) / 100.0
}

/// A counter of gossip frames.
async fn frames(api: &Api, what: &str) -> f64 {
    let (_, text) = api.get("/metrics", &[]).await.expect("metrics");
    let name = format!("koios_gossip_frames_total{{what=\"{what}\"}} ");
    let line = text.lines().find_map(|l| l.strip_prefix(&name)).expect("the counter");
    line.trim().parse().expect("a number")
}

/// Everything that a stranger can send: noise of all sizes, frames whose seal is wrong at one place each, frames
/// sealed with a key that nobody has, and datagrams larger than any frame.
fn forged(genuine: &[Vec<u8>], from: Ipv4Addr, to: Ipv4Addr) -> Vec<Vec<u8>> {
    let packet = |payload: &[u8]| udp((from, GOSSIP), (to, GOSSIP), payload);
    let mut out = Vec::new();
    for (i, g) in genuine.iter().enumerate() {
        let frame = udp_payload(g).expect("a datagram");
        for at in [0, 5, 9, 15, frame.len() / 2, frame.len() - 1] {
            let mut bad = frame.to_vec();
            bad[at] ^= 1 << (i % 8);
            out.push(packet(&bad));
        }
        out.push(packet(&frame[..frame.len() * i / genuine.len()]));
        out.push(packet(&vec![i as u8; 1 + i * 29]));
        out.push(packet(&[frame, &[0; 400][..]].concat()));
        // A plain message of the gossip engine itself: a SYN of another cluster.
        out.push(packet(&[1, 0, 0, 0, 0, 0, 7, 0, 0, 0, b'd', b'e', b'f', b'a', b'u', b'l', b't', i as u8]));
    }
    out
}

/// Fault: 50,000 datagrams a second at one node's gossip port for five seconds each: noise, forgeries made of real
/// frames, oversized ones, and then real frames of its peers, replayed. All say that they come from a peer. Expected:
/// everything but the real ones is dropped before the gossip engine sees it, the membership does not change at any
/// node, writes go on, and the processor time for a datagram stays small (10 % of a core at this rate in a release
/// build; a build for tests gets 5 times that, and the system's own work for each datagram is in it). Observed: event
/// logs, the counters of rejected frames, processor time of the process before and after.
#[tokio::test]
async fn s34_garbage_forged_oversized_and_replayed_gossip() {
    let Some(lab) = Lab::start(3, 34) else { return };
    let secret = lab.dir.path().join("secret");
    std::fs::write(&secret, "correct horse battery staple\n").unwrap();
    let specs: Vec<_> =
        (0..3).map(|id| lab.spec(id).arg(format!("--cluster.secret-file={}", secret.display()))).collect();
    lab.net.router.tap(0, GOSSIP, 64);
    let nodes = lab.cluster(&specs).await;
    lab::settled(&nodes).await;
    let mut writer = Writer::start("flooded", 20, &nodes);
    writer.goes_on(0, 5, lab::PATIENCE).await;
    let api = nodes[0].api();
    let genuine = lab.net.router.tapped();
    assert_eq!(genuine.len(), 64);
    let (a, b) = (v4(lab.hosts[1].v4()), v4(lab.hosts[0].v4()));
    let oversized: Vec<Vec<u8>> = vec![udp((a, GOSSIP), (b, GOSSIP), &[0x4b; 60_000])];
    let kinds = [
        ("forged", forged(&genuine, a, b), RATE),
        ("oversized", oversized, RATE / 10),
        ("replayed", genuine, RATE),
    ];
    let mut seen = Vec::new();
    for node in &nodes {
        seen.push(events(&node.api()).await);
    }
    for (kind, packets, rate) in kinds {
        let (rejected, used, begun) = (frames(&api, "rejected").await, cpu(&nodes[0]), Instant::now());
        let router = lab.net.router.clone();
        let sending = move || flood(&router, 0, &packets, rate, Duration::from_secs(5));
        let flooded = tokio::task::spawn_blocking(sending).await.expect("the sender");
        writer.goes_on(0, 3, Duration::from_secs(30)).await;
        let used = cpu(&nodes[0]) - used;
        let share = used / begun.elapsed().as_secs_f64();
        let rejected = frames(&api, "rejected").await - rejected;
        eprintln!(
            "34 {kind}: {} datagrams in {:?}, {rejected} rejected, {:.0} % of a core, {:.1} us each",
            flooded.taken,
            flooded.took,
            share * 100.0,
            used * 1e6 / flooded.taken as f64
        );
        assert!(flooded.taken > 10_000, "{flooded:?}");
        assert!(rejected > 1000.0, "{kind}: {rejected} rejected");
        assert!(share < 0.5 * flooded.taken as f64 / (5 * RATE) as f64 + 0.5, "{kind}: {share} of a core");
        for (node, before) in nodes.iter().zip(&seen) {
            let now = events(&node.api()).await;
            assert_eq!(now, *before, "{kind}: the membership as {} sees it", node.spec.name);
            node.api().all_ready(3).await.unwrap();
        }
    }
    writer.stop().await;
    for node in &nodes {
        let api = node.api();
        until("every acknowledged sample", lab::PATIENCE, || writer.whole(&api)).await;
    }
}

/// What a node says of members.
async fn events(api: &Api) -> Vec<String> {
    let data = api.data("/api/v1/cluster/events", &[]).await.expect("events");
    let list = data["events"].as_array().expect("a list");
    list.iter().filter(|e| e["kind"] == "member").map(|e| e["what"].to_string()).collect()
}
