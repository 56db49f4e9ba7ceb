//! Slow reads are asked a second time.
//!
//! A read whose first bytes take longer than most of the last reads did is asked again, and the first answer counts
//! (Dean and Barroso, "The Tail at Scale", 2013). Only reads: nothing else may be done twice. Bounds: `up_to` requests for
//! one read, the last `REMEMBERED` times, and at most one extra request for ten reads, so that a store that is slow
//! altogether does not get all questions twice.

use std::collections::VecDeque;
use std::fmt::{Debug, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{BoxStream, FuturesUnordered};
use koios_model::Clock;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use crate::config::Hedging;

const REMEMBERED: usize = 256;
/// Before so many reads nothing is known of a store.
const LEARNED: usize = 20;
/// Reads that earn one extra request.
const PER_EXTRA: u32 = 10;
/// Most extra requests that can be saved up, in reads.
const SAVED_MAX: u32 = 200;

#[derive(Default)]
struct Seen {
    times: VecDeque<Duration>,
    saved: u32,
}

impl Seen {
    fn took(&mut self, time: Duration) {
        if self.times.len() == REMEMBERED {
            self.times.pop_front();
        }
        self.times.push_back(time);
        self.saved = (self.saved + 1).min(SAVED_MAX);
    }

    fn patience(&self, quantile: f64) -> Option<Duration> {
        if self.times.len() < LEARNED {
            return None;
        }
        let mut sorted: Vec<Duration> = self.times.iter().copied().collect();
        sorted.sort_unstable();
        Some(sorted[((sorted.len() - 1) as f64 * quantile) as usize])
    }

    fn spend(&mut self) -> bool {
        let rich = self.saved >= PER_EXTRA;
        if rich {
            self.saved -= PER_EXTRA;
        }
        rich
    }
}

/// A store whose slow reads are asked again.
pub(crate) struct Hedged {
    inner: Arc<dyn ObjectStore>,
    hedging: Hedging,
    seen: Mutex<Seen>,
    clock: Arc<dyn Clock>,
}

impl Hedged {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, hedging: Hedging, clock: Arc<dyn Clock>) -> Self {
        Self { inner, hedging, seen: Mutex::default(), clock }
    }
}

impl Debug for Hedged {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        Debug::fmt(&self.inner, f)
    }
}

impl Display for Hedged {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for Hedged {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let begun = self.clock.mono_ns();
        let ask = || self.inner.get_opts(location, options.clone());
        let mut asked = FuturesUnordered::from_iter([ask()]);
        let patience = self.seen.lock().patience(self.hedging.quantile);
        let first = loop {
            let more = asked.len() < self.hedging.up_to as usize;
            let Some(patience) = patience.filter(|_| more) else { break asked.next().await };
            match tokio::time::timeout(patience, asked.next()).await {
                Ok(done) => break done,
                Err(_) if self.seen.lock().spend() => asked.push(ask()),
                Err(_) => break asked.next().await,
            }
        };
        let got = first.expect("BUG: nothing was asked");
        if got.is_ok() {
            let took = self.clock.mono_ns().saturating_sub(begun);
            self.seen.lock().took(Duration::from_nanos(took));
        }
        got
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Fault, Faulty};
    use koios_model::SystemClock;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn a_slow_read_is_asked_again_and_not_without_end() {
        let faulty = Arc::new(Faulty::new(Arc::new(InMemory::new()), 1));
        let hedged = Hedged::new(faulty.clone(), Hedging { up_to: 2, quantile: 0.9 }, SystemClock::shared());
        let path = Path::from("x");
        hedged.put(&path, "1".into()).await.unwrap();
        faulty.set(vec![Fault::Slow { share: 1.0, time: Duration::from_millis(2) }]);
        for _ in 0..40 {
            hedged.get(&path).await.unwrap();
        }
        let before = faulty.asked();
        faulty.set(vec![Fault::Slow { share: 0.5, time: Duration::from_millis(400) }]);
        for _ in 0..20 {
            hedged.get(&path).await.unwrap();
        }
        let extra = faulty.asked() - before - 20;
        assert!((2..=6).contains(&extra), "{extra} extra requests");
    }
}
