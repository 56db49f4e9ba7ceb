//! Which thread an actor lives on.
//!
//! Owns the arbiters of a node by name, and joins them: actix drops arbiters that nobody waits for. Made
//! inside a running actix system.

use std::collections::BTreeMap;

use actix::{Arbiter, ArbiterHandle};
use parking_lot::Mutex;

/// Named arbiters.
#[derive(Default)]
pub struct Plan {
    arbiters: Mutex<BTreeMap<String, Arbiter>>,
}

impl Plan {
    /// No arbiter yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The arbiter called `name`, started on first use. Call from within the actix system.
    pub fn arbiter(&self, name: &str) -> ArbiterHandle {
        self.arbiters.lock().entry(name.to_owned()).or_insert_with(Arbiter::new).handle()
    }

    /// Stops all arbiters and waits for their threads. Actors must have been drained before.
    pub fn stop(&self) {
        let arbiters = std::mem::take(&mut *self.arbiters.lock());
        for arbiter in arbiters.values() {
            arbiter.stop();
        }
        for (name, arbiter) in arbiters {
            if arbiter.join().is_err() {
                tracing::error!(arbiter = name, "arbiter thread panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::mpsc;

    struct Farewell(mpsc::Sender<&'static str>);
    impl Drop for Farewell {
        fn drop(&mut self) {
            let _ = self.0.send("ended");
        }
    }
    thread_local! {
        static FAREWELL: RefCell<Option<Farewell>> = const { RefCell::new(None) };
    }

    /// The fault: a system that ends waits for no arbiter's thread.
    #[test]
    fn actix_system_leaves_arbiter_threads_running() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};
        let ended = Arc::new(AtomicBool::new(false));
        let flag = ended.clone();
        let system = actix::System::new();
        system.block_on(async move {
            let arbiter = Arbiter::new();
            arbiter.spawn_fn(move || {
                std::thread::sleep(std::time::Duration::from_millis(300));
                flag.store(true, Ordering::SeqCst);
            });
            actix::System::current().stop();
        });
        system.run().unwrap();
        assert!(!ended.load(Ordering::SeqCst), "the system is over and its arbiter still works");
    }

    #[actix::test]
    async fn names_are_threads_and_stop_joins_them() {
        let plan = Plan::new();
        let (tx, rx) = mpsc::channel();
        let (end_tx, end_rx) = mpsc::channel();
        for name in ["a", "b", "a"] {
            let (tx, end_tx) = (tx.clone(), end_tx.clone());
            plan.arbiter(name).spawn_fn(move || {
                FAREWELL.with(|f| *f.borrow_mut() = Some(Farewell(end_tx)));
                tx.send(std::thread::current().id()).unwrap();
            });
        }
        drop((tx, end_tx));
        let distinct: std::collections::HashSet<_> = rx.iter().collect();
        assert_eq!(distinct.len(), 2);
        plan.stop();
        assert_eq!(end_rx.try_iter().count(), 3, "every thread has ended when stop returns");
    }
}
