//! What goes wrong in a seed: a random subset of kinds, a few of them at random times.
//!
//! A plan is made before the world starts and printed with a failing seed. Budgets keep the plan within what was
//! promised: a disk is lost at most once, in a ring of three or more, and not while the bucket could not take the log.

use super::rng::Rng;
use super::types::Ms;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// A process dies; with `on_ack` right after the next acknowledgement.
    Crash { node: usize, on_ack: bool },
    /// All processes die at once.
    PowerLoss { on_ack: bool },
    /// A process and its disk.
    DiskLoss { node: usize },
    /// A process stands still.
    Pause { node: usize },
    /// Syncs take longer.
    SlowDisk { node: usize, times: i64 },
    /// Syncs fail.
    SyncFails { node: usize },
    /// No room on the disk.
    DiskFull { node: usize },
    /// The nodes of a mask on one side, the others on the other.
    Partition { mask: u8 },
    /// All processes of the zone of this node die at once.
    ZoneDown { zone: usize },
    /// The zone of this node on one side, the others on the other.
    ZoneCut { zone: usize },
    /// One direction between two nodes.
    OneWay { from: usize, to: usize },
    /// A node hears nobody.
    Deaf { node: usize },
    /// Nobody hears a node.
    Mute { node: usize },
    /// Loss and copies in percent, delays in milliseconds.
    Lossy { loss: u64, copies: u64, delay: Ms },
    /// The bucket does not answer.
    BucketDown,
    /// It is slow.
    BucketSlow { times: i64 },
    /// It does what is asked, and the answer is lost.
    LostReplies { percent: u64 },
    /// It refuses for no reason.
    Conflicts { percent: u64 },
    /// Its lists are old.
    StaleLists { percent: u64 },
    /// A wall clock is set.
    Skew { node: usize, by: Ms },
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// Begin.
    pub at: Ms,
    /// End.
    pub ends: Ms,
    /// What.
    pub fault: Fault,
}

/// Number of kinds.
const KINDS: u64 = 20;
/// First and last moment of a fault.
const SPAN: (Ms, Ms) = (45_000, 470_000);

impl Fault {
    /// Whether more than one node or link is hit, so that nothing can be expected of the cluster meanwhile.
    pub fn is_wide(&self) -> bool {
        matches!(
            self,
            Fault::PowerLoss { .. }
                | Fault::Lossy { .. }
                | Fault::Partition { .. }
                | Fault::ZoneDown { .. }
                | Fault::ZoneCut { .. }
        )
    }
}

/// The plan of a seed for `nodes` nodes, in order of time: a drill, or anything.
pub fn plan(rng: &mut Rng, nodes: usize) -> Vec<Planned> {
    if rng.chance(30) && nodes >= 3 {
        return drill(rng, nodes);
    }
    anything(rng, nodes)
}

/// Combinations that chance would make once in thousands of seeds.
fn drill(rng: &mut Rng, nodes: usize) -> Vec<Planned> {
    let a = rng.below(nodes as u64) as usize;
    let (b, c) = ((a + 1) % nodes, (a + 2) % nodes);
    let at = rng.within(60_000, 200_000);
    let later = |from: Ms, length: Ms, fault| Planned { at: at + from, ends: at + from + length, fault };
    let mut plan = match rng.below(6) {
        // What one did not get and another lost is on a third only, and that one goes.
        0 => {
            let misses = if rng.chance(50) { Fault::Pause { node: c } } else { Fault::Deaf { node: c } };
            let back = rng.within(5_000, 40_000);
            vec![
                later(0, 25_000, misses),
                later(rng.within(5_000, 24_000), back, Fault::DiskLoss { node: a }),
                later(30_000 + back, rng.within(20_000, 90_000), Fault::Crash { node: b, on_ack: false }),
            ]
        }
        // A node sleeps while heads forget, and coordinates when it wakes.
        1 => {
            let sleep = rng.within(12_000, 70_000);
            (0..4)
                .map(|i| later(i * 90_000 - rng.within(0, 20_000), sleep, Fault::Pause { node: a }))
                .collect()
        }
        // Slow disks, then no power, right after an acknowledgement.
        2 => {
            let slow = |n| later(0, 100_000, Fault::SlowDisk { node: n, times: 100 });
            let mut all: Vec<Planned> = (0..nodes).map(slow).collect();
            all.extend((1..4).map(|i| later(i * 25_000, 8_000, Fault::PowerLoss { on_ack: true })));
            all
        }
        // Everybody is restarted in turn.
        3 => (0..nodes)
            .map(|n| later(n as Ms * 25_000, 4_000, Fault::Crash { node: n, on_ack: true }))
            .collect(),
        // One zone goes on alone for longer than slots stay where they are, and is gone soon after, or before, the others
        // are back.
        4 => {
            let down = rng.within(150_000, 220_000);
            vec![
                later(0, down, Fault::ZoneDown { zone: a }),
                later(0, down + 1_000, Fault::ZoneDown { zone: b }),
                later(down + rng.within(-8_000, 20_000), 40_000, Fault::ZoneDown { zone: c }),
            ]
        }
        // A node is gone for good, and who adopts its log stumbles.
        _ => vec![
            later(0, 260_000, Fault::DiskLoss { node: a }),
            later(rng.within(90_000, 110_000), 10_000, Fault::Crash { node: b, on_ack: false }),
            later(rng.within(90_000, 120_000), 10_000, Fault::Crash { node: c, on_ack: false }),
            later(rng.within(180_000, 210_000), 20_000, Fault::Crash { node: b, on_ack: false }),
        ],
    };
    plan.sort_by_key(|p| p.at);
    plan
}

fn anything(rng: &mut Rng, nodes: usize) -> Vec<Planned> {
    let kinds: Vec<u64> = (0..KINDS).filter(|_| rng.chance(35)).collect();
    let mut plan: Vec<Planned> = Vec::new();
    if kinds.is_empty() {
        return plan;
    }
    for _ in 0..rng.within(1, 8) {
        let at = rng.within(SPAN.0, SPAN.1 - 10_000);
        let length = if rng.chance(30) { rng.within(20_000, 120_000) } else { rng.within(1_000, 20_000) };
        let ends = (at + length).min(SPAN.1);
        let fault = fault(rng.pick(&kinds), rng, nodes);
        // A clock of a stopped machine and a short list of old blocks: both bounded by what the promises say.
        let ends = match fault {
            Fault::StaleLists { .. } => ends.min(at + 15_000),
            Fault::PowerLoss { .. } => ends.min(at + 30_000),
            _ => ends,
        };
        let bucket = |p: &Planned| {
            matches!(
                p.fault,
                Fault::BucketDown
                    | Fault::BucketSlow { .. }
                    | Fault::LostReplies { .. }
                    | Fault::Conflicts { .. }
            )
        };
        let loses = |p: &Planned| matches!(p.fault, Fault::DiskLoss { .. });
        let next = Planned { at, ends, fault };
        let clash = plan.iter().any(|p| {
            let near = p.at < next.ends + 60_000 && next.at < p.ends + 60_000;
            (loses(p) && loses(&next)) || (near && (loses(p) && bucket(&next) || bucket(p) && loses(&next)))
        });
        let possible = nodes >= 3 || !loses(&next);
        if possible && !clash {
            plan.push(next);
        }
    }
    plan.sort_by_key(|p| p.at);
    plan
}

fn fault(kind: u64, rng: &mut Rng, nodes: usize) -> Fault {
    let node = rng.below(nodes as u64) as usize;
    let other = (node + 1 + rng.below(nodes.max(2) as u64 - 1) as usize) % nodes;
    match kind {
        0 => Fault::Crash { node, on_ack: rng.chance(60) },
        1 => Fault::PowerLoss { on_ack: rng.chance(80) },
        2 => Fault::DiskLoss { node },
        3 => Fault::Pause { node },
        4 => Fault::SlowDisk { node, times: rng.within(5, 200) },
        5 => Fault::SyncFails { node },
        6 => Fault::DiskFull { node },
        7 => Fault::Partition { mask: rng.within(1, (1 << nodes) - 1) as u8 },
        8 => Fault::OneWay { from: node, to: other },
        9 => Fault::Deaf { node },
        10 => Fault::Mute { node },
        11 => Fault::Lossy { loss: rng.below(50), copies: rng.below(30), delay: rng.within(5, 400) },
        12 => Fault::BucketDown,
        13 => Fault::BucketSlow { times: rng.within(2, 60) },
        14 => Fault::LostReplies { percent: rng.below(60) },
        15 => Fault::Conflicts { percent: rng.below(60) },
        16 => Fault::StaleLists { percent: rng.within(20, 90) as u64 },
        17 => Fault::ZoneDown { zone: node },
        18 => Fault::ZoneCut { zone: node },
        _ => Fault::Skew { node, by: rng.within(-5_000, 5_000) },
    }
}
