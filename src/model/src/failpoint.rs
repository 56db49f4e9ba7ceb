//! Places where a test may end the process: before every sync, rename and removal, and in the middle of every write.
//!
//! And places where a test may have a task panic, which the rest of the process has to survive.
//!
//! Owns one countdown for the process, over all places or those of one name. A test arms it through an environment
//! variable (the node does that in builds with debug assertions only); when it reaches zero the process ends at once,
//! as by `kill -9`, and what the last write had begun is half there. Unarmed, a place costs one load. Refuses to change what a place does otherwise:
//! faults that a program must survive while it runs come through the traits that name the disk.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Places left until the end; zero: not armed.
static LEFT: AtomicU64 = AtomicU64::new(0);
/// Only places of this name count, when it is set.
static ONLY: OnceLock<String> = OnceLock::new();

/// The variable that says at which place to end: `17` for the 17th of all, `block rename:2` for the second of a name.
pub const VARIABLE: &str = "KOIOS_CRASH_AT";

/// Passes left until the panic; zero: not armed.
static PANIC_LEFT: AtomicU64 = AtomicU64::new(0);
/// Where it is.
static PANIC_AT: OnceLock<String> = OnceLock::new();

/// The variable that says where a task panics: `gossip receive:100` at the hundredth pass, once.
pub const PANIC_VARIABLE: &str = "KOIOS_PANIC_AT";

/// Arms the countdowns when their variables ask for it. To be called once, when the process starts.
pub fn arm_from_environment() {
    if let Ok(wanted) = std::env::var(PANIC_VARIABLE)
        && let Some((name, nth)) = wanted.rsplit_once(':')
    {
        PANIC_AT.get_or_init(|| name.to_owned());
        PANIC_LEFT.store(nth.parse().unwrap_or(0), Ordering::SeqCst);
    }
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let (name, nth) =
        wanted.rsplit_once(':').map_or((None, wanted.as_str()), |(name, nth)| (Some(name), nth));
    if let Some(name) = name {
        ONLY.get_or_init(|| name.to_owned());
    }
    LEFT.store(nth.parse().unwrap_or(0), Ordering::SeqCst);
}

/// Counts this place; whether it is the one to end at.
fn due(place: &str) -> bool {
    if LEFT.load(Ordering::Relaxed) == 0 || ONLY.get().is_some_and(|only| only != place) {
        return false;
    }
    let count = |left: u64| left.checked_sub(1);
    LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(1)
}

fn end(place: &str) -> ! {
    // Said so that a test can tell this end from a fault.
    let _ = writeln!(io::stderr().lock(), "failpoint {place}: the process ends here");
    std::process::abort();
}

/// Passes a place where the task that passes may panic.
#[inline]
pub fn fault(place: &str) {
    if PANIC_LEFT.load(Ordering::Relaxed) == 0 || PANIC_AT.get().is_none_or(|at| at != place) {
        return;
    }
    let count = |left: u64| left.checked_sub(1);
    if PANIC_LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(1) {
        panic!("failpoint {place}: this task panics here");
    }
}

/// Passes a place where nothing is written: a sync, a rename, a removal.
#[inline]
pub fn pass(place: &'static str) {
    if due(place) {
        end(place);
    }
}

/// Writes through `write`; when the process is to end here, only the first half of `bytes`.
///
/// # Errors
/// Those of `write`.
#[inline]
pub fn write<E>(
    place: &'static str,
    bytes: &[u8],
    write: impl FnOnce(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    if due(place) {
        let _ = write(&bytes[..bytes.len() / 2]);
        end(place);
    }
    write(bytes)
}

/// A file whose every write is such a place.
#[derive(Debug)]
pub struct Watched<W> {
    inner: W,
    place: &'static str,
}

impl<W> Watched<W> {
    /// Around `inner`.
    pub fn new(place: &'static str, inner: W) -> Self {
        Self { inner, place }
    }

    /// What it was made of.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let inner = &mut self.inner;
        write(self.place, buf, |part| inner.write_all(part))?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unarmed_places_change_nothing() {
        let mut file = Watched::new("a file", Vec::new());
        pass("a sync");
        fault("a task");
        file.write_all(b"all of it").unwrap();
        file.flush().unwrap();
        assert_eq!(file.into_inner(), b"all of it");
    }
}
