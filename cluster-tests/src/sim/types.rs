//! What travels in the simulation: samples, messages, timers, effects. No behaviour.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use koios_block::BlockMeta;
use koios_cluster::adoption::{Commit, Created, Decision, LogId, Seen};
use koios_cluster::quorum::Stored;
use koios_cluster::{NodeRecord, SoleRange};
use koios_model::{BlockId, Slot};
use koios_query::{Answer, Scope};

/// Milliseconds of the world; every node has its own idea of them.
pub type Ms = i64;
/// Wall clock at the start of the world.
pub const EPOCH: Ms = 1_700_000_000_000;
/// Pushed series have ids below this, scraped ones from here on.
pub const SCRAPED: u16 = 100;

/// Series and slot.
pub type Key = (u16, Slot);

/// One sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Series.
    pub key: Key,
    /// Timestamp.
    pub t: Ms,
    /// Value.
    pub v: f64,
}

/// A sample in a log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rec {
    /// Position.
    pub lsn: u64,
    /// What.
    pub sample: Sample,
}

/// The samples of a block.
pub type BlockData = BTreeMap<Key, BTreeMap<Ms, f64>>;

/// Why a sample is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Older than the window, or its range is cut.
    TooOld,
    /// Too far ahead.
    Future,
    /// Another value is there.
    Conflict,
}

/// What a node says of a node.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whom.
    pub node: usize,
    /// Its generation.
    pub generation: u64,
    /// Its heartbeat.
    pub beat: u64,
    /// Its record.
    pub record: Arc<NodeRecord>,
}

/// From node to node.
#[derive(Clone, Debug)]
pub enum Msg {
    /// What the sender knows of all.
    Gossip(Rc<Vec<Entry>>),
    /// Samples to store; all copies may lie in one zone.
    Push { batch: u64, items: Rc<Vec<(u32, Sample)>>, one_zone: bool },
    /// What became of them.
    Pushed { batch: u64, results: Vec<(u32, Stored<Why>)> },
    /// A fragment.
    Ask { query: u64, seq: u32, scope: Rc<Scope>, series: Rc<Vec<u16>> },
    /// Its answer.
    Answered { query: u64, seq: u32, answer: Result<Rc<Answer>, &'static str>, moved: Vec<BlockId> },
    /// A slot is covered since.
    Covered { key: u64, slot: Slot, since: Ms },
    /// What did I hold on another disk? Asked by the process of this generation.
    Recall(u64),
    /// What the sender believes that the other lost, and held alone.
    Remembered { holes: Vec<SoleRange>, alone: Vec<SoleRange> },
    /// Which of these do you serve?
    WhichLoaded { blocks: Vec<BlockId> },
    /// These.
    Loaded { generation: u64, blocks: Vec<BlockId> },
}

/// Something a process waits for.
#[derive(Clone, Copy, Debug)]
pub enum Timer {
    /// Housekeeping.
    Tick,
    /// Give up silent replicas of a batch.
    Batch(u64),
    /// Give up silent holders of a query's round.
    Query(u64, u32),
    /// A scrape is due.
    Scrape(u64, Slot, u64, Ms),
}

/// To the bucket.
#[derive(Clone, Debug)]
pub enum Op {
    /// Blocks with a meta.json.
    List,
    /// A block's samples.
    Get(BlockId),
    /// A block's files but meta.json.
    PutData(BlockId, Rc<BlockData>),
    /// Its meta.json.
    PutMeta(Arc<BlockMeta>),
    /// A segment of a log; create.
    Ship(LogId, u64, Rc<Vec<Rec>>),
    /// Segments up to a number are not needed.
    DropSegments(LogId, u64),
    /// All logs.
    Logs,
    /// Segments up to a number.
    Segments(LogId, u64),
    /// A decision; create, and what the key holds if that fails.
    Decide(LogId, u64, Decision),
    /// The block of an adopted range; create, likewise.
    Commit(LogId, Commit),
}

/// From the bucket.
#[derive(Clone, Debug)]
pub enum Done {
    /// Nothing to say.
    Ok,
    /// Of `List`.
    Blocks(Rc<Vec<Arc<BlockMeta>>>),
    /// Of `Get`.
    Data(Option<Rc<BlockData>>),
    /// Of `Logs`.
    Logs(Rc<Vec<(LogId, Seen)>>),
    /// Of `Segments`.
    Segments(Vec<Rc<Vec<Rec>>>),
    /// Of `Decide`.
    Created(Created),
    /// Of `Commit`: what the key holds now.
    Committed(Commit),
    /// No answer, or a refusal for now: it may have happened or not.
    Failed,
}

/// What an operation on the bucket is for.
#[derive(Clone, Debug)]
pub enum Tag {
    /// The catalogue.
    List,
    /// Loading an assigned block.
    Load(BlockId),
    /// A block for an answer to a query of this node: query, question.
    Read(u64, u32, BlockId),
    /// The cut in hand.
    Cut,
    /// A segment, up to a position.
    Ship(u64),
    /// Logs of everybody.
    Logs,
    /// A decision on a log.
    Decide(LogId, Decision),
    /// The adoption in hand.
    Adopt,
    /// Nobody waits.
    Forget,
}

/// What a node wants done.
#[derive(Debug)]
pub enum Effect {
    /// A message.
    Send(usize, Msg),
    /// A timer, by the node's own clock.
    Timer(Ms, Timer),
    /// Everything appended so far on disk.
    Sync,
    /// The bucket.
    Bucket(Op, Tag),
    /// An answer to a client's write: series stored, refused, to be sent again.
    Wrote(u64, Option<koios_cluster::quorum::Verdict<Why>>),
    /// An answer to a client's question.
    Read(u64, Result<ReadAnswer, &'static str>),
    /// For the oracle.
    Note(Note),
}

/// An answer to a reader.
#[derive(Clone, Debug, Default)]
pub struct ReadAnswer {
    /// Samples per asked series.
    pub series: Vec<Vec<(Ms, f64)>>,
    /// First and last moment of each gap.
    pub gaps: Vec<(Ms, Ms)>,
}

/// What the oracle sees of a node's inside.
#[derive(Clone, Debug)]
pub enum Note {
    /// A scrape is on this node's disk.
    Scraped(Key, Ms, f64),
    /// The head forgets these.
    Forgets(Vec<Sample>),
    /// It serves a block from now on.
    Loads(BlockId),
    /// It serves a block no longer.
    Unloads(BlockId),
    /// It sees a node back on another disk.
    SeesDiskLost,
}
