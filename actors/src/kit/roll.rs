//! Who is there: the roll of a node's actors.
//!
//! actix' registries are global to a system or a thread; this one belongs to a node and is handed down, so
//! several nodes can live in one process. It holds no addresses, only how to observe.

use std::sync::Arc;

use parking_lot::RwLock;

/// One line of the roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Actor name.
    pub name: String,
    /// Whether it runs.
    pub up: bool,
    /// Messages waiting or running.
    pub depth: usize,
    /// Most messages at a time.
    pub bound: usize,
    /// Times it was started again.
    pub restarts: u64,
}

type Observe = Box<dyn Fn() -> Entry + Send + Sync>;

/// The roll.
#[derive(Clone, Default)]
pub struct Roll {
    observers: Arc<RwLock<Vec<Observe>>>,
}

impl Roll {
    /// An empty roll.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an actor by the way to observe it.
    pub fn enter(&self, observe: impl Fn() -> Entry + Send + Sync + 'static) {
        self.observers.write().push(Box::new(observe));
    }

    /// Everybody, in the order of entry.
    pub fn call(&self) -> Vec<Entry> {
        self.observers.read().iter().map(|o| o()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Service;
    impl actix::Actor for Service {
        type Context = actix::Context<Self>;
    }
    impl actix::Supervised for Service {}
    impl actix::SystemService for Service {}

    /// The fault: a registry of actix belongs to the system, so two nodes in one process would share it.
    #[actix::test]
    async fn actix_registry_is_shared_by_all_nodes_of_a_process() {
        use actix::SystemService;
        assert_eq!(Service::from_registry(), Service::from_registry(), "whoever asks gets the same actor");
        let (one, other) = (Roll::new(), Roll::new());
        one.enter(|| Entry { name: "a".into(), up: true, depth: 0, bound: 1, restarts: 0 });
        assert_eq!((one.call().len(), other.call().len()), (1, 0));
    }

    #[test]
    fn observes_at_the_time_of_the_call() {
        let roll = Roll::new();
        let depth = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = depth.clone();
        roll.enter(move || Entry {
            name: "a".into(),
            up: true,
            depth: seen.load(std::sync::atomic::Ordering::Relaxed),
            bound: 4,
            restarts: 0,
        });
        assert_eq!(roll.call()[0].depth, 0);
        depth.store(3, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(roll.clone().call()[0].depth, 3);
    }
}
