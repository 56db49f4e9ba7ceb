//! The world of the search: a bucket of five blocks at most, five processes, and what each may do next.

use koios_block::BlockMeta;
use koios_compact::lead::decision::Verdict;
use koios_compact::lead::fate::{self, Clean, Files, Gone};
use koios_model::BlockId;

/// Sources of the two leaders' outputs.
pub type Plans = [&'static [u8]; 2];
/// Both do the same.
pub const SAME: Plans = [&[0, 1], &[0, 1]];
/// One saw a block more.
pub const MORE: Plans = [&[0, 1], &[0, 1, 2]];
/// Each has a block that the other has not.
pub const CROSSED: Plans = [&[0, 1], &[1, 2]];

/// What goes wrong in the store, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// An upload ends well and a file is short.
    ShortUpload,
    /// A block that counts loses files.
    Rot,
}

/// Rules that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// An output counts by its key, and an abandoned one is aborted there before its files go.
    DecisionKey,
    /// Only a block that is there with all its files gets its meta.json and has others marked.
    SoundBeforeMark,
    /// Of two that hold the same, all agree which one goes; without it each leader keeps its own.
    TotalOrder,
    /// Before a block is deleted it is looked up again what stands for it.
    ResolveBeforeDeletion,
}

/// What is searched.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub plans: Plans,
    pub fault: Fault,
    pub without: Option<Rule>,
}

const PART: u64 = 1;
const WHOLE: u64 = 2;
/// Bits of a block: files (2), meta.json, mark, decision (2).
const BLOCK_BITS: u32 = 6;
const META: u64 = 4;
const MARK: u64 = 8;
const COMMIT: u64 = 16;
const ABORT: u64 = 32;

/// Bits of the processes.
const LEADERS: u32 = 32;
const KEEPER: u32 = 40;
const WORKERS: u32 = 46;
const FAULTY: u32 = 58;

/// A leader's steps; `MARKING + b` is about to mark block b.
const BEGIN: u64 = 0;
const HALF: u64 = 1;
const UPLOADED: u64 = 2;
const DECIDED: u64 = 3;
const FINISHING: u64 = 4;
const IDLE: u64 = 5;
const MARKING: u64 = 6;
const OUT: u64 = 15;

/// What a process is about to do to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Intent {
    Nothing = 0,
    Abort,
    Remove,
    Finish,
    Mark,
    Unmark,
}

const INTENTS: [Intent; 6] =
    [Intent::Nothing, Intent::Abort, Intent::Remove, Intent::Finish, Intent::Mark, Intent::Unmark];

/// A state, packed.
pub type State = u64;

/// What was looked up once of the rules on descriptions.
pub struct Table {
    world: World,
    sources: usize,
    /// Which samples a block holds, a bit for each source.
    holds: Vec<u8>,
    /// Which blocks stand for a block, a bit each.
    stands: Vec<u8>,
}

impl Table {
    pub fn new(world: &World) -> Self {
        let sources = world.plans.iter().flat_map(|p| p.iter()).max().map_or(0, |m| usize::from(*m) + 1);
        let mut lists: Vec<Vec<u8>> = (0..sources as u8).map(|s| vec![s]).collect();
        lists.extend(world.plans.iter().map(|p| p.to_vec()));
        let metas: Vec<BlockMeta> = lists.iter().enumerate().map(|(n, of)| meta(n as u64, of)).collect();
        let holds = lists.iter().map(|of| of.iter().fold(0, |bits, s| bits | 1 << s)).collect();
        let stands = metas.iter().map(|of| {
            let by = |(n, o): (usize, &BlockMeta)| match fate::replacement(of, [o]) {
                Some(_) => 1 << n,
                None => 0,
            };
            metas.iter().enumerate().map(by).fold(0u8, |bits, b| bits | b)
        });
        Self { world: *world, sources, holds, stands: stands.collect() }
    }

    /// Blocks of the world.
    pub fn blocks(&self) -> usize {
        self.sources + 2
    }

    fn lacks(&self, rule: Rule) -> bool {
        self.world.without == Some(rule)
    }

    /// The sources are there, nobody has begun.
    pub fn start(&self) -> State {
        (0..self.sources).fold(0, |s, b| put(s, b, WHOLE | META))
    }

    /// A block that stands for `b` in the eyes of `leader` (its output), or of anybody.
    fn stood_for(&self, s: State, b: usize, leader: Option<usize>) -> bool {
        let sound = |o: usize| match self.lacks(Rule::SoundBeforeMark) {
            true => block(s, o) & (META | MARK) == META,
            false => files(s, o).sound(),
        };
        let mine_wins = |o: usize| {
            let equal = self.holds[o] == self.holds[b] && o != b && o >= self.sources && b >= self.sources;
            self.lacks(Rule::TotalOrder) && equal && leader.is_none_or(|l| o == self.sources + l)
        };
        (0..self.blocks()).any(|o| sound(o) && (self.stands[b] & 1 << o != 0 || mine_wins(o)))
    }

    /// What keeper and workers may do next. A leader may end anywhere: where these have nothing to do, all is at rest.
    pub fn keeps(&self, s: State, out: &mut Vec<State>) {
        self.keeper(s, out);
        self.worker(s, 0, out);
        self.worker(s, 1, out);
        out.iter_mut().for_each(|s| *s = alike(*s));
    }

    /// What else may happen.
    pub fn happens(&self, s: State, out: &mut Vec<State>) {
        self.leader(s, 0, out);
        self.leader(s, 1, out);
        self.rot(s, out);
    }

    fn leader(&self, s: State, l: usize, out: &mut Vec<State>) {
        let own = self.sources + l;
        let (b, to) = (block(s, own), |s: State, step| at_step(s, l, step));
        match step_of(s, l) {
            BEGIN => out.push(to(put(s, own, b & !3 | PART), HALF)),
            HALF => {
                out.push(to(put(s, own, b & !3 | WHOLE), UPLOADED));
                if self.world.fault == Fault::ShortUpload && s >> FAULTY & 1 == 0 {
                    out.push(to(put(s, own, b & !3 | PART), UPLOADED) | 1 << FAULTY);
                }
            }
            UPLOADED if self.lacks(Rule::DecisionKey) => out.push(to(s, DECIDED)),
            UPLOADED => match verdict(b) {
                None => out.push(to(put(s, own, b | COMMIT), DECIDED)),
                Some(Verdict::Commit) => out.push(to(s, DECIDED)),
                Some(Verdict::Abort) => out.push(to(s, OUT)),
            },
            DECIDED => {
                let step = match files(s, own) {
                    f if f.meta => IDLE,
                    f if f.may_finish() || self.lacks(Rule::SoundBeforeMark) => FINISHING,
                    _ => OUT,
                };
                out.push(to(s, step));
            }
            FINISHING => out.push(to(put(s, own, b | META), IDLE)),
            IDLE => {
                let due = |b: &usize| self.markable(s, *b, Some(l));
                out.extend((0..self.blocks()).filter(due).map(|b| to(s, MARKING + b as u64)));
            }
            OUT => {}
            marking => out.push(to(mark(s, (marking - MARKING) as usize), IDLE)),
        }
    }

    fn markable(&self, s: State, b: usize, leader: Option<usize>) -> bool {
        block(s, b) & (META | MARK) == META && self.stood_for(s, b, leader)
    }

    fn keeper(&self, s: State, out: &mut Vec<State>) {
        let (intent, b) = (INTENTS[(s >> KEEPER & 7) as usize], (s >> (KEEPER + 3) & 7) as usize);
        let bits = block(s, b);
        let done = |s: State| s & !(63 << KEEPER);
        match intent {
            Intent::Nothing => {
                for b in 0..self.blocks() {
                    if let Some(intent) = self.intent(s, b) {
                        out.push(s | (intent as u64) << KEEPER | (b as u64) << (KEEPER + 3));
                    }
                }
            }
            Intent::Abort => match verdict(bits) {
                None => out.push(done(put(s, b, bits | ABORT))),
                Some(_) => out.push(done(s)),
            },
            Intent::Remove => match bits & 3 {
                0 => out.push(done(put(s, b, bits & !(META | MARK)))),
                files => out.push(put(s, b, bits & !(3 | META) | (files - 1))),
            },
            Intent::Finish => out.push(done(put(s, b, bits | META))),
            Intent::Mark => out.push(done(mark(s, b))),
            Intent::Unmark => out.push(done(put(s, b, bits & !MARK))),
        }
    }

    fn intent(&self, s: State, b: usize) -> Option<Intent> {
        let (bits, files) = (block(s, b), files(s, b));
        if self.markable(s, b, None) {
            return Some(Intent::Mark);
        }
        if files.marked && files.meta {
            let fate = fate::gone(files, false, self.stood_for(s, b, None));
            return (fate == Gone::Unmark).then_some(Intent::Unmark);
        }
        // Who is uploading is not asked: nobody knows.
        match fate::clean(files, verdict(bits)) {
            Clean::Abort if self.lacks(Rule::DecisionKey) => Some(Intent::Remove),
            Clean::Abort => Some(Intent::Abort),
            Clean::Remove => Some(Intent::Remove),
            Clean::Finish => Some(Intent::Finish),
            Clean::Leave => None,
        }
    }

    fn worker(&self, s: State, w: u32, out: &mut Vec<State>) {
        let at = WORKERS + 6 * w;
        let (step, b) = (s >> at & 7, (s >> (at + 3) & 7) as usize);
        let bits = block(s, b);
        let on = |s: State, step: u64| s & !(7 << at) | step << at;
        match step {
            0 => {
                for b in (0..self.blocks()).filter(|b| files(s, *b).marked) {
                    let stood = self.lacks(Rule::ResolveBeforeDeletion) || self.stood_for(s, b, None);
                    if fate::gone(files(s, b), false, stood) == Gone::Delete {
                        out.push(s | 1 << at | (b as u64) << (at + 3));
                    }
                }
            }
            1 => out.push(on(put(s, b, bits & !META), 2)),
            2 => match bits & 3 {
                0 => out.push(on(s, 3)),
                files => out.push(put(s, b, bits & !3 | (files - 1))),
            },
            _ => out.push(put(s, b, bits & !MARK) & !(63 << at)),
        }
    }

    /// Only while nobody is about to delete on the strength of what it saw, and never the last that has a sample.
    fn rot(&self, s: State, out: &mut Vec<State>) {
        let deleting = (s >> WORKERS & 7) + (s >> (WORKERS + 6) & 7) > 0;
        if self.world.fault != Fault::Rot || s >> FAULTY & 1 == 1 || deleting {
            return;
        }
        for b in (0..self.blocks()).filter(|b| files(s, *b).sound()) {
            let after = put(s, b, block(s, b) & !3 | PART) | 1 << FAULTY;
            if !self.gone(after) {
                out.push(after);
            }
        }
    }

    /// Whether a sample is in no block that could still be read.
    fn gone(&self, s: State) -> bool {
        self.missing(s, |f| f.meta && f.whole)
    }

    fn missing(&self, s: State, counts: impl Fn(Files) -> bool) -> bool {
        let held = (0..self.blocks()).filter(|b| counts(files(s, *b))).fold(0, |h, b| h | self.holds[b]);
        u32::from(held).count_ones() < self.sources as u32
    }

    /// What must never be: a sample that no query finds. After damage: one that is nowhere.
    pub fn is_loss(&self, s: State) -> bool {
        match self.world.fault == Fault::Rot && s >> FAULTY & 1 == 1 {
            true => self.gone(s),
            false => self.missing(s, Files::sound),
        }
    }

    /// Where all is at rest: whether something lies there that nobody needs.
    pub fn leaves_behind(&self, s: State) -> bool {
        let rotten = self.world.fault == Fault::Rot && s >> FAULTY & 1 == 1;
        (0..self.blocks()).map(|b| files(s, b)).any(|f| {
            let damaged = rotten && f.meta && f.data && !f.whole;
            (f.meta || f.data || f.marked) && !f.sound() && !damaged
        })
    }
}

fn meta(n: u64, of: &[u8]) -> BlockMeta {
    let id = |n| BlockId::from_parts(n, 0).to_string();
    let sources: Vec<String> = of.iter().map(|s| format!("{:?}", id(u64::from(*s)))).collect();
    let level = if of.len() > 1 { 2 } else { 1 };
    let text = format!(
        r#"{{"ulid":"{}","minTime":0,"maxTime":1,"compaction":{{"level":{level},"sources":[{}]}},"version":1,
            "thanos":{{"labels":{{"a":"b"}},"source":"koios"}}}}"#,
        id(n),
        sources.join(",")
    );
    BlockMeta::parse(text.as_bytes()).expect("a description")
}

fn block(s: State, b: usize) -> u64 {
    s >> (b as u32 * BLOCK_BITS) & 63
}

fn put(s: State, b: usize, bits: u64) -> State {
    let at = b as u32 * BLOCK_BITS;
    s & !(63 << at) | bits << at
}

/// Also on a block that went meanwhile: the writer does not know.
fn mark(s: State, b: usize) -> State {
    let bits = block(s, b);
    put(s, b, bits | MARK)
}

fn files(s: State, b: usize) -> Files {
    let bits = block(s, b);
    Files { meta: bits & META != 0, data: bits & 3 != 0, whole: bits & 3 == WHOLE, marked: bits & MARK != 0 }
}

fn verdict(bits: u64) -> Option<Verdict> {
    match bits & (COMMIT | ABORT) {
        COMMIT => Some(Verdict::Commit),
        ABORT => Some(Verdict::Abort),
        _ => None,
    }
}

fn step_of(s: State, l: usize) -> u64 {
    s >> (LEADERS + 4 * l as u32) & 15
}

fn at_step(s: State, l: usize, step: u64) -> State {
    let at = LEADERS + 4 * l as u32;
    s & !(15 << at) | step << at
}

/// The two workers do the same work: which of them is where makes no difference.
fn alike(s: State) -> State {
    let (one, two) = (s >> WORKERS & 63, s >> (WORKERS + 6) & 63);
    let rest = s & !(4095 << WORKERS);
    rest | one.max(two) << WORKERS | one.min(two) << (WORKERS + 6)
}

/// A state in words, for the way to a loss.
pub fn words(s: State, blocks: usize) -> String {
    let of = |b: usize| {
        let f = files(s, b);
        let data = ["-", "part", "whole"][(block(s, b) & 3) as usize];
        let flags = [(f.meta, " meta"), (f.marked, " marked")]
            .iter()
            .filter(|x| x.0)
            .map(|x| x.1)
            .collect::<String>();
        format!("{b}: {data}{flags} {:?}", verdict(block(s, b)))
    };
    let list: Vec<String> = (0..blocks).map(of).collect();
    format!(
        "leaders {} {}, keeper {} at {}, workers {} {} | {}",
        step_of(s, 0),
        step_of(s, 1),
        s >> KEEPER & 7,
        s >> (KEEPER + 3) & 7,
        s >> WORKERS & 7,
        s >> (WORKERS + 6) & 7,
        list.join("; ")
    )
}
