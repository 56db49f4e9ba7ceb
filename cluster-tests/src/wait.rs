//! Waiting for conditions.

use std::future::Future;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(50);

/// Asks until the answer is `Ok`, at most `patience`; panics with the last reason.
pub async fn until<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    match within(patience, &mut ask).await {
        Ok(value) => value,
        Err(why) => panic!("not within {patience:?}: {what}; last: {why}"),
    }
}

/// As `until`, but gives the last reason back.
///
/// # Errors
/// The last reason when the time is up.
pub async fn within<T, F: Future<Output = Result<T, String>>>(
    patience: Duration,
    mut ask: impl FnMut() -> F,
) -> Result<T, String> {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return Ok(value),
            Err(why) if start.elapsed() > patience => return Err(why),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
