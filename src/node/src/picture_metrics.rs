//! The picture of the cluster, and what queries met, as metrics.

use std::sync::atomic::Ordering;

use koios_cluster::keys::{KEYS_MAX, VALUE_BYTES_MAX};
use koios_query::Front;
use koios_query::hedge::Denied;
use koios_query::picture::{self, Cover, Facts, Level};
use koios_telemetry::Emitter;

/// Hours and columns that the coverage is measured over: a column is a minute.
const WINDOW_MS: i64 = 6 * 3_600_000;
const COLUMNS: usize = 360;

/// Exports all of it.
pub fn export(e: &mut Emitter, front: &Front, now_ms: i64) {
    front.look(now_ms, |facts| {
        state(e, facts);
        health(e, facts);
    });
    let stats = &front.coordinator().stats;
    for (reason, n) in stats.by_reason() {
        let help = "Parts of the data that a holder did not serve; most are asked of another one.";
        e.counter("koios_query_fragments_missing_total", help, &[("reason", reason)], n as f64);
    }
    hedging(e, front);
    for (name, help, counter) in [
        ("koios_query_fragments_split_total", "Questions that were asked in parts.", &stats.split),
        ("koios_query_pushed_total", "Parts of queries evaluated where their blocks are.", &stats.pushed),
        (
            "koios_query_push_declined_total",
            "Parts of queries that could have been, and whose chunks were fetched in the end.",
            &stats.push_declined,
        ),
        ("koios_query_unanswered_total", "Questions that a holder did not answer.", &stats.unanswered),
        (
            "koios_query_self_reads_total",
            "Later rounds in which the coordinator asked itself.",
            &stats.self_reads,
        ),
        ("koios_query_partial_total", "Answers given although data may be missing.", &stats.partial),
        ("koios_query_incomplete_total", "Answers refused because data may be missing.", &stats.refused),
    ] {
        e.counter(name, help, &[], counter.load(Ordering::Relaxed) as f64);
    }
}

/// Questions asked twice, heads not waited for, and what there was no room for, on both sides.
fn hedging(e: &mut Emitter, front: &Front) {
    let (hedger, served) = (&front.coordinator().hedger, &front.coordinator().parts.served);
    for (name, help, counter) in [
        (
            "koios_query_hedges_total",
            "Questions about blocks that were put to a second node.",
            &hedger.hedges,
        ),
        ("koios_query_hedges_won_total", "Questions that the second node answered first.", &hedger.won),
        (
            "koios_query_heads_left_total",
            "Heads not waited for, because nodes that answered hold the same.",
            &hedger.heads_left,
        ),
        ("koios_query_full_total", "Questions that a holder had no room for.", &hedger.full),
        (
            "koios_query_retries_denied_total",
            "Questions not put to another node after that: too many were.",
            &hedger.retries_denied,
        ),
        ("koios_fragments_total", "Fragments that this node began to answer.", &served.fragments),
        (
            "koios_fragments_stopped_total",
            "Fragments whose asker went away, or that failed, before the end.",
            &served.stopped,
        ),
        ("koios_fragments_split_total", "Fragments that were too large for one answer.", &served.split),
        ("koios_fragments_full_total", "Requests of peers that there was no room for.", &served.full),
    ] {
        e.counter(name, help, &[], counter.load(Ordering::Relaxed) as f64);
    }
    for (reason, n) in Denied::NAMES.iter().zip(&hedger.denied) {
        let n = n.load(Ordering::Relaxed) as f64;
        e.counter(
            "koios_query_hedges_denied_total",
            "Late questions not put to a second node.",
            &[("reason", reason)],
            n,
        );
    }
}

/// Size of what is gossiped, beside its bounds.
fn state(e: &mut Emitter, facts: &Facts<'_>) {
    let members = || facts.view.members.values();
    let (mut bytes, mut largest, mut keys) = (0, 0, 0);
    for m in members() {
        let pairs = m.record.to_pairs();
        bytes += pairs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        largest = largest.max(pairs.iter().map(|(_, v)| v.len()).max().unwrap_or(0));
        keys = keys.max(pairs.len());
    }
    let live = members().filter(|m| m.is_alive()).count();
    let known = members().count();
    for (name, help, value) in [
        ("koios_gossip_ids_known", "Nodes known, living or not.", known),
        ("koios_gossip_ids_live", "Nodes that the failure detector hears.", live),
        ("koios_gossip_ids_dead", "Nodes known and not heard.", known - live),
        ("koios_gossip_state_bytes", "Bytes of keys and values of all known nodes.", bytes),
        ("koios_gossip_value_bytes_max", "Longest gossiped value.", largest),
        ("koios_gossip_value_bytes_limit", "Longest value that may be gossiped.", VALUE_BYTES_MAX),
        ("koios_gossip_keys_max", "Most keys of one node.", keys),
        ("koios_gossip_keys_limit", "Most keys that a node may gossip.", KEYS_MAX),
    ] {
        e.gauge(name, help, &[], value as f64);
    }
}

fn health(e: &mut Emitter, facts: &Facts<'_>) {
    let level = picture::health::health(facts).level;
    for l in [Level::Well, Level::Degraded, Level::Broken] {
        let labels = [("state", l.word())];
        e.gauge(
            "koios_cluster_health",
            "1 for the state that this node sees.",
            &labels,
            f64::from(u8::from(l == level)),
        );
    }
    let unreached = facts.view.members.values().filter(|m| facts.is_unreached(m)).count();
    let help = "Living peers that could not be reached from here lately.";
    e.gauge("koios_cluster_peers_unreached", help, &[], unreached as f64);
    let blocks = picture::health::agreement(facts.view).other_blocks.len();
    let help = "Ready peers on the same bucket that see other blocks.";
    e.gauge("koios_cluster_block_views_differing", help, &[], blocks as f64);
    let columns = picture::coverage::coverage(facts, WINDOW_MS, COLUMNS).columns;
    for cover in [Cover::Missing, Cover::One] {
        let n = columns.iter().filter(|c| c.cover == cover).count();
        let help = "Minutes of the last six hours of which data may be missing, or has one copy.";
        e.gauge("koios_cluster_coverage_minutes", help, &[("cover", cover.word())], n as f64);
    }
    let help = "1 when this node may stop without anything missing.";
    let safe = picture::stop::reasons(facts).is_empty();
    e.gauge("koios_safe_to_stop", help, &[], f64::from(u8::from(safe)));
}
