//! Restart after a panic.
//!
//! actix' own supervisor acts on an orderly stop only: a panic in a handler kills the actor and closes its
//! address for good. A warden keeps a factory. Each actor it makes carries a `Flare`; when the actor is
//! dropped, for whatever reason, the flare tells the warden, which makes the next one and republishes the
//! address in the mailroom. Restarts are spaced (10 ms doubling to 5 s while they come quickly) and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, ArbiterHandle, Context};
use tokio::sync::mpsc;

use super::mailroom::Mailroom;

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// An actor that lived this long starts with a short pause again.
const GOOD_LIFE: Duration = Duration::from_secs(30);

/// Lives inside an actor; its end is the actor's end.
#[derive(Debug)]
pub struct Flare {
    on_end: mpsc::Sender<()>,
}

impl Drop for Flare {
    fn drop(&mut self) {
        let _ = self.on_end.try_send(());
    }
}

/// Keeps one actor running until told to stop.
pub struct Warden {
    restarts: Arc<AtomicU64>,
    stop: mpsc::Sender<()>,
}

impl Warden {
    /// Starts an actor made by `factory` on `arbiter` behind `room`, and keeps it there. Must be called
    /// within a tokio runtime that outlives the actor.
    pub fn watch<A, F>(room: Mailroom<A>, arbiter: ArbiterHandle, factory: F) -> Self
    where
        A: Actor<Context = Context<A>>,
        F: Fn(Flare) -> A + Send + Sync + 'static,
    {
        let restarts = Arc::new(AtomicU64::new(0));
        let (stop, mut stopped) = mpsc::channel::<()>(1);
        let counter = restarts.clone();
        let factory = Arc::new(factory);
        let (mut ended, first) = launch(&room, &arbiter, &factory);
        room.publish(Some(first));
        tokio::spawn(async move {
            let mut pause = PAUSE_MIN;
            loop {
                let born = tokio::time::Instant::now();
                tokio::select! {
                    _ = ended.recv() => {}
                    _ = stopped.recv() => {
                        room.publish(None);
                        return;
                    }
                }
                room.publish(None);
                counter.fetch_add(1, Ordering::Relaxed);
                pause = if born.elapsed() > GOOD_LIFE { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
                tracing::error!(
                    actor = room.name(),
                    pause_ms = pause.as_millis() as u64,
                    "actor died, starting it again"
                );
                tokio::time::sleep(pause).await;
                let (next_ended, address) = launch(&room, &arbiter, &factory);
                ended = next_ended;
                room.publish(Some(address));
            }
        });
        Self { restarts, stop }
    }

    /// How often the actor was started again.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Lets the actor go: it ends when the last message is handled, and stays down.
    pub fn release(&self) {
        let _ = self.stop.try_send(());
    }
}

fn launch<A, F>(
    room: &Mailroom<A>,
    arbiter: &ArbiterHandle,
    factory: &Arc<F>,
) -> (mpsc::Receiver<()>, actix::Addr<A>)
where
    A: Actor<Context = Context<A>>,
    F: Fn(Flare) -> A + Send + Sync + 'static,
{
    let (on_end, ended) = mpsc::channel(1);
    let factory = factory.clone();
    let bound = room.bound();
    let address = A::start_in_arbiter(arbiter, move |ctx| {
        // The mailroom is the bound; the mailbox only must never be the narrower one.
        ctx.set_mailbox_capacity(bound.max(16));
        factory(Flare { on_end })
    });
    (ended, address)
}

#[cfg(test)]
mod tests {
    use super::super::mailroom::Letter;
    use super::*;
    use actix::{Arbiter, Handler, Message};

    struct Touchy {
        _flare: Option<Flare>,
        seen: u32,
    }
    impl Actor for Touchy {
        type Context = Context<Self>;
    }
    impl actix::Supervised for Touchy {}

    struct Poke(bool);
    impl Message for Poke {
        type Result = u32;
    }
    impl Handler<Poke> for Touchy {
        type Result = u32;
        fn handle(&mut self, m: Poke, _: &mut Context<Self>) -> u32 {
            assert!(!m.0, "poked too hard");
            self.seen += 1;
            self.seen
        }
    }
    impl Handler<Letter<Poke>> for Touchy {
        type Result = u32;
        fn handle(&mut self, m: Letter<Poke>, ctx: &mut Context<Self>) -> u32 {
            self.handle(m.body, ctx)
        }
    }

    /// The fault: the actor is gone for good, supervisor or not.
    #[actix::test]
    async fn actix_supervisor_does_not_survive_a_panic() {
        let arbiter = Arbiter::new();
        let addr =
            actix::Supervisor::start_in_arbiter(&arbiter.handle(), |_| Touchy { _flare: None, seen: 0 });
        assert_eq!(addr.send(Poke(false)).await, Ok(1));
        assert!(addr.send(Poke(true)).await.is_err());
        assert!(addr.send(Poke(false)).await.is_err(), "closed after the panic");
        arbiter.stop();
    }

    #[actix::test]
    async fn a_warden_brings_the_actor_back() {
        let arbiter = Arbiter::new();
        let room: Mailroom<Touchy> = Mailroom::new("touchy", 8);
        let warden = Warden::watch(room.clone(), arbiter.handle(), |f| Touchy { _flare: Some(f), seen: 0 });
        let patience = Duration::from_secs(5);
        assert_eq!(room.ask(Poke(false), patience).await, Ok(1));
        assert!(room.ask(Poke(true), patience).await.is_err());
        let mut back = room.ask(Poke(false), patience).await;
        for _ in 0..2000 {
            if back.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            back = room.ask(Poke(false), patience).await;
        }
        assert_eq!(back, Ok(1), "a fresh actor answers behind the same mailroom");
        assert_eq!(warden.restarts(), 1);
        warden.release();
        arbiter.stop();
    }
}
