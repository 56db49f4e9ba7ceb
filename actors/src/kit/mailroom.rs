//! A bound on what waits for an actor.
//!
//! An actix mailbox holds `capacity` messages plus one for every clone of its address, so ten thousand
//! callers put ten thousand messages into a mailbox of four. Here a permit travels inside the message and
//! returns when the handler is done with it: what waits plus what runs never exceeds the bound. The address
//! behind the mailroom is republished by the warden, so callers keep one handle for life.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Handler, Message};
use arc_swap::ArcSwapOption;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::reply::AskError;

/// A message with the permit that let it in. Handlers are written for `Letter<M>`; a handler that answers
/// later keeps the permit alive by moving it along.
pub struct Letter<M> {
    /// The message.
    pub body: M,
    /// Dropped when the work is done.
    pub permit: OwnedSemaphorePermit,
}

impl<M: Message> Message for Letter<M>
where
    M::Result: 'static,
{
    type Result = M::Result;
}

/// Counters of one mailroom.
#[derive(Debug, Default)]
pub struct MailroomStats {
    /// Messages let in.
    pub accepted: AtomicU64,
    /// Messages refused.
    pub refused: AtomicU64,
}

/// A bounded, restart-proof handle to an actor. Clones share the bound.
pub struct Mailroom<A: Actor> {
    name: &'static str,
    bound: usize,
    permits: Arc<Semaphore>,
    address: Arc<ArcSwapOption<Addr<A>>>,
    stats: Arc<MailroomStats>,
}

impl<A: Actor> Clone for Mailroom<A> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            bound: self.bound,
            permits: self.permits.clone(),
            address: self.address.clone(),
            stats: self.stats.clone(),
        }
    }
}

impl<A: Actor> Mailroom<A> {
    /// A mailroom without an actor yet.
    pub fn new(name: &'static str, bound: usize) -> Self {
        Self {
            name,
            bound,
            permits: Arc::new(Semaphore::new(bound)),
            address: Arc::default(),
            stats: Arc::default(),
        }
    }

    /// Publishes the actor's current address.
    pub fn publish(&self, address: Option<Addr<A>>) {
        self.address.store(address.map(Arc::new));
    }

    /// The actor's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Most messages at a time.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Messages waiting or running.
    pub fn depth(&self) -> usize {
        self.bound - self.permits.available_permits().min(self.bound)
    }

    /// Whether an actor is behind the mailroom.
    pub fn is_up(&self) -> bool {
        self.address.load().as_ref().is_some_and(|a| a.connected())
    }

    /// Counters.
    pub fn stats(&self) -> &MailroomStats {
        &self.stats
    }

    /// Sends and waits for the answer; waits for room first.
    ///
    /// # Errors
    /// `AskError::Down` when the actor died before answering, `Late` when `patience` ran out.
    pub async fn ask<M>(&self, body: M, patience: Duration) -> Result<M::Result, AskError>
    where
        M: Message + Send + 'static,
        M::Result: Send + 'static,
        A: Handler<Letter<M>>,
        A::Context: ToEnvelope<A, Letter<M>>,
    {
        let late = AskError::Late { actor: self.name };
        let whole = async {
            let permit = self
                .permits
                .clone()
                .acquire_owned()
                .await
                .map_err(|_| AskError::Down { actor: self.name })?;
            self.deliver(body, permit).await
        };
        tokio::time::timeout(patience, whole).await.map_err(|_| late)?
    }

    /// Sends and waits for the answer; refuses at once when there is no room.
    ///
    /// # Errors
    /// `AskError::Overloaded`, or `Down` when the actor died before answering.
    pub async fn try_ask<M>(&self, body: M) -> Result<M::Result, AskError>
    where
        M: Message + Send + 'static,
        M::Result: Send + 'static,
        A: Handler<Letter<M>>,
        A::Context: ToEnvelope<A, Letter<M>>,
    {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            self.stats.refused.fetch_add(1, Ordering::Relaxed);
            return Err(AskError::Overloaded { actor: self.name, bound: self.bound });
        };
        self.deliver(body, permit).await
    }

    /// Sends without waiting for an answer; refuses when there is no room.
    ///
    /// # Errors
    /// `AskError::Overloaded` or `Down`; the message is dropped then.
    pub fn tell<M>(&self, body: M) -> Result<(), AskError>
    where
        M: Message<Result = ()> + Send + 'static,
        A: Handler<Letter<M>>,
        A::Context: ToEnvelope<A, Letter<M>>,
    {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            self.stats.refused.fetch_add(1, Ordering::Relaxed);
            return Err(AskError::Overloaded { actor: self.name, bound: self.bound });
        };
        let address = self.address.load_full().ok_or(AskError::Down { actor: self.name })?;
        self.stats.accepted.fetch_add(1, Ordering::Relaxed);
        address.do_send(Letter { body, permit });
        Ok(())
    }

    async fn deliver<M>(&self, body: M, permit: OwnedSemaphorePermit) -> Result<M::Result, AskError>
    where
        M: Message + Send + 'static,
        M::Result: Send + 'static,
        A: Handler<Letter<M>>,
        A::Context: ToEnvelope<A, Letter<M>>,
    {
        let address = self.address.load_full().ok_or(AskError::Down { actor: self.name })?;
        self.stats.accepted.fetch_add(1, Ordering::Relaxed);
        address.send(Letter { body, permit }).await.map_err(|e| AskError::from_mailbox(self.name, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::Context;
    use std::sync::atomic::AtomicUsize;

    struct Slow(Arc<AtomicUsize>);

    impl Actor for Slow {
        type Context = Context<Self>;
    }

    struct Work(Arc<AtomicUsize>);
    impl Message for Work {
        type Result = ();
    }
    impl Drop for Work {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn work(alive: &Arc<AtomicUsize>) -> Work {
        alive.fetch_add(1, Ordering::SeqCst);
        Work(alive.clone())
    }

    impl Handler<Work> for Slow {
        type Result = actix::ResponseFuture<()>;
        fn handle(&mut self, m: Work, _: &mut Context<Self>) -> Self::Result {
            let done = self.0.clone();
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop(m);
                done.fetch_add(1, Ordering::SeqCst);
            })
        }
    }

    impl Handler<Letter<Work>> for Slow {
        type Result = actix::ResponseFuture<()>;
        fn handle(&mut self, m: Letter<Work>, _: &mut Context<Self>) -> Self::Result {
            let done = self.0.clone();
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                drop(m);
                done.fetch_add(1, Ordering::SeqCst);
            })
        }
    }

    /// The fault: a capacity of 4 holds as many messages as there are clones of the address.
    #[actix::test]
    async fn actix_capacity_bounds_nothing() {
        struct Stuck;
        impl Actor for Stuck {
            type Context = Context<Self>;
            fn started(&mut self, ctx: &mut Self::Context) {
                ctx.set_mailbox_capacity(4);
            }
        }
        impl Handler<Work> for Stuck {
            type Result = ();
            fn handle(&mut self, _: Work, _: &mut Context<Self>) {}
        }
        let addr = Stuck.start();
        let alive = Arc::new(AtomicUsize::new(0));
        let clones: Vec<_> = (0..500).map(|_| addr.clone()).collect();
        let taken = clones.iter().filter(|a| a.try_send(work(&alive)).is_ok()).count();
        assert_eq!(taken, 500, "five hundred messages wait in a mailbox of four");
    }

    #[actix::test]
    async fn permits_bound_what_waits_and_runs() {
        let done = Arc::new(AtomicUsize::new(0));
        let alive = Arc::new(AtomicUsize::new(0));
        let room: Mailroom<Slow> = Mailroom::new("slow", 4);
        room.publish(Some(Slow(done.clone()).start()));
        let mut asks = Vec::new();
        for _ in 0..200 {
            let (room, work) = (room.clone(), work(&alive));
            asks.push(actix::spawn(async move { room.ask(work, Duration::from_secs(20)).await }));
        }
        let mut deepest = 0;
        while done.load(Ordering::SeqCst) < 200 {
            deepest = deepest.max(room.depth());
            tokio::task::yield_now().await;
        }
        assert!(deepest <= 4, "{deepest}");
        for ask in asks {
            ask.await.unwrap().unwrap();
        }
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }

    #[actix::test]
    async fn a_full_room_and_a_dead_actor_are_told_apart() {
        let alive = Arc::new(AtomicUsize::new(0));
        let room: Mailroom<Slow> = Mailroom::new("slow", 1);
        assert_eq!(
            room.ask(work(&alive), Duration::from_secs(1)).await,
            Err(AskError::Down { actor: "slow" })
        );
        room.publish(Some(Slow(Arc::default()).start()));
        room.tell(work(&alive)).unwrap();
        assert_eq!(room.tell(work(&alive)), Err(AskError::Overloaded { actor: "slow", bound: 1 }));
        assert_eq!(room.stats().refused.load(Ordering::Relaxed), 1);
    }
}
