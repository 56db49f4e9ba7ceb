//! Catalogue: owns the picture of the bucket.
//!
//! Takes `Refresh`, `Withdraw` and `Settled`; refreshes by itself every 10 s. Publishes `CatalogueView` (an `ArcSwap` that queries read)
//! and closes shelved blocks that the bucket lost. Bound: 16 messages. On death: starts with the last
//! published picture still in place and reads the bucket again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, AtomicResponse, Context, Handler, Message, WrapFuture};
use arc_swap::ArcSwap;
use koios_model::{BlockId, Clock};
use koios_objstore::Bucket;
use koios_store::{Catalogue, CatalogueView, Shelf, Visibility};
use tokio::runtime::Handle;

use crate::kit::{Flare, Letter, Mailroom};

/// Most messages.
pub const BOUND: usize = 16;
/// Time between refreshes that nobody asked for.
pub const REFRESH: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
const TRIES: usize = 40;

/// The published picture, and the way to ask for a new one.
#[derive(Clone)]
pub struct CatalogueHandle {
    /// What queries read.
    pub view: Arc<ArcSwap<CatalogueView>>,
    /// The actor.
    pub room: Mailroom<CatalogueActor>,
}

impl CatalogueHandle {
    /// The picture after reading the bucket again, begun after this call.
    ///
    /// # Errors
    /// Why the bucket could not be read; the last picture stays.
    pub async fn fresh(&self) -> Result<Arc<CatalogueView>, String> {
        // A refresh that runs already may have begun too early: another one follows it.
        for _ in 0..TRIES {
            match self.room.ask(Refresh, PATIENCE).await.map_err(|e| e.to_string())? {
                Ok(()) => return Ok(self.view.load_full()),
                Err(NotRead::Running) => tokio::time::sleep(PAUSE).await,
                Err(NotRead::Failed(why)) => return Err(why),
            }
        }
        Err("the catalogue is busy".to_owned())
    }
}

/// The actor.
pub struct CatalogueActor {
    bucket: Bucket,
    /// Away while a refresh runs.
    catalogue: Option<Catalogue>,
    view: Arc<ArcSwap<CatalogueView>>,
    shelf: Arc<Shelf>,
    /// Blocks that are about to be deleted: left out of the picture before they go.
    withdrawn: BTreeSet<BlockId>,
    settled: Arc<BTreeMap<String, i64>>,
    clock: Arc<dyn Clock>,
    visibility: Visibility,
    kept_in: Option<PathBuf>,
    net: Handle,
    _flare: Flare,
}

impl CatalogueActor {
    /// Over a bucket; publishes into `view`.
    pub fn new(
        bucket: Bucket,
        view: Arc<ArcSwap<CatalogueView>>,
        shelf: Arc<Shelf>,
        (clock, visibility): (Arc<dyn Clock>, Visibility),
        net: Handle,
        flare: Flare,
    ) -> Self {
        let catalogue = Some(Catalogue::new(bucket.clone(), clock.clone(), visibility));
        let (withdrawn, settled) = (BTreeSet::new(), Arc::default());
        Self {
            bucket,
            catalogue,
            view,
            shelf,
            withdrawn,
            settled,
            clock,
            visibility,
            kept_in: None,
            net,
            _flare: flare,
        }
    }

    /// The same actor, which holds what it read in `file` over a restart.
    #[must_use]
    pub fn kept_in(mut self, file: PathBuf) -> Self {
        self.catalogue = self.catalogue.map(|c| c.kept_in(file.clone()));
        self.kept_in = Some(file);
        self
    }

    /// A refresh that died took the catalogue with it.
    fn lost(&mut self, why: &str) -> Result<(), NotRead> {
        let catalogue = Catalogue::new(self.bucket.clone(), self.clock.clone(), self.visibility);
        self.catalogue = Some(match self.kept_in.clone() {
            Some(file) => catalogue.kept_in(file),
            None => catalogue,
        });
        Err(NotRead::Failed(format!("the refresh failed inside: {why}")))
    }

    fn refreshed(
        &mut self,
        catalogue: Catalogue,
        result: Result<Arc<CatalogueView>, String>,
    ) -> Result<(), NotRead> {
        self.catalogue = Some(catalogue);
        let read = result.map_err(NotRead::Failed)?;
        self.withdrawn.retain(|id| read.blocks().contains_key(id));
        self.shelf.retain(|id| read.blocks().contains_key(&id));
        let view = read.less(&self.withdrawn, self.shelf.damaged()).with_settled(self.settled.clone());
        for (id, why) in view.damaged() {
            if !self.view.load().damaged().contains_key(id) {
                tracing::error!(block = %id, why, "block is damaged and put aside");
            }
        }
        self.view.store(Arc::new(view));
        Ok(())
    }
}

impl Actor for CatalogueActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        tick(ctx, Duration::ZERO);
    }
}

fn tick(ctx: &mut Context<CatalogueActor>, after: Duration) {
    ctx.run_later(after, |me, ctx| {
        let Some(catalogue) = me.catalogue.take() else { return tick(ctx, REFRESH) };
        let work = me.net.spawn(read(catalogue));
        let done = work.into_actor(me).map(|joined, me, ctx| {
            let done = match joined {
                Ok((catalogue, result)) => me.refreshed(catalogue, result),
                Err(e) => me.lost(&e.to_string()),
            };
            if let Err(NotRead::Failed(why)) = done {
                tracing::warn!(why, "bucket not read; the last picture stays");
            }
            tick(ctx, REFRESH);
        });
        ctx.spawn(done);
    });
}

async fn read(mut catalogue: Catalogue) -> (Catalogue, Result<Arc<CatalogueView>, String>) {
    let result = catalogue.refresh().await.map_err(|e| e.to_string());
    (catalogue, result)
}

/// Reads the bucket now. `CatalogueHandle::fresh` asks until its own reading was done.
pub struct Refresh;

/// Why there is no new picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRead {
    /// Another refresh is under way and will publish.
    Running,
    /// The bucket could not be read, and why.
    Failed(String),
}

impl Message for Refresh {
    type Result = Result<(), NotRead>;
}

impl Handler<Letter<Refresh>> for CatalogueActor {
    type Result = AtomicResponse<Self, Result<(), NotRead>>;

    fn handle(&mut self, m: Letter<Refresh>, _: &mut Context<Self>) -> Self::Result {
        let work = self.catalogue.take().map(|c| self.net.spawn(read(c)));
        let wait = async move {
            match work {
                Some(work) => Some(work.await.map_err(|e| e.to_string())),
                // The timer's own refresh is on its way and will publish.
                None => None,
            }
        };
        AtomicResponse::new(Box::pin(wait.into_actor(self).map(move |done, me, _| {
            drop(m.permit);
            match done {
                Some(Ok((catalogue, result))) => me.refreshed(catalogue, result),
                Some(Err(e)) => me.lost(&e),
                None => Err(NotRead::Running),
            }
        })))
    }
}

/// Takes blocks out of the picture at once; whoever deletes them waits until questions that know them are answered.
pub struct Withdraw(pub Vec<BlockId>);

impl Message for Withdraw {
    type Result = ();
}

impl Handler<Letter<Withdraw>> for CatalogueActor {
    type Result = ();

    fn handle(&mut self, m: Letter<Withdraw>, _: &mut Context<Self>) {
        self.withdrawn.extend(m.body.0);
        let view = self.view.load().less(&self.withdrawn, BTreeMap::new());
        self.view.store(Arc::new(view));
    }
}

/// Up to which time the blocks of adopted logs have everything that a node acknowledged, by its name. Whoever says so has
/// waited for a fresh picture, so those blocks are in it.
pub struct Settled(pub Arc<BTreeMap<String, i64>>);

impl Message for Settled {
    type Result = ();
}

impl Handler<Letter<Settled>> for CatalogueActor {
    type Result = ();

    fn handle(&mut self, m: Letter<Settled>, _: &mut Context<Self>) {
        self.settled = m.body.0;
        self.view.store(Arc::new(self.view.load().with_settled(self.settled.clone())));
    }
}
