//! Joining: from `--join` to the first peer, explaining itself all the way.
//!
//! A seed that may still come up is waited for, with a line when the reason changes and every 10 s; one that
//! can never fit (another cluster, another secret) ends the process with the fix.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use koios_cluster::identity::replace_file;
use koios_cluster::join::{Attempt, attempt};
use koios_cluster::replicas::{is_known, ring};
use koios_cluster::{Gossip, JoinProblem, KeyRing, Losses, SoleRange};
use koios_model::Clock;
use koios_query::Peers;
use parking_lot::Mutex;

use crate::reports::{LOST, MEMBERS};

/// How joining ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Joined {
    /// Peers were met.
    Met,
    /// The only seed is this node, or none was given.
    Alone,
    /// No seed answers, but this node has run before and goes on with its own data.
    Rejoining,
}

/// How long gossip may take once a seed has answered over TCP.
const GOSSIP_PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(300);
const SAY_AGAIN: u32 = 33;
/// Longest wait for one peer to say whom it sees.
const KNOWN_PATIENCE: Duration = Duration::from_secs(2);
/// A node with data of its own waits this long for its peers before it serves alone.
const REJOIN_PATIENCE_NS: u64 = 15_000_000_000;

/// Rings at all seeds until one fits.
///
/// # Errors
/// A problem that waiting cannot heal, when no other seed fits.
pub async fn join(
    seeds: Vec<String>,
    node: &str,
    ring: &KeyRing,
    gossip: &Arc<Gossip>,
    restarted: bool,
    clock: &dyn Clock,
) -> Result<Joined, JoinProblem> {
    if seeds.is_empty() {
        return Ok(Joined::Alone);
    }
    let start_ns = clock.mono_ns();
    let mut said: HashMap<String, String> = HashMap::new();
    for round in 0u32.. {
        let (mut met, mut myself, mut hopeless) = (false, 0, Vec::new());
        for seed in &seeds {
            match attempt(seed, node, ring).await {
                Ok(Attempt::Peer(addr, name)) => {
                    tracing::info!(seed, %addr, peer = name, "contacting seed: ok");
                    gossip.greet(addr);
                    met = true;
                }
                Ok(Attempt::Myself) => myself += 1,
                Err(problem) => {
                    let text = problem.to_string();
                    if said.get(seed) != Some(&text) || round.is_multiple_of(SAY_AGAIN) {
                        tracing::warn!(seed, problem = text, "contacting seed: not yet");
                        said.insert(seed.clone(), text);
                    }
                    if !problem.may_heal() {
                        hopeless.push(problem);
                    }
                }
            }
        }
        if met && wait_for_peer(gossip).await {
            return Ok(Joined::Met);
        }
        if myself == seeds.len() {
            return Ok(Joined::Alone);
        }
        // Peers may find this node first, through seeds of their own or from before a restart.
        if peers(gossip) > 0 {
            return Ok(Joined::Met);
        }
        let waited = clock.mono_ns() - start_ns > REJOIN_PATIENCE_NS;
        // One that has run before gets time to meet its peers: another cluster may be where its seed was.
        if hopeless.len() + myself == seeds.len()
            && (waited || !restarted)
            && let Some(problem) = hopeless.into_iter().next()
        {
            return Err(problem);
        }
        if restarted && waited {
            tracing::warn!("no seed answers; this node has run before and serves what it has");
            return Ok(Joined::Rejoining);
        }
        tokio::time::sleep(RETRY).await;
    }
    unreachable!("BUG: the loop ends by returning")
}

/// Waits for the first of the static peers to say who it is. They all may be started for the first time, this one before
/// the others: it does not wait for ever, and they find it.
pub async fn meet_static_peers(gossip: &Gossip) -> Joined {
    let patience = Duration::from_nanos(REJOIN_PATIENCE_NS);
    if tokio::time::timeout(patience, first_peer(gossip)).await.is_ok() {
        return Joined::Met;
    }
    tracing::warn!("no static peer answers; this node begins alone and goes on asking them");
    Joined::Alone
}

async fn first_peer(gossip: &Gossip) {
    let mut views = gossip.subscribe();
    let _ = views.wait_for(|v| v.members.values().any(|m| m.name != v.me && m.is_alive())).await;
}

/// Waits until more than half of the nodes that take pushed samples know this one, so that its copies count: behind
/// a cut a new node could make a quorum of which the others know nothing (`koios_cluster::replicas::is_known`).
pub async fn until_known(gossip: &Gossip, peers: &Peers, clock: &dyn Clock) {
    for round in 0u32.. {
        let view = gossip.view();
        let ring = ring(&view, clock.now_ms());
        let own = view.own().map(|m| (m.name.clone(), m.generation));
        let asked = ring.iter().filter(|m| m.name != view.me && m.is_alive()).map(|m| async {
            let answer = peers.report(m, MEMBERS, KNOWN_PATIENCE).await.ok()?;
            let seen: Vec<(String, u64)> = serde_json::from_slice(&answer).ok()?;
            own.as_ref().filter(|me| seen.contains(me)).map(|_| m.name.clone())
        });
        let knowing: HashSet<String> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        if is_known(&ring, &view.me, &|m| knowing.contains(&m.name)) {
            return;
        }
        if round.is_multiple_of(SAY_AGAIN) && round > 0 {
            let nodes = ring.len();
            tracing::warn!(
                nodes,
                knowing = knowing.len(),
                "not ready: less than half of the nodes know this one yet"
            );
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Asks the peers, once in the life of a disk, what this node held on one before, and keeps the answer. Peers that do not answer are asked again a few times; what nobody remembers is not known.
pub async fn recall(gossip: &Gossip, peers: &Peers, losses: &Mutex<Losses>, state_dir: &Path) {
    let done = state_dir.join("recalled");
    if done.exists() {
        return;
    }
    let view = gossip.view();
    let mut open: Vec<_> =
        view.members.values().filter(|m| m.name != view.me && m.is_alive()).cloned().collect();
    let generation = view.own().map(|m| m.generation);
    let ask = format!("{LOST} {}", serde_json::json!({ "node": view.me, "generation": generation }));
    for _ in 0..RECALLS_MAX {
        let asked = open.iter().map(|m| async { peers.report(m, &ask, KNOWN_PATIENCE).await.ok() });
        let answers = futures::future::join_all(asked).await;
        let mut missed = Vec::new();
        for (m, answer) in open.into_iter().zip(answers) {
            match answer.and_then(|a| serde_json::from_slice::<Remembered>(&a).ok()) {
                Some(told) => keep(&told, losses),
                None => missed.push(m),
            }
        }
        open = missed;
        if open.is_empty() {
            break;
        }
        tokio::time::sleep(RETRY).await;
    }
    if let Err(e) = replace_file(&done, "") {
        tracing::warn!(error = %e, "peers will be asked again what this node held");
    }
}

/// How often a silent peer is asked what it remembers.
const RECALLS_MAX: usize = 5;

/// What a peer remembers of a node: first and last moments.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Remembered {
    /// What it lost.
    pub holes: Vec<(i64, i64)>,
    /// What of that it held alone.
    #[serde(alias = "sole")]
    pub alone: Vec<(i64, i64)>,
}

fn keep(told: &Remembered, losses: &Mutex<Losses>) {
    if told.holes.is_empty() {
        return;
    }
    tracing::warn!(
        "the disk of this node is new, and peers remember another one: what it held is missing here"
    );
    let ranges = |list: &[(i64, i64)]| {
        list.iter().map(|(from, until)| SoleRange { from: *from, until: *until }).collect()
    };
    let (holes, alone): (Vec<_>, Vec<_>) = (ranges(&told.holes), ranges(&told.alone));
    if let Err(e) = losses.lock().add(&holes, &alone) {
        tracing::warn!(error = %e, "what this node lost is not kept on disk");
    }
}

fn peers(gossip: &Gossip) -> usize {
    let view = gossip.view();
    view.members.values().filter(|m| m.name != view.me && m.is_alive()).count()
}

/// A seed answered over TCP; gossip follows within a second or two unless UDP is blocked. Without it this node would be a
/// cluster of its own beside the one it was told to join.
async fn wait_for_peer(gossip: &Gossip) -> bool {
    let met = tokio::time::timeout(GOSSIP_PATIENCE, first_peer(gossip)).await.is_ok();
    if !met {
        tracing::error!(
            "step gossip: the seed answers over TCP but not over UDP; fix: let UDP through on the cluster port between the nodes, or name all nodes with --cluster.peer on each of them"
        );
    }
    met
}
