//! Compactor: owns the schedule of what is done to the local bucket's blocks.
//!
//! Every minute, and when told to: what sound blocks supersede leaves, then what the retention does not keep, then
//! blocks are merged until there is nothing to merge. Takes `CompactNow`, `DeleteSeries`, `CleanTombstones` and
//! `SnapshotBlocks`, which wait for each other; a merge makes room for a deletion and is begun again after it.
//! Bound: 8 messages. On death: the warden starts it again; what was half done is found again by the next round.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture};
use koios_compact::plan;
use koios_model::{BlockId, Matcher};
use tokio::runtime::Handle;

use super::local::LocalBlocks;
use super::merging::Merged;
use crate::kit::{Flare, Letter};

/// Most messages.
pub const BOUND: usize = 8;
/// Longest time between rounds; where blocks are short, there are four rounds to a block.
const LOOK_MAX: Duration = Duration::from_secs(60);
const LOOK_MIN: Duration = Duration::from_millis(250);
/// The first round comes soon: it clears up after a crash.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// What a round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoundReport {
    /// Blocks made by merging.
    pub made: Vec<BlockId>,
    /// Blocks on their way out because of the retention.
    pub expired: usize,
    /// Blocks whose files were removed.
    pub removed: usize,
}

/// The actor.
pub struct Compactor {
    blocks: Arc<LocalBlocks>,
    net: Handle,
    _flare: Flare,
}

impl Compactor {
    /// Over the local bucket.
    pub fn new(blocks: Arc<LocalBlocks>, net: Handle, flare: Flare) -> Self {
        Self { blocks, net, _flare: flare }
    }
}

impl Actor for Compactor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        tick(ctx, FIRST_LOOK.min(self.blocks.look_every()));
    }
}

fn tick(ctx: &mut Context<Compactor>, after: Duration) {
    ctx.run_later(after, |me, ctx| {
        let blocks = me.blocks.clone();
        let work = me.net.spawn(async move { blocks.round().await });
        let done = work.into_actor(me).map(|joined, me, ctx| {
            match joined {
                Ok(Ok(_)) => {}
                Ok(Err(why)) => {
                    tracing::warn!(why, "blocks not compacted; they stay as they are and are tried again")
                }
                Err(e) => tracing::error!(error = %e, "compaction failed inside"),
            }
            tick(ctx, me.blocks.look_every());
        });
        ctx.spawn(done);
    });
}

impl LocalBlocks {
    fn look_every(&self) -> Duration {
        let block_ms = self.setup.ranges_ms.first().copied().unwrap_or(i64::MAX);
        Duration::from_millis(block_ms.max(0) as u64 / 4).clamp(LOOK_MIN, LOOK_MAX)
    }

    /// One round, see the module's essay.
    pub(super) async fn round(self: &Arc<Self>) -> Result<RoundReport, String> {
        let _turn = self.turn.lock().await;
        let view = self.look().await?;
        self.first_look(&view).await?;
        // Again: the first look may have found damage.
        let mut view = self.look().await?;
        let mut report = RoundReport::default();
        loop {
            self.leave_superseded(&view);
            report.expired += self.retain(&view).await?;
            report.removed += self.sweep(&view).await?;
            view = self.look().await?;
            if self.interrupted() {
                break;
            }
            let known = self.failed.lock().len();
            let failed = self.failed.lock().iter().chain(view.damaged().keys()).copied().collect();
            let Some(next) = plan(&self.metas(&view).await?, &self.setup.ranges_ms, &failed) else { break };
            match self.merge(&next, true).await? {
                Merged::Into(id) => report.made.push(id),
                Merged::Nothing => {}
                Merged::Interrupted => break,
                // The culprit is passed over by the next plan; without one (a full disk) the next round tries again.
                Merged::Failed if self.failed.lock().len() > known => {}
                Merged::Failed => break,
            }
            view = self.look().await?;
        }
        Ok(report)
    }
}

/// Does a round now.
pub struct CompactNow;

impl Message for CompactNow {
    type Result = Result<RoundReport, String>;
}

/// Deletes from all blocks what the series that satisfy all matchers of any set have in `mint..=maxt`. Answers how many
/// series of blocks were touched; one that is in three blocks counts three times. Queries that begin after the answer do not see it any more.
pub struct DeleteSeries {
    /// Which series: any of these sets.
    pub sets: Vec<Vec<Matcher>>,
    /// First deleted instant, milliseconds.
    pub mint: i64,
    /// Last deleted instant, milliseconds.
    pub maxt: i64,
}

impl Message for DeleteSeries {
    type Result = Result<u64, String>;
}

/// Writes every block with deletions again without what is deleted. Answers the blocks that were replaced.
pub struct CleanTombstones;

impl Message for CleanTombstones {
    type Result = Result<Vec<BlockId>, String>;
}

/// Links all blocks that count into this directory, which is made. Answers their ids.
pub struct SnapshotBlocks(pub PathBuf);

impl Message for SnapshotBlocks {
    type Result = Result<Vec<BlockId>, String>;
}

/// Answers a message with what a piece of work on the network runtime comes to; the permit lives as long.
macro_rules! answers {
    ($message:ty, |$blocks:ident, $body:pat_param| $work:expr) => {
        impl Handler<Letter<$message>> for Compactor {
            type Result = ResponseFuture<<$message as Message>::Result>;

            fn handle(&mut self, m: Letter<$message>, _: &mut Context<Self>) -> Self::Result {
                let $blocks = self.blocks.clone();
                let Letter { body: $body, permit } = m;
                let work = self.net.spawn(async move { $work.await });
                Box::pin(async move {
                    let _held = permit;
                    work.await.map_err(|e| e.to_string())?
                })
            }
        }
    };
}

answers!(CompactNow, |blocks, _| blocks.round());
answers!(DeleteSeries, |blocks, m| blocks.delete(m.sets, m.mint, m.maxt));
answers!(CleanTombstones, |blocks, _| blocks.clean_tombstones());
answers!(SnapshotBlocks, |blocks, m| blocks.snapshot(m.0));

#[cfg(test)]
mod tests;
