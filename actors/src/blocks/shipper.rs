//! Shipper: owns the copy of this node's log in the bucket.
//!
//! Takes `Finish` (for the drain) and looks every second whether there is something to ship: after the interval, or
//! when 8 MB wait. Ships only what a sync has confirmed, in numbered objects that are made by create-if-absent, and
//! only while the log's chain of decisions ends with this process' own `resumed`: a log that a peer adopted is left
//! to it and a new one begins, with all that the head still has. Removes objects that a shipped checkpoint
//! replaces. Bound: 4 messages. On death: the warden starts it again; the ledger beside the log says where to go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture};
use koios_block::crc32c;
use koios_cluster::adoption::{Decision, LogId, Return, Verdict, on_return};
use koios_cluster::keys::{HeadSummary, SKEW_MS};
use koios_config::ShipLog;
use koios_model::{Clock, Labels};
use koios_objstore::{Bucket, ObjstoreError};
use koios_tsdb::{LogFile, WalSyncer};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::shipping::bundle::{self, Index, Part};
use super::shipping::chain;
use super::shipping::ledger::{BUNDLE_BYTES, Ledger, Todo};
use crate::ingest::{Distributor, HeadViews, LogHandle};
use crate::kit::{ComputePool, Flare, Letter};

/// Most messages.
pub const BOUND: usize = 4;
/// Time between looks whether much waits.
const LOOK: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
/// The chain is read again before a shipment when it was last read this long ago.
const CHAIN_NS: u64 = 60_000_000_000;

/// What a shipper works with.
pub struct ShipperSetup {
    /// Shards whose logs are shipped.
    pub distributor: Distributor,
    /// To know how old the oldest sample of the head is.
    pub heads: Arc<HeadViews>,
    /// Where to.
    pub bucket: Bucket,
    /// Where files are read.
    pub pool: ComputePool,
    /// Where uploading happens.
    pub net: Handle,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// This node's name.
    pub node: String,
    /// Generation of this process.
    pub generation: u64,
    /// External labels of this node.
    pub external: Labels,
    /// Directory of the logs: the ledger lies there.
    pub dir: PathBuf,
    /// When to ship.
    pub mode: ShipLog,
    /// How often, milliseconds.
    pub interval_ms: i64,
    /// Whether the node takes full part, so that its view of the cluster counts.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether samples that come now have no second copy.
    pub one_copy: Arc<dyn Fn() -> bool + Send + Sync>,
    /// What others read.
    pub stats: Arc<ShipStats>,
}

/// What the shipper tells.
#[derive(Debug, Default)]
pub struct ShipStats {
    /// Number of this node's log; 0 before it is known.
    pub log: AtomicU64,
    /// Bytes of shipped objects.
    pub bytes: AtomicU64,
    /// Shipped objects.
    pub objects: AtomicU64,
    /// Objects removed again.
    pub removed: AtomicU64,
    /// Looks that failed.
    pub failures: AtomicU64,
    /// Milliseconds since everything durable was in the bucket; 0 while nothing is shipped.
    pub lag_ms: AtomicU64,
}

/// What it remembers from look to look.
#[derive(Default)]
struct Memory {
    ledger: Option<Ledger>,
    /// The chain ended with this process' own decision then.
    checked_ns: Option<u64>,
    shipped_ns: Option<u64>,
    /// Everything was in the bucket then.
    current_ns: Option<u64>,
    /// Last moment of one copy, by the wall clock.
    one_copy_ms: Option<i64>,
    written: Vec<u64>,
}

/// The actor.
pub struct Shipper {
    setup: Arc<ShipperSetup>,
    memory: Arc<Mutex<Memory>>,
    _flare: Flare,
}

impl Shipper {
    /// With what it works.
    pub fn new(setup: Arc<ShipperSetup>, flare: Flare) -> Self {
        Self { setup, memory: Arc::default(), _flare: flare }
    }
}

impl Actor for Shipper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        look(self, ctx);
    }
}

fn look(me: &Shipper, ctx: &mut Context<Shipper>) {
    let every = Duration::from_millis((me.setup.interval_ms / 4).max(1) as u64).min(LOOK);
    ctx.run_later(every, |me, ctx| {
        let (setup, memory) = (me.setup.clone(), me.memory.clone());
        let work = me.setup.net.spawn(async move { setup.look(&mut *memory.lock().await).await });
        ctx.spawn(work.into_actor(me).map(|joined, me, ctx| {
            let outcome = joined.unwrap_or_else(|e| Err(e.to_string()));
            if let Err(why) = outcome {
                me.setup.stats.failures.fetch_add(1, Relaxed);
                tracing::warn!(why, "log not shipped; it is tried again");
            }
            look(me, ctx);
        }));
    });
}

/// The drain is done: takes the copy away when the head is in the bucket, else ships the rest.
pub struct Finish;

impl Message for Finish {
    type Result = Result<(), String>;
}

impl Handler<Letter<Finish>> for Shipper {
    type Result = ResponseFuture<Result<(), String>>;

    fn handle(&mut self, m: Letter<Finish>, _: &mut Context<Self>) -> Self::Result {
        let (setup, memory) = (self.setup.clone(), self.memory.clone());
        let work = self.setup.net.spawn(async move { setup.finish(&mut *memory.lock().await).await });
        Box::pin(async move {
            let _held = m.permit;
            work.await.map_err(|e| e.to_string())?
        })
    }
}

impl ShipperSetup {
    fn log(&self, ledger: &Ledger) -> LogId {
        LogId { node: self.node.clone(), log: ledger.log }
    }

    /// The ledger as it was left, or that of a new log.
    fn ledger<'a>(&self, memory: &'a mut Memory) -> &'a mut Ledger {
        if memory.ledger.is_none() {
            let ledger = Ledger::load(&self.dir).unwrap_or_else(|| Ledger::new(self.generation));
            if !ledger.is_empty() {
                // How long there have been more copies is not known any more.
                memory.one_copy_ms = Some(self.clock.now_ms());
            }
            self.stats.log.store(ledger.log, Relaxed);
            memory.ledger = Some(ledger);
        }
        memory.ledger.as_mut().expect("BUG: it was just put there")
    }

    /// Whether the head holds samples that nobody else has.
    fn wanted(&self, memory: &mut Memory) -> bool {
        match self.mode {
            ShipLog::Always => true,
            ShipLog::Never => false,
            ShipLog::Auto if (self.one_copy)() => {
                memory.one_copy_ms = Some(self.clock.now_ms());
                true
            }
            ShipLog::Auto => {
                let oldest = self.heads.stats().map_or(i64::MIN, |s| s.min_time);
                memory.one_copy_ms.is_some_and(|last| oldest <= last)
            }
        }
    }

    async fn look(&self, memory: &mut Memory) -> Result<(), String> {
        if !(self.ready)() {
            return Ok(());
        }
        self.ledger(memory);
        if !self.wanted(memory) {
            self.stats.lag_ms.store(0, Relaxed);
            return self.withdraw(memory).await;
        }
        let now = self.clock.mono_ns();
        let since = *memory.current_ns.get_or_insert(now);
        let syncers = self.syncers().await?;
        let done =
            if self.is_due(memory, &syncers, now) { self.ship(memory, &syncers).await } else { Ok(()) };
        let lag = self.clock.mono_ns().saturating_sub(memory.current_ns.unwrap_or(since));
        self.stats.lag_ms.store(lag / 1_000_000, Relaxed);
        done
    }

    async fn finish(&self, memory: &mut Memory) -> Result<(), String> {
        self.ledger(memory);
        if !self.wanted(memory) || self.heads.stats().is_some_and(|s| s.min_time > s.max_time) {
            return self.withdraw(memory).await;
        }
        let syncers = self.syncers().await?;
        self.ship(memory, &syncers).await
    }

    async fn syncers(&self) -> Result<Vec<WalSyncer>, String> {
        let mut all = Vec::new();
        for shard in self.distributor.shards() {
            let asked = shard.ask(LogHandle, PATIENCE).await.map_err(|e| e.to_string())?;
            all.push(asked.map_err(|e| e.to_string())?);
        }
        Ok(all)
    }

    /// After the interval, or when much was written since the last time.
    fn is_due(&self, memory: &Memory, syncers: &[WalSyncer], now: u64) -> bool {
        let interval = self.interval_ms.unsigned_abs() * 1_000_000;
        if memory.shipped_ns.is_none_or(|at| now.saturating_sub(at) >= interval) {
            return true;
        }
        let grown = |(i, s): (usize, &WalSyncer)| {
            let (before, written) = (memory.written.get(i).copied().unwrap_or(0), s.written().0);
            // A position is the segment in the upper half and the place in it in the lower.
            if before >> 32 == written >> 32 { written - before } else { written & u64::from(u32::MAX) }
        };
        syncers.iter().enumerate().map(grown).sum::<u64>() >= BUNDLE_BYTES
    }

    async fn ship(&self, memory: &mut Memory, syncers: &[WalSyncer]) -> Result<(), String> {
        let begun = self.clock.mono_ns();
        let window = self.heads.stats().map_or(0, |s| s.out_of_order_window_ms) + SKEW_MS;
        let settled = HeadSummary::bound(None, self.clock.now_ms(), window, 1);
        memory.shipped_ns = Some(begun);
        memory.written = syncers.iter().map(|s| s.written().0).collect();
        let files = self.files(syncers).await?;
        if self.ledger(memory).pending(&files) > 0 {
            self.hold(memory, CHAIN_NS).await?;
        }
        loop {
            let todo = self.ledger(memory).plan(&files);
            if todo.is_empty() {
                break;
            }
            let Some(parts) = self.read(syncers, todo).await? else { return Ok(()) };
            let ledger = self.ledger(memory);
            let is_last =
                parts.iter().map(|(_, own)| own.len() as u64).sum::<u64>() == ledger.pending(&files);
            self.upload(ledger, parts, is_last.then_some(settled)).await?;
        }
        memory.current_ns = Some(begun);
        let unnecessary = self.ledger(memory).unnecessary();
        if unnecessary.is_empty() { Ok(()) } else { self.remove(memory, unnecessary).await }
    }

    async fn files(&self, syncers: &[WalSyncer]) -> Result<Vec<(u16, LogFile)>, String> {
        let syncers = syncers.to_vec();
        let list = move || {
            let mut all = Vec::new();
            for (shard, syncer) in syncers.iter().enumerate() {
                let files = syncer.durable_files().map_err(|e| e.to_string())?;
                all.extend(files.into_iter().map(|f| (shard as u16, f)));
            }
            Ok(all)
        };
        self.pool.run(list).await.map_err(|e| e.to_string())?
    }

    /// The stretches and their bytes; `None` when a checkpoint took the place of a file meanwhile.
    async fn read(
        &self,
        syncers: &[WalSyncer],
        todo: Vec<Todo>,
    ) -> Result<Option<Vec<(Part, Vec<u8>)>>, String> {
        let syncers = syncers.to_vec();
        let read = move || {
            let mut parts = Vec::with_capacity(todo.len());
            for (file, offset, bytes, last) in todo {
                let syncer = syncers.get(usize::from(file.shard)).ok_or("BUG: a file of no shard")?;
                let own = syncer.read_file(file.kind(), file.number, offset, bytes as usize);
                let Some(own) = own.map_err(|e| e.to_string())? else { return Ok(None) };
                parts.push((Part { file, offset, bytes, last, crc: crc32c(&own) }, own));
            }
            Ok(Some(parts))
        };
        self.pool.run(read).await.map_err(|e| e.to_string())?
    }

    async fn upload(
        &self,
        ledger: &mut Ledger,
        parts: Vec<(Part, Vec<u8>)>,
        settled: Option<i64>,
    ) -> Result<(), String> {
        let (parts, stretches): (Vec<Part>, Vec<Vec<u8>>) = parts.into_iter().unzip();
        let external = self.external.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let index = Index { external, parts, settled };
        let object = bundle::write(&index, &stretches);
        let (bytes, key) = (object.len() as u64, self.log(ledger).segment_key(ledger.next));
        match self.bucket.create(&key, object).await {
            Ok(()) => {
                ledger.shipped(&index.parts);
                self.stats.bytes.fetch_add(bytes, Relaxed);
                self.stats.objects.fetch_add(1, Relaxed);
            }
            // An upload whose answer or whose entry in the ledger was lost: it is this log's all the same.
            Err(ObjstoreError::Exists(_)) => {
                let there = self.bucket.get(&key).await.map_err(|e| e.to_string())?;
                let index = bundle::read(&there).map(|(index, _)| index).unwrap_or_default();
                ledger.shipped(&index.parts);
            }
            Err(e) => return Err(e.to_string()),
        }
        ledger.save(&self.dir)
    }

    /// Makes sure that the chain ends with this process' decision, or begins a new log when a peer has this one.
    async fn hold(&self, memory: &mut Memory, fresh_ns: u64) -> Result<(), String> {
        let now = self.clock.mono_ns();
        if memory.checked_ns.is_some_and(|at| now.saturating_sub(at) < fresh_ns) {
            return Ok(());
        }
        let log = self.log(self.ledger(memory));
        let seen = chain::read(&self.bucket, &log).await?;
        match on_return(&log, self.generation, &seen) {
            Return::GoOn => {}
            Return::Resume { term } => self.resume(&log, term).await?,
            Return::Obey { through, .. } => {
                let ledger = Ledger::new(self.generation.max(log.log + 1));
                tracing::info!(
                    log = log.log,
                    through,
                    next = ledger.log,
                    "a peer adopted this node's shipped log; a new one begins"
                );
                ledger.save(&self.dir)?;
                self.stats.log.store(ledger.log, Relaxed);
                let new = self.log(&ledger);
                memory.ledger = Some(ledger);
                let seen = chain::read(&self.bucket, &new).await?;
                self.resume(&new, seen.next_term()).await?;
            }
        }
        memory.checked_ns = Some(now);
        Ok(())
    }

    async fn resume(&self, log: &LogId, term: u64) -> Result<(), String> {
        let mine = Decision { verdict: Verdict::Resumed, by: self.node.clone(), generation: self.generation };
        if chain::decide(&self.bucket, log, term, &mine).await? {
            Ok(())
        } else {
            Err(format!("somebody else decided about log {} just now", log.log))
        }
    }

    async fn withdraw(&self, memory: &mut Memory) -> Result<(), String> {
        let all = self.ledger(memory).numbers();
        if all.is_empty() { Ok(()) } else { self.remove(memory, all).await }
    }

    /// Removes objects, unless a peer has the log: then they are its to remove.
    async fn remove(&self, memory: &mut Memory, numbers: Vec<u64>) -> Result<(), String> {
        let log = self.log(self.ledger(memory));
        self.hold(memory, 0).await?;
        if self.log(self.ledger(memory)) != log {
            return Ok(());
        }
        for number in numbers {
            self.bucket.delete(&log.segment_key(number)).await.map_err(|e| e.to_string())?;
            self.ledger(memory).removed(number);
            self.stats.removed.fetch_add(1, Relaxed);
        }
        self.ledger(memory).save(&self.dir)
    }
}

#[cfg(test)]
mod tests;
