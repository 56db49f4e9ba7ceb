//! Scales: how much this node scrapes, and the talk with peers about what is too much.
//!
//! Shared by the pools, which say what they scrape and go by the moves, by discovery, which has it looked at once a second,
//! by membership, which gossips the load, and by the reports. Who gives what to whom is `koios_cluster::Balance`, which is
//! pure. Two messages, both JSON and both lost without harm: `{"offered":{"from","generation","slots":[[key,slot,rate],…]}}`
//! and the answer `{"taken":{…}}` with those that were taken and how many were offered. Keys are hexadecimal.
//!
//! Bound: as many slots as the node scrapes, and those of `koios_cluster::balance`.

use std::collections::BTreeMap;
use std::sync::Arc;

use koios_cluster::Balance;
use koios_cluster::balance::{Held, Moves, OFFER_MAX, SlotKey};
use koios_cluster::{ClusterView, Member};
use koios_model::{Clock, Slot};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::pool::Tell;

#[derive(Default)]
struct Inner {
    balance: Balance,
    jobs: BTreeMap<String, Vec<Held>>,
    moves: Arc<Moves>,
}

/// See the module.
pub struct Scales {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

impl Inner {
    fn note_moves(&mut self) {
        let moves = self.balance.moves();
        if moves != *self.moves {
            self.moves = Arc::new(moves);
        }
    }
}

impl Scales {
    /// Nothing is scraped yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, inner: Mutex::default() }
    }

    /// What a job scrapes here that is this node's.
    pub fn weigh(&self, job: &str, held: Vec<Held>) {
        self.inner.lock().jobs.insert(job.to_owned(), held);
    }

    /// A job is gone.
    pub fn remove(&self, job: &str) {
        self.inner.lock().jobs.remove(job);
    }

    /// The slots that are not with their owner by rank; the same `Arc` until they change.
    pub fn moves(&self) -> Arc<Moves> {
        self.inner.lock().moves.clone()
    }

    /// The load as gossip says it.
    pub fn told(&self) -> Option<u32> {
        self.inner.lock().balance.told()
    }

    /// How many slots were given and taken.
    pub fn counts(&self) -> (usize, usize) {
        self.inner.lock().balance.counts()
    }

    /// From whom a slot was taken, and until when, wall-clock milliseconds.
    pub fn taken_from(&self, key: u64, slot: Slot) -> Option<(String, i64)> {
        let inner = self.inner.lock();
        let (from, until_ns) = inner.balance.taken_from(&(key, slot))?;
        let left_ms = until_ns.saturating_sub(self.clock.mono_ns()) / 1_000_000;
        Some((from.to_owned(), self.clock.now_ms().saturating_add(left_ms as i64)))
    }

    /// Looks whether it is too much, and offers what is.
    pub fn look(&self, view: &Arc<ClusterView>, replicas: u8, tell: &Tell) {
        let mut inner = self.inner.lock();
        let held: Vec<Held> = inner.jobs.values().flatten().copied().collect();
        let offers = inner.balance.look(self.clock.mono_ns(), view, replicas, &held);
        inner.note_moves();
        drop(inner);
        let Some(me) = view.own() else { return };
        for offer in offers {
            tell(offer.to.name.clone(), message("offered", me, &offer.slots, offer.slots.len()));
        }
    }

    /// Takes `offered` from a peer, and answers with what is taken.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn hear_offer(&self, offered: &Value, view: &ClusterView, tell: &Tell) -> Result<(), String> {
        let (from, slots, _) = read(offered)?;
        let mut inner = self.inner.lock();
        let taken = inner.balance.take(self.clock.mono_ns(), &from, &slots);
        inner.note_moves();
        drop(inner);
        let answer: Vec<(SlotKey, f64)> =
            slots.iter().filter(|(at, _)| taken.contains(at)).copied().collect();
        if let Some(me) = view.own() {
            tell(from.0, message("taken", me, &answer, slots.len()));
        }
        Ok(())
    }

    /// Takes the answer to an offer.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn hear_taken(&self, taken: &Value) -> Result<(), String> {
        let (by, slots, offered) = read(taken)?;
        let mut inner = self.inner.lock();
        inner.balance.taken_by(self.clock.mono_ns(), &by, offered, &slots);
        inner.note_moves();
        Ok(())
    }
}

fn message(word: &str, me: &Member, slots: &[(SlotKey, f64)], offered: usize) -> String {
    let slots: Vec<Value> =
        slots.iter().map(|((key, slot), rate)| json!([format!("{key:016x}"), slot.0, rate])).collect();
    json!({ word: { "from": me.name, "generation": me.generation, "offered": offered, "slots": slots } })
        .to_string()
}

type Said = ((String, u64), Vec<(SlotKey, f64)>, usize);

fn read(said: &Value) -> Result<Said, String> {
    let from = said["from"].as_str().ok_or("slots on the move: from is missing")?.to_owned();
    let generation = said["generation"].as_u64().ok_or("slots on the move: generation is missing")?;
    let slot = |v: &Value| {
        let key = u64::from_str_radix(v[0].as_str()?, 16).ok()?;
        Some(((key, Slot(u8::try_from(v[1].as_u64()?).ok()?)), v[2].as_f64()?))
    };
    let slots = said["slots"].as_array().ok_or("slots on the move: slots are missing")?;
    let slots: Option<Vec<(SlotKey, f64)>> = slots.iter().take(OFFER_MAX).map(slot).collect();
    let slots = slots.ok_or("slots on the move: one is not [key, slot, rate]")?;
    let offered = said["offered"].as_u64().map_or(slots.len(), |n| n as usize);
    Ok(((from, generation), slots, offered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_model::ManualClock;

    #[test]
    fn nonsense_is_refused_and_strangers_give_nothing() {
        let scales = Scales::new(ManualClock::at(0));
        let silent: Tell = Arc::new(|_, _| {});
        let view = ClusterView::default();
        for bad in
            [json!({}), json!({"from": "a"}), json!({"from": "a", "generation": 1, "slots": [["x", 0, 1]]})]
        {
            let why = scales.hear_offer(&bad, &view, &silent).unwrap_err();
            assert!(why.starts_with("slots on the move:"), "{why}");
            assert_eq!(scales.hear_taken(&bad).unwrap_err(), why);
        }
        let offer = json!({"from": "a", "generation": 1, "slots": [["00ff", 1, 2.5]]});
        assert_eq!(read(&offer).unwrap(), (("a".to_owned(), 1), vec![((255, Slot(1)), 2.5)], 1));
        scales.hear_offer(&offer, &view, &silent).unwrap();
        assert_eq!((scales.counts(), scales.taken_from(255, Slot(1))), ((0, 0), None));
    }
}
