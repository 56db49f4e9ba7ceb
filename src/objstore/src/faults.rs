//! A store that misbehaves on purpose, for tests.
//!
//! Wraps any store and does to requests what real ones do on bad days: answers with errors, is away, slow, or stalls in the
//! middle of a body; loses the answer to a write that it carried out; refuses a create although nothing is there; lists what
//! was there a while ago; gives bodies that are cut or changed; ignores the condition of a conditional write; refuses
//! credentials. Which requests are hit follows from a seed and the order of requests, so a run can be repeated.
//!
//! Refuses to lose anything by itself: the store behind it always holds what was written.

use std::fmt::{Debug, Display, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// One way to misbehave; `share` of the requests it concerns are hit, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Requests are answered with an error that may pass, and not carried out.
    Errors {
        /// Of all requests.
        share: f64,
    },
    /// Nothing is answered but errors.
    Away,
    /// Requests take so long.
    Slow {
        /// Of all requests.
        share: f64,
        /// How long.
        time: Duration,
    },
    /// Bodies end their movement in the middle.
    Stall {
        /// Of all reads.
        share: f64,
    },
    /// Writes are carried out and answered with an error.
    LostReply {
        /// Of all writes.
        share: f64,
    },
    /// Creates are refused as if somebody were there; nothing is written.
    Conflict {
        /// Of all creates.
        share: f64,
    },
    /// Lists do not show what was written while this fault is set.
    StaleLists,
    /// A read of what was written while this fault is set finds nothing the first time.
    LateReads,
    /// Bodies are short.
    Cut {
        /// Of all reads.
        share: f64,
    },
    /// One bit of a body is another one.
    Flip {
        /// Of all reads.
        share: f64,
    },
    /// Create-if-absent overwrites.
    NoConditions,
    /// Credentials are refused.
    Denied,
}

#[derive(Default)]
struct Memory {
    faults: Vec<Fault>,
    /// Written since the faults were set; whether it was read since.
    fresh: Vec<(Path, bool)>,
}

/// Most writes that are remembered for stale lists and late reads.
const FRESH_MAX: usize = 10_000;

/// A store with faults.
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    memory: Mutex<Memory>,
    dice: Mutex<u64>,
    asked: AtomicU64,
}

impl Faulty {
    /// No faults yet.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Self {
        Self { inner, memory: Mutex::default(), dice: Mutex::new(seed), asked: AtomicU64::new(0) }
    }

    /// Over memory, no faults yet.
    pub fn in_memory(seed: u64) -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()), seed)
    }

    /// From now on these faults and no others.
    pub fn set(&self, faults: Vec<Fault>) {
        *self.memory.lock() = Memory { faults, fresh: Vec::new() };
    }

    /// Requests so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// splitmix64 (Steele, Lea and Flood, 2014).
    fn roll(&self, share: f64) -> bool {
        let mut dice = self.dice.lock();
        *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64 <= share && share > 0.0
    }

    fn hit(&self, share_of: impl Fn(&Fault) -> Option<f64>) -> bool {
        let shares: Vec<f64> = self.memory.lock().faults.iter().filter_map(share_of).collect();
        shares.into_iter().any(|share| self.roll(share))
    }

    fn has(&self, fault: Fault) -> bool {
        self.memory.lock().faults.contains(&fault)
    }

    /// What every request meets first.
    async fn meet(&self, path: &Path) -> Result<()> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let slow: Vec<(f64, Duration)> = {
            let memory = self.memory.lock();
            let slow = |f: &Fault| match f {
                Fault::Slow { share, time } => Some((*share, *time)),
                _ => None,
            };
            memory.faults.iter().filter_map(slow).collect()
        };
        for (share, time) in slow {
            if self.roll(share) {
                tokio::time::sleep(time).await;
            }
        }
        if self.has(Fault::Denied) {
            let source = "the credentials have expired".into();
            return Err(Error::Unauthenticated { path: path.to_string(), source });
        }
        if self.has(Fault::Away) {
            return Err(failure("no route to the store"));
        }
        match self.hit(|f| if let Fault::Errors { share } = f { Some(*share) } else { None }) {
            true => Err(failure("503 slow down")),
            false => Ok(()),
        }
    }

    fn wrote(&self, path: &Path) -> Result<()> {
        let mut memory = self.memory.lock();
        if memory.fresh.len() < FRESH_MAX {
            memory.fresh.push((path.clone(), false));
        }
        drop(memory);
        match self.hit(|f| if let Fault::LostReply { share } = f { Some(*share) } else { None }) {
            true => Err(failure("connection reset")),
            false => Ok(()),
        }
    }

    fn is_late(&self, path: &Path) -> bool {
        let mut memory = self.memory.lock();
        let late = memory.faults.contains(&Fault::LateReads);
        let first = memory.fresh.iter_mut().find(|(p, seen)| p == path && !*seen);
        late && first.map(|(_, seen)| *seen = true).is_some()
    }

    fn unseen(&self) -> Vec<Path> {
        match self.has(Fault::StaleLists) {
            true => self.memory.lock().fresh.iter().map(|(p, _)| p.clone()).collect(),
            false => Vec::new(),
        }
    }

    async fn body(&self, got: GetResult) -> Result<GetResult> {
        let cut = self.hit(|f| if let Fault::Cut { share } = f { Some(*share) } else { None });
        let flip = self.hit(|f| if let Fault::Flip { share } = f { Some(*share) } else { None });
        let stall = self.hit(|f| if let Fault::Stall { share } = f { Some(*share) } else { None });
        if !cut && !flip && !stall {
            return Ok(got);
        }
        let (meta, range) = (got.meta.clone(), got.range.clone());
        let (attributes, extensions) = (got.attributes.clone(), got.extensions.clone());
        let mut bytes = got.bytes().await?.to_vec();
        let middle = bytes.len() / 2;
        if flip && let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0x10;
        }
        if cut || stall {
            bytes.truncate(middle);
        }
        let first = stream::iter([Ok(Bytes::from(bytes))]);
        let body = if stall { first.chain(stream::pending()).boxed() } else { first.boxed() };
        Ok(GetResult { payload: GetResultPayload::Stream(body), meta, range, attributes, extensions })
    }
}

fn failure(words: &'static str) -> Error {
    Error::Generic { store: "faulty", source: words.into() }
}

impl Debug for Faulty {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faulty({:?})", self.inner)
    }
}

impl Display for Faulty {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        self.meet(location).await?;
        if opts.mode == PutMode::Create {
            if self.hit(|f| if let Fault::Conflict { share } = f { Some(*share) } else { None }) {
                let source = "409 conflict".into();
                return Err(Error::AlreadyExists { path: location.to_string(), source });
            }
            if self.has(Fault::NoConditions) {
                opts.mode = PutMode::Overwrite;
            }
        }
        let put = self.inner.put_opts(location, payload, opts).await?;
        self.wrote(location).map(|()| put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.meet(location).await?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.meet(location).await?;
        if self.is_late(location) {
            return Err(Error::NotFound { path: location.to_string(), source: "not yet".into() });
        }
        let head = options.head;
        let got = self.inner.get_opts(location, options).await?;
        if head { Ok(got) } else { self.body(got).await }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.has(Fault::Away) || self.has(Fault::Denied) {
            return stream::iter([Err(failure("no route to the store"))]).boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.has(Fault::Away) || self.has(Fault::Denied) {
            return stream::iter([Err(failure("no route to the store"))]).boxed();
        }
        let unseen = self.unseen();
        let seen = move |m: &Result<ObjectMeta>| m.as_ref().is_ok_and(|m| unseen.contains(&m.location));
        self.inner.list(prefix).filter(move |m| std::future::ready(!seen(m))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.meet(prefix.unwrap_or(&Path::default())).await?;
        let unseen = self.unseen();
        let mut list = self.inner.list_with_delimiter(prefix).await?;
        list.objects.retain(|m| !unseen.contains(&m.location));
        if !unseen.is_empty() {
            let mut kept = Vec::new();
            for folder in std::mem::take(&mut list.common_prefixes) {
                let inside: Vec<_> = self.inner.list(Some(&folder)).collect().await;
                let seen = |m: &Result<ObjectMeta>| m.as_ref().is_ok_and(|m| !unseen.contains(&m.location));
                if inside.iter().any(seen) {
                    kept.push(folder);
                }
            }
            list.common_prefixes = kept;
        }
        Ok(list)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.meet(to).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bucket, ObjstoreError};
    use koios_model::BlockId;

    fn id(n: u64) -> BlockId {
        BlockId::from_parts(n, 1)
    }

    async fn bucket(faults: Vec<Fault>) -> (Arc<Faulty>, Bucket) {
        let faulty = Arc::new(Faulty::in_memory(7));
        let bucket = Bucket::over(faulty.clone(), None, id(1)).await.unwrap();
        faulty.set(faults);
        (faulty, bucket)
    }

    /// Scenario 19.
    #[tokio::test]
    async fn s19_a_create_whose_answer_is_lost_has_one_winner() {
        let (_, bucket) = bucket(vec![Fault::LostReply { share: 0.5 }]).await;
        for round in 0..40u8 {
            let path = format!("k/{round}");
            let first = bucket.create(&path, vec![round, 1]).await;
            let second = bucket.create(&path, vec![round, 2]).await;
            assert!(first.is_ok(), "{first:?}");
            assert!(matches!(second, Err(ObjstoreError::Exists(_))), "{second:?}");
            assert_eq!(bucket.get(&path).await.unwrap(), vec![round, 1]);
        }
    }

    /// Scenario 20.
    #[tokio::test]
    async fn s20_a_conflict_without_an_object_is_tried_again() {
        let (faulty, bucket) = bucket(vec![Fault::Conflict { share: 0.4 }]).await;
        let mut failed = 0;
        for round in 0..40u8 {
            match bucket.create(&format!("k/{round}"), vec![round]).await {
                Ok(()) => assert_eq!(bucket.get(&format!("k/{round}")).await.unwrap(), vec![round]),
                Err(ObjstoreError::Store { detail, .. }) => {
                    failed += 1;
                    assert!(detail.contains("does not show"));
                }
                Err(e) => panic!("{e}: nobody was first"),
            }
        }
        assert!(failed < 10);
        faulty.set(Vec::new());
        bucket.create("k/0", vec![0]).await.unwrap();
    }

    /// Scenario 23.
    #[tokio::test]
    async fn s23_a_store_without_conditions_is_found_out_and_keeps_its_identity() {
        let faulty = Arc::new(Faulty::in_memory(7));
        faulty.set(vec![Fault::NoConditions]);
        let first = Bucket::over(faulty.clone(), None, id(1)).await.unwrap();
        let second = Bucket::over(faulty.clone(), None, id(2)).await.unwrap();
        assert!(!first.is_conditional() && !second.is_conditional());
        assert_eq!(first.id(), second.id());
        faulty.set(Vec::new());
        assert!(Bucket::over(faulty, None, id(3)).await.unwrap().is_conditional());
    }

    #[tokio::test]
    async fn bodies_and_lists_are_what_the_faults_say() {
        let (faulty, bucket) = bucket(vec![Fault::Cut { share: 1.0 }]).await;
        bucket.put("x/y", b"0123456789".to_vec()).await.unwrap();
        assert!(bucket.get("x/y").await.is_err(), "so is a short object");
        assert!(bucket.get_range("x/y", 2..6).await.is_err(), "a short range is an error");
        faulty.set(vec![Fault::Flip { share: 1.0 }]);
        assert_ne!(bucket.get("x/y").await.unwrap(), "0123456789");
        faulty.set(vec![Fault::StaleLists, Fault::LateReads]);
        bucket.put("x/z", b"1".to_vec()).await.unwrap();
        assert_eq!(bucket.list("x").await.unwrap().len(), 1);
        assert!(matches!(bucket.get("x/z").await, Err(ObjstoreError::NotFound(_))));
        assert_eq!(bucket.get("x/z").await.unwrap(), "1");
        faulty.set(vec![Fault::Denied]);
        let refused = bucket.get("x/y").await.unwrap_err().to_string();
        assert!(refused.contains("credentials"), "{refused}");
    }
}
