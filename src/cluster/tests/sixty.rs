//! Sixty real gossip services in one process, sealed, with the production interval: they meet, are restarted one and all,
//! agree again soon, cost little while nothing happens, and notice who is killed.

mod house;

use std::net::SocketAddr;
use std::time::Duration;

use house::{House, Watch, free_addresses, ready, record, sent_bytes, within};
use koios_cluster::keys::{HeadSummary, SoleRange};
use koios_cluster::{Gossip, GossipOptions, NodeRecord, NodeState};

const NODES: usize = 60;
const ZONES: usize = 3;
const INTERVAL: Duration = Duration::from_secs(1);
/// Restarted at a time.
const BATCH: usize = 10;
const KILLED: usize = 6;
const MEASUREMENTS: usize = 3;
/// After the last change all views agree within this time.
const AGREE_MAX: Duration = Duration::from_secs(5);
/// Measured: below 4 KB/s. Frames with their seals.
const IDLE_BYTES_PER_SECOND_MAX: u64 = 12_000;
/// Measured: all within 10 s.
const DETECTION_MAX: Duration = Duration::from_secs(30);
const STATE_BYTES_MAX: usize = 2048;

/// A record with everything in it that a busy node says.
fn full_record(i: usize) -> NodeRecord {
    let now = 1_790_000_000_000;
    let stretch = |n: i64| SoleRange { from: now + n * 3_600_000, until: now + n * 3_600_000 + 600_123 };
    NodeRecord {
        version: "12.34.56".into(),
        zone: format!("europe-west-{}", i % ZONES),
        rpc: "[2001:db8:1234:5678:9abc:def0:1234:5678]:10901".parse().expect("an address"),
        http: "[2001:db8:1234:5678:9abc:def0:1234:5678]:19090".parse().expect("an address"),
        since: now,
        head: HeadSummary {
            min_time: Some(now),
            sole: (0..8).map(stretch).collect(),
            zone_sole: (4..12).map(stretch).collect(),
            series_log2: 23,
            holes: (8..16).map(stretch).collect(),
            lost_alone: (10..18).map(stretch).collect(),
        },
        bucket: "01ARZ3NDEKTSV4RRFFQ69G5FAV".into(),
        catalogue: u64::MAX,
        ring_hash: u64::MAX,
        ..record("z")
    }
}

struct Sixty {
    house: House,
    addresses: Vec<SocketAddr>,
    nodes: Vec<Option<Gossip>>,
    generations: Vec<u64>,
}

impl Sixty {
    fn new() -> Self {
        let addresses = free_addresses(NODES);
        let nodes = (0..NODES).map(|_| None).collect();
        Self { house: House::new(INTERVAL), addresses, nodes, generations: vec![0; NODES] }
    }

    async fn start(&mut self, i: usize) {
        self.generations[i] += 1;
        let options = self.house.options(&format!("node-{i:02}"), self.addresses[i], self.generations[i]);
        let options = GossipOptions { seeds: self.addresses[..3].to_vec(), ..options };
        // The port of a service that was stopped a moment ago is closed by its task.
        let start = Watch::start();
        loop {
            let options = GossipOptions {
                node: options.node.clone(),
                seeds: options.seeds.clone(),
                ring: options.ring.clone(),
                state_dir: options.state_dir.clone(),
                clock: options.clock.clone(),
                weather: None,
                ..options
            };
            match Gossip::start(options, full_record(i)).await {
                Ok(g) => {
                    self.nodes[i] = Some(g);
                    return;
                }
                Err(e) => assert!(start.elapsed() < house::PATIENCE, "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn up(&self) -> impl Iterator<Item = &Gossip> {
        self.nodes.iter().flatten()
    }

    /// Everybody sees exactly the generations that run, and the same ring.
    fn agreed(&self) -> Result<(), String> {
        let running = self.up().count();
        let mut hash = None;
        for g in self.up() {
            let view = g.view();
            if ready(&view) != running {
                let others = view.members.values().filter(|m| !m.is_ready()).map(|m| m.name.as_str());
                let others: Vec<&str> = others.collect();
                return Err(format!("{} sees {} of {running}, not ready: {others:?}", view.me, ready(&view)));
            }
            if *hash.get_or_insert(view.ring_hash()) != view.ring_hash() {
                return Err(format!("{} has another ring", view.me));
            }
        }
        // The ring is of names and generations; all have the same, so one tells whether it is the right one.
        let Some(view) = self.up().next().map(|g| g.view()) else { return Ok(()) };
        for (i, generation) in self.generations.iter().enumerate().filter(|(i, _)| self.nodes[*i].is_some()) {
            let seen = view.members.get(&format!("node-{i:02}")).map(|m| m.generation);
            if seen != Some(*generation) {
                return Err(format!("{} sees node {i} as {seen:?}, it is {generation}", view.me));
            }
        }
        Ok(())
    }

    /// Restarts every node once, batch by batch.
    async fn restart_all(&mut self) {
        for batch in 0..NODES / BATCH {
            self.restart(batch).await;
        }
    }

    /// Restarts some nodes, every second one without a word.
    async fn restart(&mut self, batch: usize) {
        let members = batch * BATCH..(batch + 1) * BATCH;
        for i in members.clone().filter(|i| i % 2 == 0) {
            if let Some(g) = &self.nodes[i] {
                g.publish(|r| r.state = NodeState::Leaving);
            }
        }
        tokio::time::sleep(2 * INTERVAL).await;
        for i in members.clone() {
            self.nodes[i] = None;
        }
        for i in members {
            self.start(i).await;
        }
    }

    /// How long after the last restart all agree. A machine that is busy with other things can spoil a measurement, so it
    /// is taken again after another batch, twice at most; the first good one counts.
    async fn agreement(&mut self) -> Duration {
        let mut best = Duration::MAX;
        for again in 0..MEASUREMENTS {
            if again > 0 {
                self.restart(again).await;
            }
            best = best.min(within("all agree again", house::PATIENCE, || self.agreed()).await);
            if best <= AGREE_MAX {
                break;
            }
        }
        best
    }
}

fn quantile(sorted: &[Duration], q: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * q) as usize]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_nodes_restart_agree_within_five_seconds_and_notice_the_dead() {
    let mut sixty = Sixty::new();
    for i in 0..NODES {
        sixty.start(i).await;
    }
    let met = within("all meet", house::PATIENCE, || sixty.agreed()).await;
    let state = full_record(0).to_pairs().iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
    assert!(state <= STATE_BYTES_MAX, "{state} bytes of state");

    // Young nodes introduce themselves for a while.
    tokio::time::sleep(4 * INTERVAL).await;
    let watched = Duration::from_secs(5);
    let before: u64 = sixty.up().map(sent_bytes).sum();
    let since = Watch::start();
    tokio::time::sleep(watched).await;
    let idle = (sixty.up().map(sent_bytes).sum::<u64>() - before) as f64;
    let idle = (idle / since.elapsed().as_secs_f64()) as u64 / NODES as u64;

    sixty.restart_all().await;
    let agreed = sixty.agreement().await;

    let killed: Vec<usize> = (0..KILLED).map(|k| 3 + k * 9).collect();
    killed.iter().for_each(|i| sixty.nodes[*i] = None);
    let since = Watch::start();
    let mut noticed: Vec<Vec<Option<Duration>>> = vec![vec![None; KILLED]; NODES];
    within("all notice the dead", DETECTION_MAX, || {
        let mut open = 0;
        for (at, g) in sixty.nodes.iter().enumerate().filter_map(|(i, g)| Some((i, g.as_ref()?))) {
            let view = g.view();
            for (k, i) in killed.iter().enumerate() {
                let dead = view.members.get(&format!("node-{i:02}")).is_none_or(|m| !m.is_alive());
                if dead && noticed[at][k].is_none() {
                    noticed[at][k] = Some(since.elapsed());
                }
                open += usize::from(noticed[at][k].is_none());
            }
        }
        if open == 0 { Ok(()) } else { Err(format!("{open} still think a dead node alive")) }
    })
    .await;
    within("the rest agrees", house::PATIENCE, || sixty.agreed()).await;
    let mut times: Vec<Duration> = noticed.into_iter().flatten().flatten().collect();
    times.sort_unstable();
    let restarts: u64 = sixty.up().map(|g| g.health().task_restarts()).sum();
    println!(
        "sixty nodes: met in {met:?}; state {state} B a node; idle {idle} B/s a node; agreed {agreed:?} after the last \
         restart; death noticed p50 {:?}, max {:?}",
        quantile(&times, 0.5),
        quantile(&times, 1.0)
    );
    assert_eq!(restarts, 0, "no gossip task ended by itself");
    assert!(idle < IDLE_BYTES_PER_SECOND_MAX, "{idle} bytes a second");
    assert!(agreed <= AGREE_MAX, "agreed only after {agreed:?}");
}
