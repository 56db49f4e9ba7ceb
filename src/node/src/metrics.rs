//! What a node tells about itself on `/metrics`.
//!
//! Prometheus' names where the meaning is the same; only what is true is exported.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use koios_actors::blocks::{Compactor, LocalBlocks, LocalStats};
use koios_actors::ingest::HeadViews;
use koios_actors::kit::{Mailroom, Roll};
use koios_actors::scrape::{Scales, Sources as TargetSources, TargetBoard};
use koios_cluster::Gossip;
use koios_cluster::gossip::IDS_BYTES_MAX;
use koios_http::state::RuntimeFacts;
use koios_model::Clock;
use koios_query::Front;
use koios_remote::Receiver;
use koios_store::counts::Data;
use koios_store::{CatalogueView, Shelf};
use koios_telemetry::{Emitter, Registry, process_collector};
use parking_lot::RwLock;

use crate::counted::PeerBytes;

/// What the collectors read.
pub struct Sources {
    pub version: String,
    pub revision: String,
    pub heads: Arc<HeadViews>,
    pub roll: Roll,
    pub board: Arc<TargetBoard>,
    pub targets: Arc<TargetSources>,
    pub scales: Arc<Scales>,
    pub gossip: Arc<Gossip>,
    pub catalogue: Arc<arc_swap::ArcSwap<CatalogueView>>,
    pub shelf: Arc<Shelf>,
    pub compactor: Arc<OnceLock<(Mailroom<Compactor>, Arc<LocalBlocks>)>>,
    pub shipping: crate::shipping::ShippingStats,
    pub runtime: Arc<RwLock<RuntimeFacts>>,
    pub receiver: Option<Arc<Receiver>>,
    pub front: Arc<Front>,
    pub cuts_failed: Arc<AtomicU64>,
    pub peer_bytes: Arc<PeerBytes>,
    pub clock: Arc<dyn Clock>,
}

/// Registers everything.
pub fn register(registry: &Registry, s: Sources) {
    process_collector(registry);
    registry.collector(move |e| {
        let build = [("version", s.version.as_str()), ("revision", s.revision.as_str())];
        e.gauge("koios_build_info", "Version of this node.", &build, 1.0);
        head(e, &s.heads);
        if let Some((_, local)) = s.compactor.get() {
            local_blocks(e, &local.stats);
        }
        if let Some(receiver) = &s.receiver {
            crate::push::export(e, receiver);
        }
        crate::shipping::export(e, &s.shipping);
        cluster(e, &s.gossip);
        discovery(e, &s.targets);
        scales(e, &s.scales);
        crate::picture_metrics::export(e, &s.front, s.clock.now_ms());
        let help = "Slots scraped here only until their new owner has begun.";
        e.gauge("koios_scrape_slots_lingering", help, &[], s.board.lingering() as f64);
        for (slot, targets) in s.board.counts().0 {
            let labels = [("slot", &*slot.to_string())];
            e.gauge("koios_scrape_slots", "Targets scraped by this node, by slot.", &labels, targets as f64);
        }
        for (direction, bytes) in [("received", &s.peer_bytes.received), ("sent", &s.peer_bytes.sent)] {
            let help = "Bytes on the connections that peers opened to this node.";
            let n = bytes.load(Ordering::Relaxed) as f64;
            e.counter("koios_peer_bytes_total", help, &[("direction", direction)], n);
        }
        actors(e, &s.roll);
        let runtime = s.runtime.read();
        let ok = f64::from(u8::from(runtime.reload_ok));
        e.gauge(
            "prometheus_config_last_reload_successful",
            "Whether the last configuration reload went well.",
            &[],
            ok,
        );
        let at = runtime.config_time_ms as f64 / 1000.0;
        e.gauge(
            "prometheus_config_last_reload_success_timestamp_seconds",
            "When the configuration was last read.",
            &[],
            at,
        );
        e.gauge(
            "koios_scrape_targets",
            "Targets scraped by this node, each slot counted.",
            &[],
            s.board.active() as f64,
        );
        let catalogue = s.catalogue.load();
        e.gauge("koios_bucket_blocks", "Blocks seen in the bucket.", &[], catalogue.blocks().len() as f64);
        e.gauge("koios_bucket_blocks_damaged", "Blocks put aside.", &[], catalogue.damaged().len() as f64);
        let failed = s.cuts_failed.load(Ordering::Relaxed) as f64;
        e.counter("koios_uploads_failed_total", "Times the head could not be cut and uploaded.", &[], failed);
        shelf(e, &s.shelf);
        e.counter(
            "koios_panics_total",
            "Panics caught since the start.",
            &[],
            koios_telemetry::panics() as f64,
        );
    });
}

fn shelf(e: &mut Emitter, shelf: &Shelf) {
    e.gauge("koios_store_blocks_open", "Blocks this node has opened.", &[], shelf.len() as f64);
    e.counter("koios_store_blocks_opened_total", "Openings of blocks.", &[], shelf.opened() as f64);
    let cached = shelf.cached_bytes() as f64;
    e.gauge("koios_store_cache_bytes", "Bytes of blocks fetched from the bucket on disk.", &[], cached);
    for data in Data::ALL {
        let (counts, labels) = (shelf.counts().of(data), [("data_type", data.name())]);
        let counter = |e: &mut Emitter, name: &str, help: &str, count: &AtomicU64| {
            e.counter(name, help, &labels, count.load(Ordering::Relaxed) as f64);
        };
        let help = "Ranges of blocks that the bucket was asked for.";
        counter(e, "koios_store_series_data_fetched_total", help, &counts.requests);
        let help = "Bytes of blocks that came from the bucket.";
        counter(e, "koios_store_series_data_size_fetched_bytes_total", help, &counts.fetched_bytes);
        let help = "Lists, series and chunks that questions read of blocks in an object store.";
        counter(e, "koios_store_series_data_touched_total", help, &counts.touched);
        let help = "Bytes of what questions read of blocks in an object store.";
        counter(e, "koios_store_series_data_size_touched_bytes_total", help, &counts.touched_bytes);
    }
}

fn head(e: &mut Emitter, heads: &HeadViews) {
    let Some(stats) = heads.stats() else { return };
    e.gauge("prometheus_tsdb_head_series", "Series in the head.", &[], stats.series as f64);
    e.gauge("prometheus_tsdb_head_chunks", "Chunks in the head.", &[], stats.chunks as f64);
    let appended = stats.samples_appended as f64;
    e.counter(
        "prometheus_tsdb_head_samples_appended_total",
        "Samples appended to the head.",
        &[("type", "float")],
        appended,
    );
    if stats.min_time <= stats.max_time {
        e.gauge(
            "prometheus_tsdb_head_min_time_seconds",
            "Oldest sample in the head.",
            &[],
            stats.min_time as f64 / 1000.0,
        );
        e.gauge(
            "prometheus_tsdb_head_max_time_seconds",
            "Newest sample in the head.",
            &[],
            stats.max_time as f64 / 1000.0,
        );
    }
}

/// Servers of targets, by Prometheus' names; the label is the source, which several jobs may share.
fn discovery(e: &mut Emitter, sources: &TargetSources) {
    for s in sources.standings() {
        let labels = [("mechanism", "http"), ("url", s.url.as_str())];
        let failed = s.counts.failed as f64;
        e.counter("prometheus_sd_refresh_failures_total", "Questions without an answer.", &labels, failed);
        let help = "Targets that are believed of the source.";
        e.gauge("prometheus_sd_discovered_targets", help, &labels, s.targets as f64);
        let help = "Questions of this node to the source; the others of its zone ask the one that leads.";
        e.counter("koios_sd_requests_total", help, &labels, s.counts.asked as f64);
        let help = "Empty lists that were not believed.";
        e.counter("koios_sd_empty_lists_doubted_total", help, &labels, s.counts.doubted as f64);
        let leads = f64::from(u8::from(s.leads));
        e.gauge("koios_sd_leads", "Whether this node asks the source for its zone.", &labels, leads);
    }
}

fn scales(e: &mut Emitter, scales: &Scales) {
    if let Some(load) = scales.told() {
        let help = "Samples a second that this node scrapes, as its peers know it.";
        e.gauge("koios_scrape_samples_per_second", help, &[], f64::from(load));
    }
    let (given, taken) = scales.counts();
    let help = "Slots that are with another node than their owner by rank, because that had too much.";
    e.gauge("koios_scrape_slots_moved", help, &[("direction", "given")], given as f64);
    e.gauge("koios_scrape_slots_moved", help, &[("direction", "taken")], taken as f64);
}

fn local_blocks(e: &mut Emitter, stats: &LocalStats) {
    for (name, help, counter) in [
        ("prometheus_tsdb_compactions_total", "Merges of the local bucket's blocks.", &stats.compactions),
        ("prometheus_tsdb_compactions_failed_total", "Merges that failed.", &stats.failed),
        (
            "prometheus_tsdb_time_retentions_total",
            "Blocks that left because of their age.",
            &stats.expired_by_time,
        ),
        (
            "prometheus_tsdb_size_retentions_total",
            "Blocks that left because of the size.",
            &stats.expired_by_size,
        ),
        ("koios_local_blocks_removed_total", "Blocks whose files were removed.", &stats.removed),
    ] {
        e.counter(name, help, &[], counter.load(Ordering::Relaxed) as f64);
    }
    let bytes = stats.bytes.load(Ordering::Relaxed) as f64;
    e.gauge("prometheus_tsdb_storage_blocks_bytes", "Bytes of the local bucket's blocks.", &[], bytes);
}

fn cluster(e: &mut Emitter, gossip: &Gossip) {
    let view = gossip.view();
    for state in ["starting", "joining", "ready", "draining", "leaving", "dead", "left"] {
        let n = view.members.values().filter(|m| m.shown_state() == state).count();
        e.gauge("koios_cluster_nodes", "Known nodes by state.", &[("state", state)], n as f64);
    }
    let hash = view.ring_hash();
    let differ = view
        .members
        .values()
        .filter(|m| m.is_ready() && m.name != view.me && m.record.ring_hash != hash)
        .count();
    e.gauge(
        "koios_cluster_views_differing",
        "Ready peers that see other ready nodes than this one.",
        &[],
        differ as f64,
    );
    e.counter("koios_cluster_views_total", "Changes of the view.", &[], view.seq as f64);
    let stats = gossip.stats();
    for (name, counter) in
        [("sent", &stats.sent), ("received", &stats.received), ("rejected", &stats.rejected)]
    {
        let n = counter.load(Ordering::Relaxed) as f64;
        e.counter("koios_gossip_frames_total", "Gossip frames.", &[("what", name)], n);
    }
    let health = gossip.health();
    let bytes = stats.sent_bytes.load(Ordering::Relaxed);
    for (name, help, n) in [
        ("koios_gossip_sent_bytes_total", "Bytes of gossip frames sent.", bytes),
        (
            "koios_gossip_task_restarts_total",
            "Times the gossip task ended by itself and was started again; any is a fault.",
            health.task_restarts(),
        ),
        (
            "koios_gossip_values_blocked_total",
            "Values that were too long to gossip; any is a fault.",
            health.values_blocked(),
        ),
    ] {
        e.counter(name, help, &[], n as f64);
    }
    for (name, help, n) in [
        ("koios_gossip_identities", "Identities in gossip, of the living and the lately dead.", health.ids()),
        ("koios_gossip_identity_bytes", "Estimated bytes of them in a message.", health.id_bytes()),
        ("koios_gossip_identity_bytes_limit", "What a message can carry of them.", IDS_BYTES_MAX),
        ("koios_cluster_duplicate_names", "Names under which two processes run.", health.doubles()),
        ("koios_gossip_running", "0 while gossip does not run.", u64::from(health.is_running())),
    ] {
        e.gauge(name, help, &[], n as f64);
    }
}

fn actors(e: &mut Emitter, roll: &Roll) {
    let mut by_name: std::collections::BTreeMap<String, (usize, u64, usize)> =
        std::collections::BTreeMap::new();
    for entry in roll.call() {
        let sum = by_name.entry(entry.name).or_default();
        *sum = (sum.0 + entry.depth, sum.1 + entry.restarts, sum.2 + usize::from(entry.up));
    }
    for (name, (depth, restarts, up)) in by_name {
        let labels = [("actor", name.as_str())];
        e.gauge("koios_actor_mailroom_depth", "Messages waiting or running.", &labels, depth as f64);
        e.counter(
            "koios_actor_restarts_total",
            "Times an actor was started again.",
            &labels,
            restarts as f64,
        );
        e.gauge("koios_actor_up", "Running actors.", &labels, up as f64);
    }
}
