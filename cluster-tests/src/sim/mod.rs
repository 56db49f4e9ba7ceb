//! A whole cluster in one thread and no time: the proof that promises hold under faults.
//!
//! A seed makes a world: nodes with skewed clocks, a network that delays, drops, doubles, reorders and cuts one way,
//! disks that lose what was not synced, a bucket that is slow, down, forgetful in its lists or loses replies; and a
//! plan of faults. The nodes run the real cores of `koios-cluster` and `koios-query`; what is a model and what this cannot find is
//! said in `docs/adr/0006-simulator.md`. A seed replays exactly.

mod bucket;
mod disk;
mod faults;
mod gossip;
mod ingest;
mod net;
mod node;
mod oracle;
mod querying;
pub(crate) mod rng;
mod storing;
mod striking;
mod types;
mod workload;
mod world;

use faults::{Fault, Planned};
pub use node::Bug;
use oracle::Demand;
use world::{Shape, World};

/// What became of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Hash over all events; equal for equal histories.
    pub trace: u64,
    /// Number of events.
    pub events: u64,
    /// Broken promises, the first of which ended the run.
    pub violations: Vec<String>,
    /// Nodes and faults, for people.
    pub story: Vec<String>,
    /// What happened how often.
    pub counts: Counts,
}

/// What happened how often: a run in which nothing happens breaks no promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples acknowledged.
    pub acked: u64,
    /// Answers checked.
    pub answers: u64,
    /// Answers with gaps among these.
    pub gaps: u64,
    /// Batches that were refused in part.
    pub refused: u64,
    /// Blocks let go.
    pub unloads: u64,
    /// Blocks in the bucket.
    pub blocks: u64,
    /// Logs of lost nodes that became blocks.
    pub adopted: u64,
}

impl Counts {
    /// The sum.
    pub fn add(&mut self, other: Self) {
        self.acked += other.acked;
        self.answers += other.answers;
        self.gaps += other.gaps;
        self.refused += other.refused;
        self.unloads += other.unloads;
        self.blocks += other.blocks;
        self.adopted += other.adopted;
    }
}

/// Runs ten virtual minutes of a seed.
pub fn run(seed: u64, bug: Bug) -> Outcome {
    finish(seed, World::new(seed, bug))
}

/// `nodes` nodes in three zones; the first zone is away for two minutes, dead or (`cut`) alone. No answer may be flagged for
/// it, those of the zone that is cut off apart.
pub fn without_a_zone(seed: u64, nodes: usize, cut: bool) -> Outcome {
    let fault = if cut { Fault::ZoneCut { zone: 0 } } else { Fault::ZoneDown { zone: 0 } };
    let plan = vec![Planned { at: 200_000, ends: 320_000, fault }];
    let mut world = World::drawn(seed, Shape { first: nodes, nodes, zones: 3 }, plan);
    let but = if cut { (0..nodes).step_by(3).collect() } else { Vec::new() };
    world.oracle.demand = Some(Demand { asked: 150_000..320_000, since: 90_000, but });
    finish(seed, world)
}

/// Nodes, one of which stands still for five minutes, with whatever it was about to acknowledge, store and answer;
/// with `crash` another one dies for half a minute when it wakes up.
pub fn asleep_for_five_minutes(seed: u64, nodes: usize, crash: bool) -> Outcome {
    let node = seed as usize % nodes;
    let mut plan = vec![Planned { at: 90_000, ends: 390_000, fault: Fault::Pause { node } }];
    if crash {
        let fault = Fault::Crash { node: (node + 1) % nodes, on_ack: true };
        plan.push(Planned { at: 380_000, ends: 410_000, fault });
    }
    finish(seed, World::drawn(seed, Shape { first: nodes, nodes, zones: nodes.min(3) }, plan))
}

fn finish(seed: u64, mut world: World) -> Outcome {
    let mut story =
        vec![format!("{} nodes at first, {} in the end", world.common.first, world.machines.len())];
    story.extend(world.plan.iter().map(|p| format!("{:>6}..{:<6} {:?}", p.at, p.ends, p.fault)));
    world.run();
    let (blocks, adopted) = world.bucket.counts();
    let counts = Counts { blocks, adopted, ..world.oracle.counts };
    let violations = std::mem::take(&mut world.oracle.violations);
    if !violations.is_empty() {
        let processes = world.machines.iter().filter_map(|m| m.process.as_ref());
        story.extend(processes.map(|p| p.scene()));
    }
    Outcome { seed, trace: world.trace, events: world.events, violations, story, counts }
}
