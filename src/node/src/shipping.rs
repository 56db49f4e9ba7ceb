//! Wiring of the log's copy in the bucket: the shipper of this node's log and the adopter of others'.
//!
//! Owns when they run: never for a node's own directory, because a copy beside the log protects from nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use koios_actors::blocks::{
    AdoptStats, Adopter, AdopterSetup, ShipStats, Shipper, ShipperSetup, adopter, shipper,
};
use koios_actors::kit::{Mailroom, Warden};
use koios_cluster::adoption::SILENCE_NS;
use koios_cluster::{ClusterView, Gossip, LogId, ranked};
use koios_http::Readiness;
use koios_telemetry::Emitter;

use crate::identity::Identity;
use crate::settings::Settings;
use crate::wire::{Foundation, shard_options};

/// What both tell.
#[derive(Clone, Default)]
pub struct ShippingStats {
    pub shipper: Arc<ShipStats>,
    pub adopter: Arc<AdoptStats>,
}

/// Starts both; `None` when the bucket is the node's own.
pub fn open(
    f: &Foundation,
    settings: &Settings,
    me: &Identity,
    gossip: &Arc<Gossip>,
) -> Option<Mailroom<Shipper>> {
    if settings.own_bucket {
        return None;
    }
    let readiness = f.readiness.clone();
    let ready: Arc<dyn Fn() -> bool + Send + Sync> =
        Arc::new(move || readiness.load(Ordering::Acquire) == Readiness::Ready as u8);
    open_adopter(f, settings, me, gossip, &ready);
    let (views, replicas) = (gossip.clone(), usize::from(settings.config.koios.scrape.replicas));
    let k = &settings.config.koios.storage;
    let setup = Arc::new(ShipperSetup {
        distributor: f.distributor.clone(),
        heads: f.heads.clone(),
        bucket: f.bucket.clone(),
        pool: f.pool.clone(),
        net: f.net.clone(),
        clock: f.clock.clone(),
        node: me.name.clone(),
        generation: me.generation.value,
        external: f.external.clone(),
        dir: settings.args.storage_path.join("head"),
        mode: k.ship_log,
        interval_ms: k.ship_interval_ms,
        ready,
        one_copy: Arc::new(move || one_copy(&views.view(), replicas)),
        stats: f.shipping.shipper.clone(),
    });
    let room = Mailroom::new("shipper", shipper::BOUND);
    let warden = Warden::watch(room.clone(), f.plan.arbiter("background"), move |flare| {
        Shipper::new(setup.clone(), flare)
    });
    f.keep(&room, warden);
    Some(room)
}

fn open_adopter(
    f: &Foundation,
    settings: &Settings,
    me: &Identity,
    gossip: &Arc<Gossip>,
    ready: &Arc<dyn Fn() -> bool + Send + Sync>,
) {
    if !f.bucket.is_conditional() {
        // Two adopters of one log would both win.
        return;
    }
    let (heard, candidates) = (gossip.clone(), gossip.clone());
    let setup = Arc::new(AdopterSetup {
        bucket: f.bucket.clone(),
        catalogue: Some(f.catalogue.clone()),
        pool: f.pool.clone(),
        net: f.net.clone(),
        clock: f.clock.clone(),
        node: me.name.clone(),
        generation: me.generation.value,
        scratch: settings.args.storage_path.join("adopting"),
        shard: shard_options(settings, 0),
        silence_ns: silence_ns(),
        ready: ready.clone(),
        alive: Arc::new(move |node| heard.view().members.get(node).is_some_and(|m| m.is_alive())),
        rank: Arc::new(move |log| rank(&candidates.view(), log)),
        shipper: f.shipping.shipper.clone(),
        stats: f.shipping.adopter.clone(),
    });
    let room: Mailroom<Adopter> = Mailroom::new("adopter", adopter::BOUND);
    let warden = Warden::watch(room.clone(), f.plan.arbiter("background"), move |flare| {
        Adopter::new(setup.clone(), flare)
    });
    f.keep(&room, warden);
}

/// Whether samples that come in now are on one node only.
fn one_copy(view: &ClusterView, replicas: usize) -> bool {
    let with = |role: &str| view.ready(role).len();
    let mine = |role: &str| view.own().is_some_and(|m| m.record.roles.has(role));
    (mine("receive") && with("receive") <= 1) || (mine("scrape") && with("scrape").min(replicas) <= 1)
}

/// This node's place among the ready ones for a log.
fn rank(view: &ClusterView, log: &LogId) -> u64 {
    let ready: Vec<_> = view.members.values().filter(|m| m.is_ready()).cloned().collect();
    let key = koios_model::Labels::from_pairs([("log", log.folder().as_str())]).hash64();
    ranked(&ready, key).iter().position(|m| m.name == view.me).unwrap_or(ready.len()) as u64
}

/// Silence after which a log is adopted. Tests cannot wait ten minutes.
fn silence_ns() -> u64 {
    #[cfg(debug_assertions)]
    if let Some(ms) = std::env::var("KOIOS_ADOPT_AFTER_MS").ok().and_then(|ms| ms.parse::<u64>().ok()) {
        return ms * 1_000_000;
    }
    SILENCE_NS
}

/// Exports what both tell.
pub fn export(e: &mut Emitter, stats: &ShippingStats) {
    let (s, a) = (&stats.shipper, &stats.adopter);
    for (name, help, counter) in [
        ("koios_wal_shipped_bytes_total", "Bytes of the log put into the bucket.", &s.bytes),
        ("koios_wal_shipped_objects_total", "Objects of the log put into the bucket.", &s.objects),
        ("koios_wal_ship_removed_total", "Shipped objects removed again.", &s.removed),
        ("koios_wal_ship_failures_total", "Times that the log could not be shipped.", &s.failures),
        ("koios_wal_adopted_total", "Logs of lost nodes turned into blocks.", &a.logs),
        ("koios_wal_adopted_blocks_total", "Blocks made of logs of lost nodes.", &a.blocks),
        ("koios_wal_adopt_failures_total", "Times that shipped logs could not be looked after.", &a.failures),
    ] {
        e.counter(name, help, &[], counter.load(Ordering::Relaxed) as f64);
    }
    let lag = s.lag_ms.load(Ordering::Relaxed) as f64 / 1000.0;
    e.gauge("koios_wal_ship_lag_seconds", "Time since the bucket had the whole log.", &[], lag);
}
