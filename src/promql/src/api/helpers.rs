//! Threads that a caller lends to an evaluation.

/// A piece of work on its own; it may run at any time, or never.
pub type Job = Box<dyn FnOnce() + Send>;

/// Lends threads. The engine has none of its own, and its results do not depend on how many there are: an
/// evaluation does everything itself that nobody helped with.
pub trait Helpers: Send + Sync + 'static {
    /// How many jobs may usefully run beside an evaluation.
    fn most(&self) -> usize;

    /// Series that one thread computes at a time, when the lender wants to say so itself.
    fn block_series(&self) -> Option<usize> {
        None
    }

    /// Takes a job to run soon on another thread, or drops it when there is no room. Must not wait.
    fn take(&self, job: Job);
}
