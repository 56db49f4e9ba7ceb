//! What happens when something panics: it is logged with its place, and counted. A panic hook belongs to the
//! process, so this is the one piece of process-wide state of the crate; a node shows it through a collector.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);
static INSTALLED: Once = Once::new();

/// Installs the hook; further calls do nothing. The default hook, which prints to standard error, runs only
/// when no log subscriber takes the event.
pub fn install_panic_hook() {
    INSTALLED.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            if !tracing::enabled!(tracing::Level::ERROR) {
                return default(info);
            }
            let text = info.payload().downcast_ref::<&str>().copied();
            let text = text.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let thread = std::thread::current();
            let thread = thread.name().unwrap_or("unnamed").to_owned();
            let backtrace = std::backtrace::Backtrace::capture();
            let shown = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
            let backtrace = if shown { backtrace.to_string() } else { String::new() };
            tracing::error!(place, thread, backtrace, "panic: {}", text.unwrap_or("of unknown type"));
        }));
    });
}

/// Panics since the hook was installed.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        install_panic_hook();
        install_panic_hook();
        let before = panics();
        assert!(std::panic::catch_unwind(|| panic!("expected by this test")).is_err());
        assert!(panics() > before);
    }
}
