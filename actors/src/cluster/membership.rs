//! Membership: owns what this node says of itself, and watches what the others say.
//!
//! Takes `SetState`. Twice a second it publishes the summary of its own data, the digest of the blocks it
//! sees and the hash of its view, decides by which view ownership goes (`Freeze`), and asks the catalogue for a new
//! picture when a peer on the same bucket sees other blocks. Tells nobody else: everyone reads the view. Bound: 16 messages. On death: starts again
//! over the same gossip service, which it does not own alone.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use arc_swap::ArcSwap;
use koios_cluster::freeze::THAW_NS;
use koios_cluster::keys::{HeadSummary, SKEW_MS, SoleRange};
use koios_cluster::replicas::{outlives_a_zone, ring};
use koios_cluster::{ClusterView, Freeze, Gossip, Losses, NodeState, SoleTracker};
use koios_model::Clock;
use koios_store::CatalogueView;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::blocks::{CatalogueHandle, Refresh};
use crate::ingest::HeadViews;
use crate::kit::{Flare, Letter};

/// Most messages.
pub const BOUND: usize = 16;
const ROUND: Duration = Duration::from_millis(500);
/// The oldest moment is published in steps of five minutes, so that it rarely changes.
const MIN_TIME_STEP_MS: i64 = 300_000;
/// By then every head has cut what it held, with the longest block range and window that are usual.
const HOLES_KEPT_MS: i64 = 6 * 3_600_000;
/// A peer that sees other blocks is answered with a refresh at most this often.
const REFRESH_PAUSE_NS: u64 = 1_000_000_000;

/// What membership works with.
#[derive(Clone)]
pub struct MembershipSetup {
    /// The gossip service.
    pub gossip: Arc<Gossip>,
    /// Own fresh data.
    pub heads: Arc<HeadViews>,
    /// Own blocks.
    pub catalogue: CatalogueHandle,
    /// What only this node holds.
    pub sole: Arc<Mutex<SoleTracker>>,
    /// What only its zone holds.
    pub zone_sole: Arc<Mutex<SoleTracker>>,
    /// What this node lost with a part of its log.
    pub losses: Arc<Mutex<Losses>>,
    /// Copies of a target.
    pub replicas: u8,
    /// The view that ownership goes by is published here.
    pub owning: watch::Sender<Arc<ClusterView>>,
    /// How long a new owner needs to take over, milliseconds.
    pub linger_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Samples a second that are scraped here.
    pub load: Arc<dyn Fn() -> Option<u32> + Send + Sync>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The actor.
pub struct Membership {
    setup: MembershipSetup,
    freeze: Freeze,
    refreshed_ns: u64,
    _flare: Flare,
}

impl Membership {
    /// Over a running gossip service.
    pub fn new(setup: MembershipSetup, flare: Flare) -> Self {
        Self { setup, freeze: Freeze::default(), refreshed_ns: 0, _flare: flare }
    }

    /// `state` is new and goes out together with the data it speaks for.
    fn publish(&mut self, state: Option<NodeState>) {
        let view = self.setup.gossip.view();
        let owning = self.freeze.look(self.setup.clock.mono_ns(), &view);
        self.setup.owning.send_if_modified(|last| {
            let changed = !Arc::ptr_eq(last, &owning);
            *last = owning;
            changed
        });
        let catalogue = self.setup.catalogue.view.load_full();
        let head = self.summary(&view, &catalogue);
        let now = self.setup.clock.now_ms();
        let (hash, digest, load) = (view.ring_hash(), catalogue.digest(), (self.setup.load)());
        self.setup.gossip.publish(|r| {
            if let Some(state) = state.filter(|s| *s != r.state) {
                (r.state, r.since) = (state, now);
            }
            r.head = head;
            r.ring_hash = hash;
            r.catalogue = digest;
            r.load = load;
        });
        self.follow_bucket(&view, digest);
    }

    fn summary(&self, view: &ClusterView, catalogue: &CatalogueView) -> HeadSummary {
        let stats = self.setup.heads.stats();
        let mut min_time = stats.filter(|s| s.min_time <= s.max_time).map(|s| s.min_time);
        if is_private_bucket(view) {
            min_time = [min_time, catalogue.min_time()].into_iter().flatten().min();
        }
        let min_time = if view.own().is_none_or(|m| m.record.takes_samples()) {
            let window = stats.map_or(0, |s| s.out_of_order_window_ms) + SKEW_MS;
            Some(HeadSummary::bound(min_time, self.setup.clock.now_ms(), window, MIN_TIME_STEP_MS))
        } else {
            // A head that takes nothing, or nothing more, is as old as it is.
            min_time.map(step_down)
        };
        let (near, far) = self.others(view);
        let (holes, lost_alone) = self.losses();
        let sole = self.track(&self.setup.sole, view, near, min_time);
        let zone_sole = self.track(&self.setup.zone_sole, view, far, min_time);
        let series = stats.map_or(0, |s| s.series);
        let series_log2 = (u64::BITS - series.leading_zeros()) as u8;
        HeadSummary { min_time, sole, zone_sole, series_log2, holes, lost_alone }
    }

    /// How many other nodes share the scraping, and how many of them count as peers in other zones: none while what is
    /// pushed may be acknowledged in one zone.
    fn others(&self, view: &ClusterView) -> (usize, usize) {
        let Some(me) = view.own().filter(|_| self.setup.replicas > 1) else { return (0, 0) };
        let ready = view.ready("scrape");
        let far = ready.iter().filter(|m| m.record.zone != me.record.zone).count();
        let outlives = outlives_a_zone(&ring(view, self.setup.clock.now_ms()));
        (ready.len().saturating_sub(1), if outlives { far } else { 0 })
    }

    /// Follows what has no copy elsewhere, among `others`.
    fn track(
        &self,
        tracker: &Mutex<SoleTracker>,
        view: &ClusterView,
        others: usize,
        min_time: Option<i64>,
    ) -> Vec<SoleRange> {
        let mut tracker = tracker.lock();
        if view.own().is_some_and(|m| m.is_ready()) {
            // While ownership is frozen nobody takes over.
            let frozen = if self.freeze.is_frozen() { (THAW_NS / 1_000_000) as i64 } else { 0 };
            let linger = (self.setup.linger_ms)() + frozen;
            if tracker.observe(self.setup.clock.now_ms(), others, linger)
                && let Err(e) = tracker.save()
            {
                tracing::warn!(error = %e, "what only this node or its zone holds is not kept on disk");
            }
        }
        if let Some(t) = min_time {
            tracker.prune(t);
        }
        tracker.ranges().to_vec()
    }

    /// Until what was lost is in blocks that others cut.
    fn losses(&self) -> (Vec<SoleRange>, Vec<SoleRange>) {
        let mut losses = self.setup.losses.lock();
        losses.prune(self.setup.clock.now_ms() - HOLES_KEPT_MS);
        (losses.holes().to_vec(), losses.alone().to_vec())
    }

    /// A peer on the same bucket that sees other blocks has uploaded some, or has seen some go.
    fn follow_bucket(&mut self, view: &ClusterView, digest: u64) {
        let now = self.setup.clock.mono_ns();
        if !peers_see(view, digest) && now.saturating_sub(self.refreshed_ns) > REFRESH_PAUSE_NS {
            self.refreshed_ns = now;
            let room = self.setup.catalogue.room.clone();
            actix::spawn(async move {
                let _ = room.try_ask(Refresh).await;
            });
        }
    }
}

fn step_down(t: i64) -> i64 {
    t.div_euclid(MIN_TIME_STEP_MS) * MIN_TIME_STEP_MS
}

/// Whether no other known node is on this node's bucket.
fn is_private_bucket(view: &ClusterView) -> bool {
    let Some(me) = view.own() else { return true };
    !view.members.values().any(|m| m.name != me.name && m.record.bucket == me.record.bucket)
}

/// Whether all ready peers on this node's bucket see blocks of the same digest.
pub fn peers_see(view: &ClusterView, digest: u64) -> bool {
    let Some(me) = view.own() else { return true };
    let on_bucket =
        |m: &koios_cluster::Member| m.name != me.name && m.is_ready() && m.record.bucket == me.record.bucket;
    view.members.values().filter(|m| on_bucket(m)).all(|m| m.record.catalogue == digest)
}

/// `peers_see` over live state, for the uploader.
pub fn peers_see_live(
    gossip: &Arc<Gossip>,
    catalogue: &Arc<ArcSwap<CatalogueView>>,
) -> Arc<dyn Fn() -> bool + Send + Sync> {
    let (gossip, catalogue) = (gossip.clone(), catalogue.clone());
    Arc::new(move || peers_see(&gossip.view(), catalogue.load().digest()))
}

impl Actor for Membership {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        again(ctx);
    }
}

fn again(ctx: &mut Context<Membership>) {
    ctx.run_later(ROUND, |me, ctx| {
        me.publish(None);
        again(ctx);
    });
}

/// Says where this node stands in its life.
pub struct SetState(pub NodeState);

impl Message for SetState {
    type Result = ();
}

impl Handler<Letter<SetState>> for Membership {
    type Result = ();

    fn handle(&mut self, m: Letter<SetState>, _: &mut Context<Self>) {
        self.publish(Some(m.body.0));
    }
}
