//! Faults at work: what beginning and ending one does to machines, network and bucket.

use super::disk::Disk;
use super::faults::Fault;
use super::types::Ms;
use super::world::{Event, World};

/// How long an armed crash waits for an acknowledgement.
const ARMED_MS: Ms = 15_000;

impl World {
    /// A fault begins.
    pub(super) fn begin(&mut self, i: usize) {
        match self.plan[i].fault {
            Fault::Crash { on_ack: true, .. } | Fault::PowerLoss { on_ack: true } => self.armed.push(i),
            Fault::Crash { .. }
            | Fault::PowerLoss { .. }
            | Fault::DiskLoss { .. }
            | Fault::ZoneDown { .. } => self.strike(i),
            Fault::Pause { node } => {
                let m = &mut self.machines[node];
                m.paused_until = m.paused_until.max(self.plan[i].ends);
            }
            other => self.set(other, true),
        }
    }

    /// An acknowledgement went out: crashes that waited for it.
    pub(super) fn ack_seen(&mut self) {
        for i in std::mem::take(&mut self.armed) {
            if self.now < self.plan[i].at + ARMED_MS && self.now < self.plan[i].ends {
                self.strike(i);
            }
        }
    }

    fn victims(&self, fault: Fault) -> Vec<usize> {
        match fault {
            Fault::Crash { node, .. } | Fault::DiskLoss { node } => vec![node],
            Fault::ZoneDown { zone } => self.zone(zone),
            _ => (0..self.machines.len()).collect(),
        }
    }

    /// The nodes in the zone of a node.
    fn zone(&self, of: usize) -> Vec<usize> {
        let zones = &self.common.zones;
        (0..zones.len()).filter(|n| zones[*n] == zones[of]).collect()
    }

    fn strike(&mut self, i: usize) {
        let p = self.plan[i];
        for n in self.victims(p.fault).into_iter().filter(|n| self.machines[*n].joined).collect::<Vec<_>>() {
            self.kill(n);
            self.machines[n].held += 1;
            if matches!(p.fault, Fault::DiskLoss { .. }) {
                let disk = self.machines[n].disk.replace(Disk::default());
                self.oracle.disk_lost(&disk.map(|d| d.sole).unwrap_or_default());
            }
            self.after(p.ends - self.now, Event::Start(n));
        }
        self.plan[i].at = self.plan[i].at.min(self.now);
        self.struck.push(i);
    }

    /// A fault ends.
    pub(super) fn end(&mut self, i: usize) {
        self.armed.retain(|a| *a != i);
        let fault = self.plan[i].fault;
        match fault {
            Fault::Crash { .. }
            | Fault::PowerLoss { .. }
            | Fault::DiskLoss { .. }
            | Fault::ZoneDown { .. } => {
                if let Some(at) = self.struck.iter().position(|s| *s == i) {
                    self.struck.remove(at);
                    for n in self.victims(fault) {
                        let m = &mut self.machines[n];
                        m.held = m.held.saturating_sub(1);
                    }
                    for n in self
                        .victims(fault)
                        .into_iter()
                        .filter(|n| self.machines[*n].joined)
                        .collect::<Vec<_>>()
                    {
                        self.start(n);
                    }
                }
            }
            Fault::Pause { .. } => {}
            other => self.set(other, false),
        }
    }

    fn set(&mut self, fault: Fault, on: bool) {
        match fault {
            Fault::SlowDisk { node, times } => self.on_disk(node, |d| d.slow = if on { times } else { 1 }),
            Fault::SyncFails { node } => self.on_disk(node, |d| d.fails = on),
            Fault::DiskFull { node } => self.on_disk(node, |d| d.full = on),
            Fault::Partition { mask } => {
                let side = |n: usize| mask >> n & 1;
                self.cut_where(|a, b| side(a) != side(b), on);
            }
            Fault::ZoneCut { zone } => {
                let inside = self.zone(zone);
                self.cut_where(|a, b| inside.contains(&a) != inside.contains(&b), on);
            }
            Fault::OneWay { from, to } => self.cut_where(|a, b| (a, b) == (from, to), on),
            Fault::Deaf { node } => self.cut_where(|_, b| b == node, on),
            Fault::Mute { node } => self.cut_where(|a, _| a == node, on),
            Fault::Lossy { loss, copies, delay } => {
                (self.net.loss, self.net.copies, self.net.delay_max) =
                    if on { (loss, copies, delay) } else { (0, 0, 6) };
            }
            Fault::BucketDown => self.bucket.down = on,
            Fault::BucketSlow { times } => self.bucket.slow = if on { times } else { 1 },
            Fault::LostReplies { percent } => self.bucket.lost_replies = if on { percent } else { 0 },
            Fault::Conflicts { percent } => self.bucket.conflicts = if on { percent } else { 0 },
            Fault::StaleLists { percent } => {
                self.bucket.stale_lists = if on { percent } else { 0 };
                self.bucket.freeze_list(on);
            }
            Fault::Skew { node, by } if on => self.machines[node].clocks.skew = by,
            _ => {}
        }
    }

    fn cut_where(&mut self, cut: impl Fn(usize, usize) -> bool, on: bool) {
        let n = self.machines.len();
        for (a, b) in (0..n).flat_map(|a| (0..n).map(move |b| (a, b))).filter(|(a, b)| a != b) {
            if cut(a, b) {
                self.net.cut(a, b, on);
            }
        }
    }

    fn on_disk(&mut self, node: usize, f: impl Fn(&mut Disk)) {
        let m = &mut self.machines[node];
        if let Some(p) = &mut m.process {
            f(p.disk_mut());
        }
        if let Some(d) = &mut m.disk {
            f(d);
        }
    }

    /// No fault any more, and everybody is up.
    pub(super) fn heal(&mut self) {
        self.armed.clear();
        for n in 0..self.machines.len() {
            self.on_disk(n, |d| (d.fails, d.full, d.slow) = (false, false, 1));
            self.machines[n].held = 0;
            self.start(n);
        }
    }
}
