//! Starting gossip: addresses, exposure, first words.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use koios_cluster::keys::HeadSummary;
use koios_cluster::peers::PeerBook;
use koios_cluster::{Gossip, GossipOptions, NodeRecord, SoleTracker, join, namesake};
use parking_lot::Mutex;

use crate::identity::Identity;
use crate::settings::Settings;
use crate::wire::Foundation;

/// Suspicion threshold in mean intervals: a silent node is dead after five to eight seconds.
const PHI: f64 = 8.0;

/// A running gossip service and what the user should know about it.
pub struct Gossiping {
    pub gossip: Arc<Gossip>,
    pub advertise: SocketAddr,
    pub http: SocketAddr,
    pub rpc: SocketAddr,
    pub warnings: Vec<String>,
}

/// Time between gossip rounds.
pub fn interval(settings: &Settings) -> Duration {
    Duration::from_millis(settings.config.koios.cluster.gossip_interval_ms.clamp(50, 9_000) as u64)
}

/// Starts gossip on the network runtime as `starting`.
///
/// # Errors
/// A taken port, or an address that must not be used without a secret.
pub async fn start(
    settings: &Settings,
    me: &Identity,
    f: &Foundation,
    web: SocketAddr,
    grpc: SocketAddr,
) -> Result<Gossiping, String> {
    let state_dir = settings.args.storage_path.join("cluster");
    let saved = PeerBook::open(&state_dir).seeds();
    let seeds = lookup(settings.join.iter().map(|s| join::with_port(s))).await;
    let peers = lookup(settings.peers.iter().cloned()).await;
    let towards = seeds.first().or_else(|| saved.first()).or_else(|| peers.first()).copied();
    let listen = settings.args.cluster_listen;
    let told = settings.args.cluster_advertise;
    let advertise = told.unwrap_or_else(|| join::advertised(listen, towards));
    let (listen, advertise, warnings) = exposure(settings, listen, advertise)?;
    let asked: Vec<SocketAddr> = seeds.iter().chain(&saved).copied().collect();
    let alone = namesake::refuse((&me.name, me.generation.value), advertise, &asked, &settings.ring).await;
    alone.map_err(|problem| format!("cannot join: {problem}"))?;
    // Whoever reaches this node by another address than its own finds all its ports there.
    let same_ip = |a: SocketAddr| {
        if told.is_some() || a.ip().is_unspecified() { SocketAddr::new(advertise.ip(), a.port()) } else { a }
    };
    let (http, rpc) = (same_ip(web), same_ip(grpc));
    let record = NodeRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        born: me.generation.born,
        roles: settings.roles,
        since: f.clock.now_ms(),
        head: unread_head(settings, f),
        bucket: f.bucket.id().to_owned(),
        ..NodeRecord::new(&settings.zone, rpc, http)
    };
    let options = GossipOptions {
        node: me.name.clone(),
        listen,
        advertise,
        seeds: saved,
        interval: interval(settings),
        phi: PHI,
        dead_grace: Duration::from_millis(settings.config.koios.cluster.dead_node_grace_ms.max(1) as u64),
        ring: settings.ring.clone(),
        state_dir,
        clock: f.clock.clone(),
        generation: me.generation.value,
        weather: None,
    };
    let started = f.net.spawn(Gossip::start(options, record)).await.map_err(|e| e.to_string())?;
    let gossip = started.map_err(|e| format!("step listen: --cluster.listen-address: {e}"))?;
    Ok(Gossiping { gossip: Arc::new(gossip), advertise, http, rpc, warnings })
}

/// What is said of the head until its logs are read: with logs it may hold anything, without it is empty.
fn unread_head(settings: &Settings, f: &Foundation) -> HeadSummary {
    let min_time = settings.args.storage_path.join("head").exists().then_some(0);
    let ranges = |tracker: &Mutex<SoleTracker>| tracker.lock().ranges().to_vec();
    let (sole, zone_sole) = (ranges(&f.sole), ranges(&f.zone_sole));
    let losses = f.losses.lock();
    let (holes, lost_alone) = (losses.holes().to_vec(), losses.alone().to_vec());
    HeadSummary { min_time, sole, zone_sole, holes, lost_alone, ..HeadSummary::default() }
}

/// Where the names of other nodes lead to now; joining goes on to look.
async fn lookup(names: impl Iterator<Item = String>) -> Vec<SocketAddr> {
    let mut out = Vec::new();
    for name in names.take(namesake::ASKED_MAX) {
        out.extend(tokio::net::lookup_host(name).await.into_iter().flatten());
    }
    out
}

/// Without a secret, gossip stays on loopback and private ranges.
fn exposure(
    settings: &Settings,
    listen: SocketAddr,
    advertise: SocketAddr,
) -> Result<(SocketAddr, SocketAddr, Vec<String>), String> {
    match join::check_exposure(advertise, &settings.ring) {
        Ok(()) if settings.ring.has_secret() || advertise.ip().is_loopback() => {
            Ok((listen, advertise, Vec::new()))
        }
        Ok(()) => {
            let open = "node traffic is neither authenticated nor encrypted: set --cluster.secret-file on every node";
            Ok((listen, advertise, vec![open.to_owned()]))
        }
        Err(_) if settings.join.is_empty() && settings.peers.is_empty() => {
            let local = SocketAddr::from(([127, 0, 0, 1], listen.port()));
            let closed = format!(
                "the cluster port stays on {local} because {advertise} is public and there is no secret: set \
                 --cluster.secret-file to let other machines join"
            );
            Ok((local, local, vec![closed]))
        }
        Err(e) => Err(e.to_string()),
    }
}
