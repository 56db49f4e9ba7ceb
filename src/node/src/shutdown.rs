//! The drain: what a node does between SIGTERM and its end.
//!
//! In order: tell peers, let them take over the targets, stop scraping and writing, cut the head and see it in
//! the bucket, take its log's copy away there, say goodbye, stop serving, sync the logs, replace them by checkpoints so that the next start reads
//! those. Each step has a deadline; none stops the rest. A second signal ends the process at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use koios_actors::blocks::{CutAll, Finish, Shipper, Uploader};
use koios_actors::cluster::{Membership, SetState};
use koios_actors::ingest::{Checkpoint, Distributor, Sync};
use koios_actors::kit::{ComputePool, Drain, Mailroom};
use koios_actors::scrape::StopAll;
use koios_actors::scrape::discovery::Discovery;
use koios_cluster::{EventLog, Gossip, NodeState};
use koios_http::Readiness;

use crate::wire::Foundation;

/// What the drain needs.
pub struct Ending {
    pub foundation: Arc<Foundation>,
    pub gossip: Arc<Gossip>,
    pub gossip_interval: Duration,
    pub membership: Mailroom<Membership>,
    pub discovery: Mailroom<Discovery>,
    pub uploader: Mailroom<Uploader>,
    /// None where the log is not shipped.
    pub shipper: Option<Mailroom<Shipper>>,
    pub http: ServerHandle,
    pub events: Arc<EventLog>,
}

const CUT: Duration = Duration::from_secs(120);
const STEP: Duration = Duration::from_secs(10);
/// Next to nothing after a cut; a head that could not be cut is written whole.
const CHECKPOINT: Duration = Duration::from_secs(30);

impl Ending {
    /// Runs all steps.
    pub async fn run(self) {
        self.foundation.readiness.store(Readiness::Stopping as u8, Ordering::Release);
        // Two intervals carry the news; a node without peers need not wait for anybody. A peer that is not heard just
        // now counts: it may only be young or slow.
        let view = self.gossip.view();
        let alone = !view.members.values().any(|m| m.name != view.me && m.shown_state() != "left");
        let news = if alone { Duration::ZERO } else { self.gossip_interval * 2 };
        let mut drain = Drain::new();
        drain.step("tell peers", STEP, say(self.membership.clone(), NodeState::Draining, news));
        let (discovery, distributor) = (self.discovery.clone(), self.foundation.distributor.clone());
        drain.step("stop scraping", STEP, async move {
            discovery.ask(StopAll, STEP).await.map_err(|e| e.to_string())?;
            distributor.close();
            Ok(())
        });
        let uploader = self.uploader.clone();
        drain.step("cut and upload the head", CUT, async move {
            let report = uploader.ask(CutAll, CUT).await.map_err(|e| e.to_string())??;
            tracing::info!(blocks = report.blocks.len(), samples = report.samples, "head is in the bucket");
            Ok(())
        });
        if let Some(shipper) = self.shipper.clone() {
            drain.step("settle the shipped log", STEP, async move {
                shipper.ask(Finish, STEP).await.map_err(|e| e.to_string())?
            });
        }
        drain.step("leave", STEP, say(self.membership.clone(), NodeState::Leaving, news));
        let (http, events) = (self.http.clone(), self.events.clone());
        drain.step("stop serving", STEP, async move {
            // Streams of events would otherwise hold the server open.
            events.close();
            http.stop(true).await;
            Ok(())
        });
        let distributor = self.foundation.distributor.clone();
        drain.step("sync logs", STEP, async move {
            for shard in distributor.shards() {
                shard.ask(Sync, STEP).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
            }
            Ok(())
        });
        let (distributor, pool) = (self.foundation.distributor.clone(), self.foundation.pool.clone());
        drain.step("checkpoint", CHECKPOINT, checkpoint(distributor, pool));
        drain.run().await;
        self.gossip.stop();
        self.foundation.release();
    }
}

async fn say(membership: Mailroom<Membership>, state: NodeState, then: Duration) -> Result<(), String> {
    membership.ask(SetState(state), STEP).await.map_err(|e| e.to_string())?;
    tokio::time::sleep(then).await;
    Ok(())
}

/// Replaces every shard's log by a checkpoint, all shards at once. One that fails keeps its log, which has the same.
async fn checkpoint(distributor: Distributor, pool: ComputePool) -> Result<(), String> {
    let mut writing = tokio::task::JoinSet::new();
    for shard in distributor.shards() {
        let (shard, pool) = (shard.clone(), pool.clone());
        writing.spawn(async move {
            let begun = shard.ask(Checkpoint, STEP).await.map_err(|e| e.to_string())?;
            let job = begun.map_err(|e| e.to_string())?;
            let written = pool.run(move || job.run()).await.map_err(|e| e.to_string())?;
            written.map(|_| ()).map_err(|e| e.to_string())
        });
    }
    let mut outcome = Ok(());
    while let Some(written) = writing.join_next().await {
        outcome = outcome.and(written.unwrap_or_else(|e| Err(e.to_string())));
    }
    outcome
}
