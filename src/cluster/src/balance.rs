//! Bounded load of scrape owners (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2017):
//! who has more than its share of samples gives slots to the next in rank. Pure.
//!
//! Rendezvous spreads targets, not samples: one target may bring as much as a thousand others. How many samples a target
//! brings, only its owner knows, so the owner decides. With more than `OVER` times the mean samples a second of the ready
//! nodes it offers slots to others that stay below `FULL` times the mean with them; who takes some remembers it, as the
//! owner does, for `HELD_NS`. Between both lies the hysteresis. From then on the slot is the taker's for both of them, and
//! the change itself is like any other (`handover`): no gap, no false end of a series.
//!
//! Invariants: a slot changes hands only when the taker has said so, so that it always has an owner, or two for a moment;
//! what was taken is not given on; nothing moves while a load is unknown, while nodes come and go, or below `FLOOR`.
//! Every memory ends: with its time, with either process, when the slot is not the owner's any more.
//! Bounds: `OFFER_MAX` slots an offer, `HELD_MAX` given and taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use koios_model::Slot;

use crate::handover::slot_owners;
use crate::ownership::ranked;
use crate::view::{ClusterView, Member};

/// Times the mean from which slots are given.
pub const OVER: f64 = 1.25;
/// Times the mean up to which slots are given and taken.
pub const FULL: f64 = 1.2;
/// Samples a second below which a node is never too busy.
pub const FLOOR: f64 = 1_000.0;
/// How long a slot stays with its taker, nanoseconds.
pub const HELD_NS: u64 = 600_000_000_000;
/// A slot that would still be too much is offered to its taker again this long before, nanoseconds.
const RENEW_NS: u64 = 120_000_000_000;
/// Pause between offers, and how long the ready nodes must have been the same, nanoseconds.
const ROUND_NS: u64 = 10_000_000_000;
const SETTLED_NS: u64 = 20_000_000_000;
/// What was given a moment ago is not in the taker's gossip yet; and who refused is not asked, nanoseconds.
const FRESH_NS: u64 = 30_000_000_000;
const REFUSED_NS: u64 = 60_000_000_000;
/// Most slots of one offer.
pub const OFFER_MAX: usize = 256;
/// Most slots given, and most taken.
pub const HELD_MAX: usize = 10_000;
/// A load is told again when it has changed by this part.
const STEP: f64 = 0.1;

/// A slot of a target.
pub type SlotKey = (u64, Slot);

/// A slot that is scraped here and is this node's, by rank or because it was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Held {
    /// Target.
    pub key: u64,
    /// Slot.
    pub slot: Slot,
    /// Samples a second; `None` before the first scrape.
    pub rate: Option<f64>,
}

/// Slots that are not with their owner by rank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves(BTreeMap<SlotKey, (String, String)>);

impl Moves {
    /// Who has a slot that is `owner`'s by rank.
    pub fn holder<'a>(&'a self, key: u64, slot: Slot, owner: &'a str) -> &'a str {
        match self.0.get(&(key, slot)) {
            Some((from, to)) if from == owner => to,
            _ => owner,
        }
    }
}

/// Slots that `to` is asked to take, each with its samples a second.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// Who is asked.
    pub to: Arc<Member>,
    /// What is offered.
    pub slots: Vec<(SlotKey, f64)>,
}

/// A slot that is with another than its owner.
#[derive(Clone, Debug, PartialEq)]
struct Moved {
    /// The other side, and which start of it.
    with: (String, u64),
    until_ns: u64,
    since_ns: u64,
    rate: f64,
}

/// What one node gave and took.
#[derive(Debug, Default)]
pub struct Balance {
    given: BTreeMap<SlotKey, Moved>,
    taken: BTreeMap<SlotKey, Moved>,
    refused: BTreeMap<String, u64>,
    view: Arc<ClusterView>,
    replicas: u8,
    ring_hash: u64,
    changed_ns: u64,
    next_ns: u64,
    load: Option<f64>,
    told: Option<u32>,
}

impl Balance {
    /// Takes the view that ownership goes by and everything that is held here, and gives what should be offered. To be
    /// called about once a second.
    pub fn look(&mut self, now_ns: u64, view: &Arc<ClusterView>, replicas: u8, held: &[Held]) -> Vec<Offer> {
        let ring_hash = view.ring_hash();
        if ring_hash != self.ring_hash {
            (self.ring_hash, self.changed_ns) = (ring_hash, now_ns);
        }
        (self.view, self.replicas) = (view.clone(), replicas);
        self.forget(now_ns);
        self.measure(held);
        if now_ns < self.next_ns || now_ns.saturating_sub(self.changed_ns) < SETTLED_NS {
            return Vec::new();
        }
        self.next_ns = now_ns + ROUND_NS;
        self.offers(now_ns, held)
    }

    /// Ends what has ended.
    fn forget(&mut self, now_ns: u64) {
        let (view, replicas) = (self.view.clone(), self.replicas);
        let is_there = |(name, generation): &(String, u64)| {
            view.members.get(name).is_some_and(|m| m.is_ready() && m.generation == *generation)
        };
        let owner = |(key, slot): &SlotKey| {
            slot_owners(&view, *key, replicas).get(usize::from(slot.0)).map(|m| m.name.clone())
        };
        self.given.retain(|at, m| {
            now_ns < m.until_ns && is_there(&m.with) && owner(at).is_some_and(|o| o == view.me)
        });
        self.taken.retain(|at, m| {
            now_ns < m.until_ns && is_there(&m.with) && owner(at).is_some_and(|o| o == m.with.0)
        });
        self.refused.retain(|_, until_ns| now_ns < *until_ns);
    }

    /// Sums up what is scraped here; unknown as long as a tenth of it was never scraped.
    fn measure(&mut self, held: &[Held]) {
        let mut sum = 0.0;
        let mut unknown = 0;
        let mut taken = self.taken.clone();
        for h in held {
            let moved = taken.remove(&(h.key, h.slot));
            sum += h.rate.or(moved.map(|m| m.rate)).unwrap_or_else(|| {
                unknown += 1;
                0.0
            });
        }
        // Taken, and not begun.
        sum += taken.values().map(|m| m.rate).sum::<f64>();
        self.load = (unknown * 10 <= held.len()).then_some(sum);
        self.told = match (self.load, self.told) {
            (None, _) => None,
            (Some(load), Some(told)) if (load - f64::from(told)).abs() <= STEP * f64::from(told) => {
                Some(told)
            }
            (Some(load), _) => Some(load.round().min(f64::from(u32::MAX)) as u32),
        };
    }

    /// Samples a second of this node as gossip should say them: in steps, so that they change rarely.
    pub fn told(&self) -> Option<u32> {
        self.told
    }

    /// Mean of the loads of all ready nodes that scrape; `None` while one is unknown.
    fn mean(&self) -> Option<f64> {
        let nodes = self.view.ready("scrape");
        let load =
            |m: &Arc<Member>| if m.name == self.view.me { self.load } else { m.record.load.map(f64::from) };
        let loads: Vec<f64> = nodes.iter().map(load).collect::<Option<_>>()?;
        (loads.len() > 1).then(|| loads.iter().sum::<f64>() / loads.len() as f64)
    }

    fn offers(&mut self, now_ns: u64, held: &[Held]) -> Vec<Offer> {
        let (Some(mean), Some(mut load)) = (self.mean(), self.load) else { return Vec::new() };
        let mut out: BTreeMap<String, Vec<(SlotKey, f64)>> = BTreeMap::new();
        // What comes back soon and would be too much again.
        let mut with_returns = load;
        for (at, m) in self.given.iter().filter(|(_, m)| m.until_ns < now_ns + RENEW_NS) {
            with_returns += m.rate;
            let slots = out.entry(m.with.0.clone()).or_default();
            if with_returns > FULL * mean && slots.len() < OFFER_MAX {
                slots.push((*at, m.rate));
            }
        }
        if load > OVER * mean && load > FLOOR {
            let mut room = self.room(now_ns, mean);
            let own = |h: &&Held| !self.taken.contains_key(&(h.key, h.slot));
            let mut slots: Vec<(SlotKey, f64)> =
                held.iter().filter(own).filter_map(|h| Some(((h.key, h.slot), h.rate?))).collect();
            slots.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let mut given = self.given.len();
            // The largest that is not more than what is too much; when all are more, the smallest.
            let smallest = slots.last().copied();
            let fitting = slots.into_iter().filter(|(_, rate)| *rate > 0.0);
            for (at, rate) in fitting {
                let excess = load - FULL * mean;
                let may = rate <= excess || Some(at) == smallest.map(|s| s.0);
                if excess <= 0.0 || given >= HELD_MAX || !may {
                    continue;
                }
                let Some(to) = self.taker(at, rate, &room) else { continue };
                let slots = out.entry(to.clone()).or_default();
                if slots.len() < OFFER_MAX {
                    slots.push((at, rate));
                    given += 1;
                    load -= rate;
                    *room.entry(to).or_default() -= rate;
                }
            }
        }
        let member = |(name, slots): (String, Vec<_>)| {
            Some(Offer { to: self.view.members.get(&name)?.clone(), slots })
        };
        out.into_iter().filter(|(_, slots)| !slots.is_empty()).filter_map(member).collect()
    }

    /// How much each other node can take.
    fn room(&self, now_ns: u64, mean: f64) -> BTreeMap<String, f64> {
        let mut room = BTreeMap::new();
        for m in self.view.ready("scrape") {
            if m.name != self.view.me && !self.refused.contains_key(&m.name) {
                let fresh = |g: &&Moved| g.with.0 == m.name && now_ns.saturating_sub(g.since_ns) < FRESH_NS;
                let coming: f64 = self.given.values().filter(fresh).map(|g| g.rate).sum();
                let load = m.record.load.map_or(f64::INFINITY, f64::from);
                room.insert(m.name.clone(), FULL * mean - load - coming);
            }
        }
        room
    }

    /// The next in rank with room: of this zone, then of a zone without another slot of the target, then any.
    fn taker(&self, (key, slot): SlotKey, rate: f64, room: &BTreeMap<String, f64>) -> Option<String> {
        let owners = slot_owners(&self.view, key, self.replicas);
        let zone = &self.view.own()?.record.zone;
        let used: BTreeSet<&String> = owners.iter().map(|m| &m.record.zone).collect();
        let fits = |m: &&Arc<Member>| {
            !owners.iter().any(|o| o.name == m.name)
                && !self.given.iter().any(|((k, s), g)| *k == key && *s != slot && g.with.0 == m.name)
                && room.get(&m.name).is_some_and(|room| rate <= *room)
        };
        let ranked = ranked(&self.view.ready("scrape"), key);
        let order = |m: &&Arc<Member>| match &m.record.zone {
            z if z == zone => 0,
            z if !used.contains(z) => 1,
            _ => 2,
        };
        ranked.iter().filter(fits).min_by_key(order).map(|m| m.name.clone())
    }

    /// `from` offers slots: those that are taken. What was taken before is taken again and for longer.
    pub fn take(&mut self, now_ns: u64, from: &(String, u64), slots: &[(SlotKey, f64)]) -> Vec<SlotKey> {
        self.forget(now_ns);
        let is_ready = |m: &Arc<Member>| m.is_ready() && m.generation == from.1;
        let me = self.view.me.clone();
        let (Some(mean), Some(mut load)) = (self.mean(), self.load) else { return Vec::new() };
        if !self.view.members.get(&from.0).is_some_and(is_ready) || from.0 == me {
            return Vec::new();
        }
        let mut accepted = Vec::new();
        for (at, rate) in slots.iter().take(OFFER_MAX).filter(|(_, rate)| rate.is_finite() && *rate >= 0.0) {
            let (key, slot) = *at;
            let owners = slot_owners(&self.view, key, self.replicas);
            let is_theirs = owners.get(usize::from(slot.0)).is_some_and(|o| o.name == from.0);
            let has_another = owners.iter().any(|o| o.name == me)
                || self.taken.range((key, Slot(0))..=(key, Slot(u8::MAX))).any(|((_, s), _)| *s != slot);
            let is_known = self.taken.contains_key(at);
            let fits = is_known || (load + rate <= FULL * mean && self.taken.len() < HELD_MAX);
            if is_theirs && !has_another && fits {
                load += if is_known { 0.0 } else { *rate };
                let moved =
                    Moved { with: from.clone(), until_ns: now_ns + HELD_NS, since_ns: now_ns, rate: *rate };
                self.taken.insert(*at, moved);
                accepted.push(*at);
            }
        }
        self.load = Some(load);
        accepted
    }

    /// `by` has taken these of the slots that it was offered.
    pub fn taken_by(&mut self, now_ns: u64, by: &(String, u64), offered: usize, taken: &[(SlotKey, f64)]) {
        for (at, rate) in taken {
            let moved = Moved { with: by.clone(), until_ns: now_ns + HELD_NS, since_ns: now_ns, rate: *rate };
            self.given.insert(*at, moved);
        }
        if taken.len() < offered {
            self.refused.insert(by.0.clone(), now_ns + REFUSED_NS);
        }
        self.forget(now_ns);
    }

    /// The slots that are not with their owner, given and taken.
    pub fn moves(&self) -> Moves {
        let me = &self.view.me;
        let given = self.given.iter().map(|(at, m)| (*at, (me.clone(), m.with.0.clone())));
        let taken = self.taken.iter().map(|(at, m)| (*at, (m.with.0.clone(), me.clone())));
        Moves(given.chain(taken).collect())
    }

    /// From whom a slot was taken, and until when, monotonic nanoseconds.
    pub fn taken_from(&self, at: &SlotKey) -> Option<(&str, u64)> {
        self.taken.get(at).map(|m| (m.with.0.as_str(), m.until_ns))
    }

    /// How many slots are given and taken.
    pub fn counts(&self) -> (usize, usize) {
        (self.given.len(), self.taken.len())
    }
}

#[cfg(test)]
mod tests;
