//! How many bytes of requests a node holds at a time.
//!
//! Owns one number, shared by all requests. A request takes room as its body comes in and as it is unpacked, then what
//! its batch occupies instead, and gives all of it back when it is answered. Who finds no room is told to come again; nobody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The room that is taken.
#[derive(Debug)]
pub(crate) struct Room {
    taken: AtomicU64,
    max: u64,
}

impl Room {
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), max })
    }

    /// Bytes taken by all requests.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// What one request holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    room: Arc<Room>,
    bytes: u64,
}

impl Held {
    pub(crate) fn none(room: &Arc<Room>) -> Self {
        Self { room: room.clone(), bytes: 0 }
    }

    /// Takes more room; `false` when there is none.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let more = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.room.max);
        let taken = self.room.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Held {
    /// Gives everything back.
    pub(crate) fn give_back(&mut self) {
        self.room.taken.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let room = Room::new(10);
        let (mut a, mut b) = (Held::none(&room), Held::none(&room));
        assert!(a.take(6) && !b.take(5) && b.take(4) && !a.take(1));
        assert!(!a.take(usize::MAX), "sums do not wrap");
        drop(a);
        assert_eq!(room.taken(), 4);
        b.give_back();
        assert!(b.take(10));
        drop(b);
        assert_eq!(room.taken(), 0);
    }
}
