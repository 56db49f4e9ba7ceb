//! Group commit: one thread per log that syncs for everybody who waits.
//!
//! A sync takes as long for one batch as for a hundred, so while one runs the next waiters gather and share
//! the next. An arbiter never waits for the disk. Bound: 1,024 waiters; beyond that a writer is refused. A
//! failed sync closes the log (the engine poisons it): every waiter gets the error and none a success.

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use koios_tsdb::{Lsn, WalSyncer};
use tokio::sync::oneshot;

use super::error::IngestError;
use crate::kit::AskError;

/// Most writers waiting for a sync.
pub const WAITERS_MAX: usize = 1024;

struct Waiter {
    lsn: Lsn,
    reply: oneshot::Sender<Result<(), IngestError>>,
}

/// Handle to a journal thread, which ends with the last handle.
#[derive(Clone)]
pub struct Journal {
    queue: Sender<Waiter>,
}

impl Journal {
    /// Starts the thread for a shard's log.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(shard: usize, syncer: WalSyncer) -> std::io::Result<Self> {
        let (queue, waiters) = bounded(WAITERS_MAX);
        std::thread::Builder::new().name(format!("journal-{shard}")).spawn(move || run(&waiters, &syncer))?;
        Ok(Self { queue })
    }

    /// Waits until everything up to `lsn` is on disk.
    ///
    /// # Errors
    /// When the log failed, or too many wait.
    pub async fn durable(&self, lsn: Lsn) -> Result<(), IngestError> {
        let (reply, done) = oneshot::channel();
        match self.queue.try_send(Waiter { lsn, reply }) {
            Ok(()) => done.await.unwrap_or(Err(AskError::Down { actor: "journal" }.into())),
            Err(TrySendError::Full(_)) => {
                Err(AskError::Overloaded { actor: "journal", bound: WAITERS_MAX }.into())
            }
            Err(TrySendError::Disconnected(_)) => Err(AskError::Down { actor: "journal" }.into()),
        }
    }
}

fn run(waiters: &Receiver<Waiter>, syncer: &WalSyncer) {
    while let Ok(first) = waiters.recv() {
        let group: Vec<Waiter> = std::iter::once(first).chain(waiters.try_iter()).collect();
        let outcome = syncer.sync().map_err(IngestError::from);
        for w in group {
            let result = match &outcome {
                Ok(durable) if *durable >= w.lsn => Ok(()),
                Ok(durable) => {
                    Err(IngestError::Storage(format!("log durable to {durable:?} only, not to {:?}", w.lsn)))
                }
                Err(e) => Err(e.clone()),
            };
            let _ = w.reply.send(result);
        }
    }
}
