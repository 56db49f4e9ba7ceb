//! Stopping in order.
//!
//! `System::stop` drops queued messages and joins nobody. A drain is a ladder of named steps, each with its
//! own deadline: a step that fails or is late is reported, and the next one runs all the same, because a
//! stuck upload must not keep the log from being synced.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

type Work = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In time and well.
    Done,
    /// Said why it failed.
    Failed(String),
    /// Ran out of its time and was dropped.
    Late,
}

/// An ordered list of things to do before the process may end.
#[derive(Default)]
pub struct Drain {
    steps: Vec<(&'static str, Duration, Work)>,
}

impl Drain {
    /// An empty ladder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step at the end.
    pub fn step(
        &mut self,
        name: &'static str,
        deadline: Duration,
        work: impl Future<Output = Result<(), String>> + Send + 'static,
    ) -> &mut Self {
        self.steps.push((name, deadline, Box::pin(work)));
        self
    }

    /// Runs all steps in order and says how each ended.
    pub async fn run(self) -> Vec<(&'static str, Outcome)> {
        let mut report = Vec::with_capacity(self.steps.len());
        for (name, deadline, work) in self.steps {
            let outcome = match tokio::time::timeout(deadline, work).await {
                Ok(Ok(())) => Outcome::Done,
                Ok(Err(why)) => Outcome::Failed(why),
                Err(_) => Outcome::Late,
            };
            match &outcome {
                Outcome::Done => tracing::info!(step = name, "drain step done"),
                bad => tracing::warn!(step = name, outcome = ?bad, "drain step did not end well"),
            }
            report.push((name, outcome));
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::{Actor, Context, Handler, Message};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counter(Arc<AtomicUsize>);
    impl Actor for Counter {
        type Context = Context<Self>;
    }
    #[derive(Message)]
    #[rtype(result = "()")]
    struct Tick;
    impl Handler<Tick> for Counter {
        type Result = actix::AtomicResponse<Self, ()>;
        fn handle(&mut self, _: Tick, _: &mut Context<Self>) -> Self::Result {
            use actix::ActorFutureExt;
            actix::AtomicResponse::new(Box::pin(
                actix::fut::wrap_future::<_, Self>(tokio::time::sleep(Duration::from_millis(2))).map(
                    |(), me, _| {
                        me.0.fetch_add(1, Ordering::SeqCst);
                    },
                ),
            ))
        }
    }

    /// The fault: stopping the system drops what is queued.
    #[test]
    fn actix_stop_is_not_a_drain() {
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = seen.clone();
        let runner = actix::System::new();
        runner.block_on(async move {
            let addr = Counter(counter).start();
            for _ in 0..20 {
                addr.do_send(Tick);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            actix::System::current().stop();
        });
        runner.run().unwrap();
        assert!(seen.load(Ordering::SeqCst) < 20, "some of the twenty were dropped");
    }

    #[tokio::test]
    async fn steps_run_in_order_and_a_stuck_one_does_not_stop_the_rest() {
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let note = |n: u32| {
            let order = order.clone();
            async move {
                order.lock().push(n);
                Ok(())
            }
        };
        let mut drain = Drain::new();
        drain.step("one", Duration::from_secs(1), note(1));
        drain.step("stuck", Duration::from_millis(10), std::future::pending());
        drain.step("fails", Duration::from_secs(1), async { Err("disk is gone".to_owned()) });
        drain.step("last", Duration::from_secs(1), note(2));
        let report = drain.run().await;
        assert_eq!(
            report,
            [
                ("one", Outcome::Done),
                ("stuck", Outcome::Late),
                ("fails", Outcome::Failed("disk is gone".into())),
                ("last", Outcome::Done)
            ]
        );
        assert_eq!(*order.lock(), [1, 2]);
    }
}
