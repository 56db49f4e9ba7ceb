//! The one pool for CPU work: query evaluation, block cuts, merges.
//!
//! Arbiters and network threads must never compute for long, and each arbiter's own blocking pool may grow
//! to hundreds of threads, so all heavy work goes to a fixed number of threads behind a bounded queue. A job
//! that panics fails alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam::channel::{Sender, TrySendError, bounded};
use koios_model::{Code, Coded};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Why a job gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    /// Too much waits already.
    #[error("the compute pool is full: {0} jobs wait already")]
    Full(usize),
    /// The job panicked; the panic is in the log.
    #[error("the computation failed inside (a bug; see the log)")]
    Panicked,
}

impl Coded for ComputeError {
    fn code(&self) -> Code {
        match self {
            ComputeError::Full(_) => Code::Unavailable,
            ComputeError::Panicked => Code::Internal,
        }
    }
}

/// A fixed set of threads. Clones share them; they end with the last clone.
#[derive(Clone)]
pub struct ComputePool {
    queue: Sender<Job>,
    bound: usize,
    threads: usize,
    _life: Arc<()>,
}

impl ComputePool {
    /// Starts `threads` threads with room for `bound` waiting jobs.
    pub fn new(threads: usize, bound: usize) -> Self {
        let (queue, jobs) = bounded::<Job>(bound.max(1));
        for i in 0..threads.max(1) {
            let jobs = jobs.clone();
            let run = move || {
                for job in jobs {
                    // The panic hook has logged it; the thread goes on.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            };
            if let Err(e) = std::thread::Builder::new().name(format!("compute-{i}")).spawn(run) {
                tracing::error!(error = %e, "compute thread did not start");
            }
        }
        Self { queue, bound, threads: threads.max(1), _life: Arc::new(()) }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `job` on the pool.
    ///
    /// # Errors
    /// `Full` at once when the queue has no room, `Panicked` when the job did.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        let (tx, rx) = oneshot::channel();
        let job: Job = Box::new(move || {
            let _ = tx.send(job());
        });
        match self.queue.try_send(job) {
            Ok(()) => rx.await.map_err(|_| ComputeError::Panicked),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(ComputeError::Full(self.bound)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panics_fail_alone_and_the_queue_is_bounded() {
        let pool = ComputePool::new(1, 1);
        assert_eq!(pool.run(|| 1 + 1).await, Ok(2));
        assert_eq!(pool.run(|| -> u8 { panic!("planned") }).await, Err(ComputeError::Panicked));
        assert_eq!(pool.run(|| 3).await, Ok(3), "the thread survived");

        let (hold, held) = crossbeam::channel::bounded::<()>(0);
        let (running_tx, running) = crossbeam::channel::bounded::<()>(1);
        let first = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    running_tx.send(()).unwrap();
                    let _ = held.recv();
                })
                .await
            }
        });
        tokio::task::spawn_blocking(move || running.recv().unwrap()).await.unwrap();
        let second = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(|| ()).await }
        });
        while !pool.queue.is_full() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| ()).await, Err(ComputeError::Full(1)));
        drop(hold);
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
    }
}
