//! Shard: owns one slice of the head and its log.
//!
//! Takes `Append` (a batch), `AppendExemplars`, `AppendMetadata`, `Delete`, `RefuseBefore`, `Truncate`, `Checkpoint`,
//! `LogHandle` and `Sync`. Answers an append when it is as durable as the configured mode promises. Truncates in steps, so that
//! appends go between them. After a failed sync it has the log written again by itself. Publishes its `HeadView`
//! in `HeadViews`; nobody reads through the mailroom. Bound: 128 messages. On death: the warden opens the shard
//! again from its log, which holds everything that was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture};
use koios_model::Matcher;
use koios_model::metadata::MetricMetadata;
use koios_tsdb::{
    AppendBatch, Appended, CheckpointJob, ExemplarEntry, ExemplarsAppended, Shard, SyncMode, TruncateReport,
    WalSyncer,
};

use super::error::IngestError;
use super::heads::HeadViews;
use super::journal::Journal;
use crate::kit::{AskError, Flare, Letter};

/// How soon a log that failed to sync is looked at.
const HEAL_EVERY: Duration = Duration::from_secs(2);
/// Most messages of a shard.
pub const BOUND: usize = 128;

/// The actor.
pub struct ShardActor {
    number: usize,
    shard: Result<(Shard, Journal), String>,
    _flare: Flare,
}

impl ShardActor {
    /// Takes an opened shard, or opens it; publishes its view. A shard that does not open refuses every
    /// message with the reason.
    pub fn new(
        number: usize,
        open: impl FnOnce() -> Result<Shard, String>,
        heads: &Arc<HeadViews>,
        flare: Flare,
    ) -> Self {
        let shard = open().and_then(|shard| {
            let journal =
                Journal::start(number, shard.syncer()).map_err(|e| format!("journal thread: {e}"))?;
            heads.publish(number, shard.view());
            Ok((shard, journal))
        });
        if let Err(why) = &shard {
            tracing::error!(shard = number, why, "shard does not open");
        }
        Self { number, shard, _flare: flare }
    }

    /// After a failed sync: has the log written again, on a thread of its own, and asks again later while that
    /// fails. Reads go on meanwhile.
    fn heal(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(HEAL_EVERY, |me, ctx| {
            let number = me.number;
            let Ok((shard, _)) = &mut me.shard else { return };
            if !shard.is_poisoned() {
                return me.heal(ctx);
            }
            let job = match shard.begin_recovery() {
                Ok(job) => job,
                Err(e) => {
                    tracing::warn!(shard = number, error = %e, "log cannot be rewritten yet");
                    return me.heal(ctx);
                }
            };
            let (reply, done) = tokio::sync::oneshot::channel();
            let work = move || drop(reply.send(job.run().map_err(|e| e.to_string())));
            if let Err(e) = std::thread::Builder::new().name(format!("rewrite-{number}")).spawn(work) {
                tracing::warn!(shard = number, error = %e, "no thread to rewrite the log");
            }
            ctx.spawn(done.into_actor(me).map(move |rewritten, me, ctx| {
                match rewritten.unwrap_or_else(|_| Err("the thread ended".to_owned())) {
                    Ok(report) => me.healed(report.series),
                    Err(why) => tracing::warn!(shard = number, why, "log not rewritten yet"),
                }
                me.heal(ctx);
            }));
        });
    }

    fn healed(&mut self, series: u64) {
        let Ok((shard, journal)) = &mut self.shard else { return };
        // The old journal's log stays closed for ever.
        match Journal::start(self.number, shard.syncer()) {
            Ok(new) => {
                *journal = new;
                shard.end_recovery();
                tracing::info!(
                    shard = self.number,
                    series,
                    "log rewritten after a failed sync; writes go on"
                );
            }
            Err(e) => tracing::warn!(shard = self.number, error = %e, "no journal thread"),
        }
    }

    fn opened(&mut self) -> Result<(&mut Shard, &Journal), IngestError> {
        let number = self.number;
        match &mut self.shard {
            Ok((shard, journal)) => Ok((shard, journal)),
            Err(why) => Err(IngestError::Storage(format!("shard {number} is closed: {why}"))),
        }
    }
}

impl Actor for ShardActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.heal(ctx);
    }
}

/// Appends a batch. The answer comes when it is durable.
pub struct Append(pub AppendBatch);

impl Message for Append {
    type Result = Result<Appended, IngestError>;
}

impl Handler<Letter<Append>> for ShardActor {
    type Result = ResponseFuture<Result<Appended, IngestError>>;

    fn handle(&mut self, m: Letter<Append>, _: &mut Context<Self>) -> Self::Result {
        let appended = self.opened().and_then(|(shard, journal)| {
            let appended = shard.append(&m.body.0)?;
            let wait = (shard.sync_mode() == SyncMode::Batch).then(|| journal.clone());
            Ok((appended, wait))
        });
        let permit = m.permit;
        Box::pin(async move {
            let (appended, wait) = appended?;
            if let Some(journal) = wait {
                journal.durable(appended.lsn).await?;
            }
            drop(permit);
            Ok(appended)
        })
    }
}

/// Appends exemplars. The answer does not wait for the disk: nobody is promised an exemplar.
pub struct AppendExemplars(pub Vec<ExemplarEntry>);

impl Message for AppendExemplars {
    type Result = Result<ExemplarsAppended, IngestError>;
}

impl Handler<Letter<AppendExemplars>> for ShardActor {
    type Result = Result<ExemplarsAppended, IngestError>;

    fn handle(&mut self, m: Letter<AppendExemplars>, _: &mut Context<Self>) -> Self::Result {
        let (shard, _) = self.opened()?;
        Ok(shard.append_exemplars(&m.body.0)?)
    }
}

/// Keeps what is said about families. The answer, how many changed, does not wait for the disk.
pub struct AppendMetadata(pub Vec<(String, MetricMetadata)>);

impl Message for AppendMetadata {
    type Result = Result<usize, IngestError>;
}

impl Handler<Letter<AppendMetadata>> for ShardActor {
    type Result = Result<usize, IngestError>;

    fn handle(&mut self, m: Letter<AppendMetadata>, _: &mut Context<Self>) -> Self::Result {
        let (shard, _) = self.opened()?;
        Ok(shard.append_metadata(&m.body.0)?.1)
    }
}

/// Deletes samples from the head. The answer, how many series had some, comes when that is durable.
pub struct Delete {
    /// A series must satisfy all matchers of any set.
    pub sets: Arc<[Vec<Matcher>]>,
    /// Oldest time, milliseconds.
    pub mint: i64,
    /// Newest time, inclusive.
    pub maxt: i64,
}

impl Message for Delete {
    type Result = Result<u64, IngestError>;
}

impl Handler<Letter<Delete>> for ShardActor {
    type Result = ResponseFuture<Result<u64, IngestError>>;

    fn handle(&mut self, m: Letter<Delete>, _: &mut Context<Self>) -> Self::Result {
        let deleted = self.opened().and_then(|(shard, journal)| {
            let done = shard.delete(&m.body.sets, m.body.mint, m.body.maxt)?;
            Ok((done, journal.clone()))
        });
        Box::pin(async move {
            let _held = m.permit;
            let (done, journal) = deleted?;
            journal.durable(done.lsn).await?;
            Ok(done.series)
        })
    }
}

/// Refuses samples before a moment from now on: what lies before it is about to be cut.
pub struct RefuseBefore(pub i64);

impl Message for RefuseBefore {
    type Result = Result<(), IngestError>;
}

impl Handler<Letter<RefuseBefore>> for ShardActor {
    type Result = Result<(), IngestError>;

    fn handle(&mut self, m: Letter<RefuseBefore>, _: &mut Context<Self>) -> Self::Result {
        let (shard, _) = self.opened()?;
        shard.refuse_before(m.body.0);
        Ok(())
    }
}

/// Forgets samples before a moment that a served block holds, a little at a time. Answers the job that shortens
/// the log; run it on the compute pool.
pub struct Truncate(pub i64);

impl Message for Truncate {
    type Result = Result<(TruncateReport, CheckpointJob), IngestError>;
}

type Truncated = Result<(TruncateReport, CheckpointJob), IngestError>;

impl Handler<Letter<Truncate>> for ShardActor {
    type Result = ResponseFuture<Truncated>;

    fn handle(&mut self, m: Letter<Truncate>, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, done) = tokio::sync::oneshot::channel();
        let begun = self.opened().and_then(|(shard, _)| Ok(shard.begin_truncate(m.body.0)?));
        match begun {
            Ok(()) => self.truncate_on(reply, ctx),
            Err(e) => drop(reply.send(Err(e))),
        }
        Box::pin(async move {
            let _held = m.permit;
            done.await.unwrap_or(Err(AskError::Down { actor: "shard" }.into()))
        })
    }
}

impl ShardActor {
    /// A step now, the next one after the messages that wait.
    fn truncate_on(&mut self, reply: tokio::sync::oneshot::Sender<Truncated>, ctx: &mut Context<Self>) {
        match self.opened().and_then(|(shard, _)| Ok(shard.truncate_step()?)) {
            Ok(Some(done)) => drop(reply.send(Ok(done))),
            Ok(None) => {
                ctx.run_later(Duration::ZERO, move |me, ctx| me.truncate_on(reply, ctx));
            }
            Err(e) => drop(reply.send(Err(e))),
        }
    }
}

/// Begins a new segment and answers the job that replaces all others by a checkpoint; run it on the compute pool.
/// For a quick start after a planned stop.
pub struct Checkpoint;

impl Message for Checkpoint {
    type Result = Result<CheckpointJob, IngestError>;
}

impl Handler<Letter<Checkpoint>> for ShardActor {
    type Result = Result<CheckpointJob, IngestError>;

    fn handle(&mut self, _: Letter<Checkpoint>, _: &mut Context<Self>) -> Self::Result {
        let (shard, _) = self.opened()?;
        Ok(shard.begin_checkpoint()?)
    }
}

/// The handle to the log, for whoever keeps a copy of it. It is another one after a failed sync.
pub struct LogHandle;

impl Message for LogHandle {
    type Result = Result<WalSyncer, IngestError>;
}

impl Handler<Letter<LogHandle>> for ShardActor {
    type Result = Result<WalSyncer, IngestError>;

    fn handle(&mut self, _: Letter<LogHandle>, _: &mut Context<Self>) -> Self::Result {
        let (shard, _) = self.opened()?;
        Ok(shard.syncer())
    }
}

/// Syncs whatever is written, for the `interval` mode and for the end.
pub struct Sync;

impl Message for Sync {
    type Result = Result<(), IngestError>;
}

impl Handler<Letter<Sync>> for ShardActor {
    type Result = ResponseFuture<Result<(), IngestError>>;

    fn handle(&mut self, m: Letter<Sync>, _: &mut Context<Self>) -> Self::Result {
        let wait = self.opened().map(|(shard, journal)| (shard.lsn(), journal.clone()));
        Box::pin(async move {
            let _held = m.permit;
            let (lsn, journal) = wait?;
            journal.durable(lsn).await
        })
    }
}
