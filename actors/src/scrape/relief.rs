//! Relief: what new owners of slots tell the old ones, on its way out and in.
//!
//! A node that took a slot over and has stored its first scrape says so to the node that had the slot before, which then
//! stops. Owns the words (JSON, `{"covered":{"job":…,"slots":[[key,slot,since_ms],…]}}`, keys in hexadecimal) and the
//! inbox from which pools take what concerns them. A message that is lost costs nothing but scrapes: the old owner
//! stops by itself later. Bound: `WAITING_MAX` slots in the inbox; what is more is dropped.

use std::collections::BTreeMap;

use koios_model::Slot;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Most slots that wait to be taken by their pools.
pub const WAITING_MAX: usize = 100_000;
/// Most slots of one message.
pub const SLOTS_PER_MESSAGE: usize = 1_000;

/// A slot that another node has covered since a scheduled time, wall-clock milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Target.
    pub key: u64,
    /// Slot of the target.
    pub slot: Slot,
    /// Scheduled time of the first scrape that the other node stored.
    pub since_ms: i64,
}

/// The message about slots of a job.
pub fn message(job: &str, slots: &[Covered]) -> String {
    let slots: Vec<Value> =
        slots.iter().map(|c| json!([format!("{:016x}", c.key), c.slot.0, c.since_ms])).collect();
    json!({ "covered": { "job": job, "slots": slots } }).to_string()
}

/// What peers said, until the pools look.
#[derive(Debug, Default)]
pub struct Relief {
    waiting: Mutex<BTreeMap<String, Vec<Covered>>>,
}

impl Relief {
    /// Takes the content of `covered`.
    ///
    /// # Errors
    /// When it is not understood; nothing of it is taken then.
    pub fn hear(&self, covered: &Value) -> Result<(), String> {
        let job = covered["job"].as_str().ok_or("covered: job is missing")?;
        let read = |v: &Value| {
            let key = u64::from_str_radix(v[0].as_str()?, 16).ok()?;
            let slot = Slot(u8::try_from(v[1].as_u64()?).ok()?);
            Some(Covered { key, slot, since_ms: v[2].as_i64()? })
        };
        let slots = covered["slots"].as_array().ok_or("covered: slots are missing")?;
        let slots: Option<Vec<Covered>> = slots.iter().take(SLOTS_PER_MESSAGE).map(read).collect();
        let slots = slots.ok_or("covered: a slot is not [key, slot, since]")?;
        let mut waiting = self.waiting.lock();
        let held: usize = waiting.values().map(Vec::len).sum();
        if held + slots.len() <= WAITING_MAX && !slots.is_empty() {
            waiting.entry(job.to_owned()).or_default().extend(slots);
        }
        Ok(())
    }

    /// What was said about a job since the last time.
    pub fn take(&self, job: &str) -> Vec<Covered> {
        self.waiting.lock().remove(job).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard_once() {
        let said = [
            Covered { key: u64::MAX, slot: Slot(1), since_ms: -5 },
            Covered { key: 7, slot: Slot(0), since_ms: 1 << 50 },
        ];
        let body: Value = serde_json::from_str(&message("j", &said)).unwrap();
        let relief = Relief::default();
        relief.hear(&body["covered"]).unwrap();
        assert!(relief.take("other").is_empty());
        assert_eq!(relief.take("j"), said);
        assert!(relief.take("j").is_empty());
    }

    #[test]
    fn nonsense_is_refused_and_a_flood_is_dropped() {
        let relief = Relief::default();
        for bad in [json!({}), json!({"job": "j"}), json!({"job": "j", "slots": [["x", 0, 1]]})] {
            assert!(relief.hear(&bad).unwrap_err().starts_with("covered:"), "{bad}");
        }
        let many = vec![Covered { key: 1, slot: Slot(0), since_ms: 0 }; SLOTS_PER_MESSAGE + 5];
        let body: Value = serde_json::from_str(&message("j", &many)).unwrap();
        for _ in 0..2 * WAITING_MAX / SLOTS_PER_MESSAGE {
            relief.hear(&body["covered"]).unwrap();
        }
        assert_eq!(relief.take("j").len(), WAITING_MAX);
    }
}
