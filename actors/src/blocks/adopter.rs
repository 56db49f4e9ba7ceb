//! Adopter: owns what becomes of the shipped logs of nodes that are gone.
//!
//! Takes no messages; looks at the bucket by itself. A log without a sign of life is adopted by a decision in its
//! chain (`koios_cluster::adoption` says when), its objects are put together in a scratch directory, replayed, cut
//! into a block per slot and range, and uploaded under fresh ids; the commit key decides which adopter's blocks
//! count, their meta.json is written, and the objects are removed. A log of this node that is not on its disk is
//! adopted at once: nobody else goes on with it. Bound: 1 message, never used. On death: the warden starts it again;
//! whatever was half done is in the bucket and is found at the next looks, by this node or another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use arc_swap::ArcSwap;
use koios_block::BlockMeta;
use koios_cluster::adoption::{Commit, Decision, LogId, Move, Seen, Verdict, Watch};
use koios_model::{BlockId, Clock, Labels};
use koios_objstore::{Bucket, ObjstoreError, transfer};
use koios_tsdb::{Shard, ShardOptions, cut_block};
use tokio::runtime::Handle;

use super::catalogue::{CatalogueHandle, Settled};
use super::shipper::ShipStats;
use super::shipping::assembly::Assembly;
use super::shipping::chain::{self, Committed, Decided};
use super::uploader::{extras, made_id};
use crate::kit::{ComputePool, Flare};

/// Most messages.
pub const BOUND: usize = 1;
const LOOK_MAX: Duration = Duration::from_secs(60);
const LOOK_MIN: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(30);

/// How far a node is from adopting a log: its place among those who could, 0 first.
pub type Rank = Arc<dyn Fn(&LogId) -> u64 + Send + Sync>;

/// What an adopter works with.
pub struct AdopterSetup {
    /// Where the logs lie, and where blocks go.
    pub bucket: Bucket,
    /// To see blocks there.
    pub catalogue: Option<CatalogueHandle>,
    /// Where replay and cutting happen.
    pub pool: ComputePool,
    /// Where reading and uploading happen.
    pub net: Handle,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// This node's name.
    pub node: String,
    /// Generation of this process.
    pub generation: u64,
    /// Where files are put together; emptied at will.
    pub scratch: PathBuf,
    /// How a shard is opened; the directory is replaced.
    pub shard: ShardOptions,
    /// Silence after which a log is adopted, nanoseconds.
    pub silence_ns: u64,
    /// Whether the node takes full part, so that its view of the cluster counts.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether a node is heard of.
    pub alive: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Whose turn it is.
    pub rank: Rank,
    /// Which log is this node's.
    pub shipper: Arc<ShipStats>,
    /// What others read.
    pub stats: Arc<AdoptStats>,
}

/// What the adopter tells.
#[derive(Debug, Default)]
pub struct AdoptStats {
    /// Logs turned into blocks.
    pub logs: AtomicU64,
    /// Blocks made of them.
    pub blocks: AtomicU64,
    /// Looks that failed.
    pub failures: AtomicU64,
    /// Up to which time, milliseconds, the blocks of adopted logs have all that a node acknowledged, by its name, as the
    /// catalogue was told last.
    pub settled: ArcSwap<BTreeMap<String, i64>>,
}

/// What it remembers from look to look.
pub(super) struct Memory {
    watch: Watch,
    own: Watch,
    /// Decisions never change.
    decisions: BTreeMap<(LogId, u64), Decision>,
    /// Logs with a commit and with objects at the last look.
    unfinished: BTreeSet<LogId>,
    /// Logs that are in blocks, and up to which time those have everything.
    done: BTreeMap<LogId, Option<i64>>,
}

/// The actor.
pub struct Adopter {
    setup: Arc<AdopterSetup>,
    memory: Option<Memory>,
    _flare: Flare,
}

impl Adopter {
    /// With what it works.
    pub fn new(setup: Arc<AdopterSetup>, flare: Flare) -> Self {
        let memory = Some(Memory::new(setup.silence_ns));
        Self { setup, memory, _flare: flare }
    }
}

impl Memory {
    pub(super) fn new(silence_ns: u64) -> Self {
        let (watch, own) = (Watch::new(silence_ns), Watch::new(0));
        let (decisions, unfinished, done) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { watch, own, decisions, unfinished, done }
    }
}

impl Actor for Adopter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        look(self, ctx);
    }
}

fn look(me: &Adopter, ctx: &mut Context<Adopter>) {
    let every = Duration::from_nanos(me.setup.silence_ns / 10).clamp(LOOK_MIN, LOOK_MAX);
    ctx.run_later(every, |me, ctx| {
        let (setup, silence_ns) = (me.setup.clone(), me.setup.silence_ns);
        let mut memory = me.memory.take().unwrap_or_else(|| Memory::new(silence_ns));
        let work = me.setup.net.spawn(async move {
            let outcome = setup.look(&mut memory).await;
            (memory, outcome)
        });
        ctx.spawn(work.into_actor(me).map(|joined, me, ctx| {
            let outcome = match joined {
                Ok((memory, outcome)) => {
                    me.memory = Some(memory);
                    outcome
                }
                Err(e) => Err(e.to_string()),
            };
            if let Err(why) = outcome {
                me.setup.stats.failures.fetch_add(1, Relaxed);
                tracing::warn!(why, "shipped logs not looked after; it is tried again");
            }
            look(me, ctx);
        }));
    });
}

/// A block on the disk: where it lies, its id, its meta.json.
type Made = (PathBuf, BlockId, String);

impl AdopterSetup {
    pub(super) async fn look(&self, memory: &mut Memory) -> Result<(), String> {
        let current = self.shipper.log.load(Relaxed);
        if !(self.ready)() || current == 0 {
            return Ok(());
        }
        let decided = chain::decided(&self.bucket).await?;
        let shipped = chain::shipped(&self.bucket).await?;
        let known = |log: &LogId| shipped.contains_key(log) || decided.contains_key(log);
        memory.watch.retain(known);
        memory.own.retain(known);
        memory.decisions.retain(|(log, _), _| known(log));
        let mut outcome = Ok(());
        let logs: BTreeSet<&LogId> = shipped.keys().chain(decided.keys()).collect();
        for log in logs {
            if log.node == self.node && log.log == current {
                continue;
            }
            let numbers = shipped.get(log).map_or(&[][..], Vec::as_slice);
            let done = self.look_at(memory, log, numbers, decided.get(log)).await;
            outcome = outcome.and(done.map_err(|e| format!("log {} of {}: {e}", log.log, log.node)));
        }
        memory.done.retain(|log, _| known(log));
        outcome.and(self.tell_settled(memory).await)
    }

    /// Only after a fresh look at the bucket, so that who hears of it sees the blocks too.
    async fn tell_settled(&self, memory: &Memory) -> Result<(), String> {
        let mut settled: BTreeMap<String, i64> = BTreeMap::new();
        for (log, until) in memory.done.iter().filter_map(|(log, until)| Some((log, (*until)?))) {
            let of_node = settled.entry(log.node.clone()).or_insert(until);
            *of_node = until.max(*of_node);
        }
        if **self.stats.settled.load() != settled {
            let settled = Arc::new(settled);
            if let Some(catalogue) = &self.catalogue {
                catalogue.fresh().await?;
                let told = catalogue.room.ask(Settled(settled.clone()), PATIENCE).await;
                told.map_err(|e| e.to_string())?;
            }
            self.stats.settled.store(settled);
        }
        Ok(())
    }

    async fn look_at(
        &self,
        memory: &mut Memory,
        log: &LogId,
        numbers: &[u64],
        decided: Option<&Decided>,
    ) -> Result<(), String> {
        let seen = self.seen(memory, log, numbers, decided).await?;
        if seen.commit.is_some() {
            return self.finish(memory, log, numbers).await;
        }
        let author = match &seen.last {
            Some((_, Decision { verdict: Verdict::Adopted { .. }, by, .. })) => by.as_str(),
            _ => log.node.as_str(),
        };
        let own = author == self.node;
        let (watch, rank) = if own { (&mut memory.own, 0) } else { (&mut memory.watch, (self.rank)(log)) };
        let alive = !own && (self.alive)(author);
        match watch.look(self.clock.mono_ns(), log, seen, alive, rank) {
            Some(Move::Adopt { term, through }) => {
                let verdict = Verdict::Adopted { through };
                let mine = Decision { verdict, by: self.node.clone(), generation: self.generation };
                if chain::decide(&self.bucket, log, term, &mine).await? {
                    tracing::info!(
                        node = log.node,
                        log = log.log,
                        through,
                        "adopting the log of a lost node"
                    );
                    self.adopt(log, through).await?;
                }
                Ok(())
            }
            Some(Move::Work { through }) => self.adopt(log, through).await,
            None => Ok(()),
        }
    }

    async fn seen(
        &self,
        memory: &mut Memory,
        log: &LogId,
        numbers: &[u64],
        decided: Option<&Decided>,
    ) -> Result<Seen, String> {
        let mut seen = Seen { last_segment: numbers.last().copied(), ..Seen::default() };
        let Some(decided) = decided else { return Ok(seen) };
        if let Some(term) = decided.last {
            let key = (log.clone(), term);
            if !memory.decisions.contains_key(&key)
                && let Some(decision) = chain::decision(&self.bucket, log, term).await?
            {
                memory.decisions.insert(key.clone(), decision);
            }
            seen.last = memory.decisions.get(&key).map(|d| (term, d.clone()));
        }
        if decided.committed {
            seen.commit = chain::committed(&self.bucket, log).await?.map(|c| c.first);
        }
        Ok(seen)
    }

    /// A committed log whose objects are still there at a second look: its adopter ended before it was done.
    async fn finish(&self, memory: &mut Memory, log: &LogId, numbers: &[u64]) -> Result<(), String> {
        if numbers.is_empty() {
            memory.unfinished.remove(log);
            // Its objects went after every meta.json was written.
            if !memory.done.contains_key(log)
                && let Some(committed) = chain::committed(&self.bucket, log).await?
            {
                memory.done.insert(log.clone(), committed.settled);
            }
            // The node that began another log has no use for what was decided about this one.
            return if log.node == self.node { chain::forget(&self.bucket, log).await } else { Ok(()) };
        }
        if memory.unfinished.insert(log.clone()) {
            return Ok(());
        }
        let Some(committed) = chain::committed(&self.bucket, log).await? else { return Ok(()) };
        self.publish(&committed).await?;
        self.clear(log, numbers).await
    }

    /// Turns the objects up to `through` into blocks, unless somebody else has.
    pub(super) async fn adopt(&self, log: &LogId, through: u64) -> Result<(), String> {
        let numbers = chain::shipped(&self.bucket).await?.remove(log).unwrap_or_default();
        let (mut assembly, mut damaged) = (Assembly::new(&self.scratch)?, false);
        for number in numbers.iter().filter(|n| **n <= through) {
            match self.bucket.get(&log.segment_key(*number)).await {
                Ok(object) => {
                    if let Err(why) = assembly.add(&object) {
                        damaged = true;
                        tracing::error!(
                            node = log.node,
                            log = log.log,
                            number,
                            why,
                            "damaged object left out"
                        );
                    }
                }
                // Its node removed it because a block has what it held.
                Err(ObjstoreError::NotFound(_)) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        let settled = assembly.settled.filter(|_| !damaged);
        let (made, whole) = self.cut(log, assembly).await?;
        let settled = settled.filter(|_| whole);
        for (dir, id, _) in &made {
            transfer::upload_data(&self.bucket, dir, *id).await.map_err(|e| e.to_string())?;
        }
        let blocks = made.iter().map(|(_, id, meta)| (id.to_string(), meta.clone())).collect();
        let mine = Committed::new(blocks, &self.node, settled);
        let committed = chain::commit(&self.bucket, log, &mine).await?;
        if committed == mine {
            self.publish(&committed).await?;
            self.clear(log, &numbers).await?;
            self.stats.logs.fetch_add(1, Relaxed);
            self.stats.blocks.fetch_add(made.len() as u64, Relaxed);
            tracing::info!(
                node = log.node,
                log = log.log,
                blocks = made.len(),
                "log of a lost node is in blocks"
            );
        } else {
            // Without a meta.json nobody ever sees these.
            for (_, id, _) in &made {
                transfer::delete_block(&self.bucket, *id).await.map_err(|e| e.to_string())?;
            }
        }
        let _ = std::fs::remove_dir_all(&self.scratch);
        Ok(())
    }

    /// The blocks, and whether the logs could be read whole.
    async fn cut(&self, log: &LogId, assembly: Assembly) -> Result<(Vec<Made>, bool), String> {
        let pairs = assembly.external.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let (external, shards) = (Labels::from_pairs(pairs), assembly.finish()?);
        let (clock, options, out) = (self.clock.clone(), self.shard.clone(), self.scratch.join("blocks"));
        let attempt = format!("{}\n{}\n{}\n{}", log.folder(), self.node, self.generation, clock.mono_ns());
        let work = move || {
            let open = |(shard, dir)| {
                let options = ShardOptions { dir, shard, ..options.clone() };
                let (shard, report) = Shard::open(options, clock.clone()).map_err(|e| e.to_string())?;
                if report.lost_data() {
                    tracing::error!(damaged = ?report.damaged, "parts of a shipped log are damaged");
                }
                Ok((shard, !report.lost_data()))
            };
            let opened = shards.into_iter().map(open).collect::<Result<Vec<(Shard, bool)>, String>>()?;
            let (shards, whole): (Vec<Shard>, Vec<bool>) = opened.into_iter().unzip();
            let made = cut_all(shards, options.block_range_ms, &out, &external, &attempt)?;
            Ok((made, whole.into_iter().all(|w| w)))
        };
        self.pool.run(work).await.map_err(|e| e.to_string())?
    }

    /// Writes the meta.json of committed blocks that have none, and waits until this node sees them.
    async fn publish(&self, committed: &Committed) -> Result<(), String> {
        let blocks = committed.all().filter_map(|c: &Commit| Some((c.block_id()?, &c.meta)));
        for (id, meta) in blocks {
            let known = self.catalogue.as_ref().is_some_and(|c| c.view.load().holds(id));
            if known {
                continue;
            }
            let path = format!("{id}/{}", transfer::META);
            match self.bucket.create(&path, meta.clone().into_bytes()).await {
                Ok(()) | Err(ObjstoreError::Exists(_)) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        match &self.catalogue {
            Some(catalogue) => catalogue.fresh().await.map(drop),
            None => Ok(()),
        }
    }

    async fn clear(&self, log: &LogId, numbers: &[u64]) -> Result<(), String> {
        for number in numbers {
            self.bucket.delete(&log.segment_key(*number)).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

/// Cuts a block per slot and range, and lets go of each range, so that stretches without samples cost nothing.
fn cut_all(
    mut shards: Vec<Shard>,
    range_ms: i64,
    out: &Path,
    external: &Labels,
    attempt: &str,
) -> Result<Vec<Made>, String> {
    let (mut made, mut next) = (Vec::new(), i64::MIN);
    let views: Vec<_> = shards.iter().map(Shard::view).collect();
    let slots: BTreeSet<_> = views.iter().flat_map(|v| v.slots_present()).collect();
    loop {
        let stats = views.iter().map(|v| v.stats()).filter(|s| s.min_time <= s.max_time);
        let Some(oldest) = stats.map(|s| s.min_time).min() else { return Ok(made) };
        let start = (oldest.div_euclid(range_ms) * range_ms).max(next);
        let end = start.saturating_add(range_ms);
        for slot in &slots {
            let id = made_id(end, "adopted", &format!("{attempt}\n{slot}\n{start}"));
            let cut = cut_block(&views, *slot, start, end, out, id, extras(external, *slot));
            if let Some(meta) = cut.map_err(|e| e.to_string())? {
                made.push(on_disk(out, id, &meta));
            }
        }
        for shard in &mut shards {
            shard.truncate_memory(end).map_err(|e| e.to_string())?;
        }
        if end == i64::MAX {
            return Ok(made);
        }
        next = end;
    }
}

fn on_disk(out: &Path, id: BlockId, meta: &BlockMeta) -> Made {
    (out.join(id.to_string()), id, String::from_utf8_lossy(&meta.to_json()).into_owned())
}
