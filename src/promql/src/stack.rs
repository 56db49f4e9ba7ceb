//! Room for recursion over deep queries.
//!
//! Callers run on threads with small stacks. A query that nests deeper than usual gets a thread of its own
//! whose stack fits the bound on nesting, so that depth costs a few microseconds instead of the process.

/// Levels that fit on any stack.
const PLAIN_LEVELS: usize = 40;
/// Stack for each further level.
const BYTES_PER_LEVEL: usize = 48 << 10;

/// Runs `f`, which recurses about `levels` deep.
///
/// # Errors
/// The system's text when no thread could be started.
pub(crate) fn with_room<T: Send>(levels: usize, f: impl FnOnce() -> T + Send) -> Result<T, String> {
    if levels <= PLAIN_LEVELS {
        return Ok(f());
    }
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("promql-deep".to_owned());
        match builder.stack_size(BYTES_PER_LEVEL * levels).spawn_scoped(scope, f) {
            Err(e) => Err(format!("no thread for a deeply nested query: {e}")),
            Ok(handle) => handle.join().map_or_else(|panic| std::panic::resume_unwind(panic), Ok),
        }
    })
}
