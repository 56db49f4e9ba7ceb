//! Local ejection: gossip may hear a node through third parties that this node cannot reach.
//!
//! Owns, per peer generation, the moment until which it is not asked. Whatever gossip says, a refused
//! connection ejects at once; a success brings it back. Never gossiped, never persisted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use koios_model::Clock;
use parking_lot::Mutex;

/// How long an unreachable peer is left alone, nanoseconds.
pub const EJECT_NS: u64 = 10_000_000_000;

/// Who answered lately.
pub struct Reach {
    clock: Arc<dyn Clock>,
    ejected: Mutex<HashMap<(String, u64), u64>>,
}

impl Reach {
    /// Nobody ejected.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, ejected: Mutex::default() }
    }

    /// A call failed to reach the peer.
    pub fn failed(&self, name: &str, generation: u64) {
        let until = self.clock.mono_ns() + EJECT_NS;
        let mut map = self.ejected.lock();
        let now = self.clock.mono_ns();
        map.retain(|_, t| *t > now);
        map.insert((name.to_owned(), generation), until);
    }

    /// The peer answered.
    pub fn answered(&self, name: &str, generation: u64) {
        self.ejected.lock().remove(&(name.to_owned(), generation));
    }

    /// Whether the peer should be tried last.
    pub fn is_ejected(&self, name: &str, generation: u64) -> bool {
        let now = self.clock.mono_ns();
        self.ejected.lock().get(&(name.to_owned(), generation)).is_some_and(|t| *t > now)
    }

    /// Names of the peers that should be tried last.
    pub fn ejected(&self) -> BTreeSet<String> {
        let now = self.clock.mono_ns();
        self.ejected.lock().iter().filter(|(_, t)| **t > now).map(|((name, _), _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_model::ManualClock;

    #[test]
    fn ejection_ends_by_time_success_or_restart() {
        let clock = ManualClock::at(0);
        let reach = Reach::new(clock.clone());
        reach.failed("a", 1);
        assert!(reach.is_ejected("a", 1) && !reach.is_ejected("a", 2));
        assert!(reach.ejected().iter().eq(["a"]));
        reach.answered("a", 1);
        assert!(!reach.is_ejected("a", 1));
        reach.failed("a", 1);
        clock.advance_ms(10_000);
        assert!(!reach.is_ejected("a", 1));
    }
}
