//! Catalogue: owns the picture of the bucket.
//!
//! Takes `Refresh` and `Withdraw`; refreshes by itself every 10 s. Publishes `CatalogueView` (an `ArcSwap` that queries read)
//! and closes shelved blocks that the bucket lost. Bound: 16 messages. On death: starts with the last
//! published picture still in place and reads the bucket again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, AtomicResponse, Context, Handler, Message, WrapFuture};
use arc_swap::ArcSwap;
use koios_model::BlockId;
use koios_objstore::Bucket;
use koios_store::{Catalogue, CatalogueView, Shelf};
use tokio::runtime::Handle;

use crate::kit::{Flare, Letter, Mailroom};

/// Most messages.
pub const BOUND: usize = 16;
/// Time between refreshes that nobody asked for.
pub const REFRESH: Duration = Duration::from_secs(10);

/// The published picture, and the way to ask for a new one.
#[derive(Clone)]
pub struct CatalogueHandle {
    /// What queries read.
    pub view: Arc<ArcSwap<CatalogueView>>,
    /// The actor.
    pub room: Mailroom<CatalogueActor>,
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
    net: Handle,
    _flare: Flare,
}

impl CatalogueActor {
    /// Over a bucket; publishes into `view`.
    pub fn new(
        bucket: Bucket,
        view: Arc<ArcSwap<CatalogueView>>,
        shelf: Arc<Shelf>,
        net: Handle,
        flare: Flare,
    ) -> Self {
        let catalogue = Some(Catalogue::new(bucket.clone()));
        Self { bucket, catalogue, view, shelf, withdrawn: BTreeSet::new(), net, _flare: flare }
    }

    /// A refresh that died took the catalogue with it.
    fn lost(&mut self, why: &str) -> Result<(), String> {
        self.catalogue = Some(Catalogue::new(self.bucket.clone()));
        Err(format!("the refresh failed inside: {why}"))
    }

    fn refreshed(
        &mut self,
        catalogue: Catalogue,
        result: Result<Arc<CatalogueView>, String>,
    ) -> Result<(), String> {
        self.catalogue = Some(catalogue);
        let read = result?;
        self.withdrawn.retain(|id| read.blocks.contains_key(id));
        self.shelf.retain(|id| read.blocks.contains_key(&id));
        let mut view = (*read).clone();
        view.blocks.retain(|id, _| !self.withdrawn.contains(id));
        view.damaged.extend(self.shelf.damaged());
        for (id, why) in &view.damaged {
            if !self.view.load().damaged.contains_key(id) {
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
            if let Err(why) = done {
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

/// Reads the bucket now.
pub struct Refresh;

impl Message for Refresh {
    type Result = Result<(), String>;
}

impl Handler<Letter<Refresh>> for CatalogueActor {
    type Result = AtomicResponse<Self, Result<(), String>>;

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
                None => Err("a refresh is running already".to_owned()),
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
        let mut view = (**self.view.load()).clone();
        view.blocks.retain(|id, _| !self.withdrawn.contains(id));
        self.view.store(Arc::new(view));
    }
}
