//! Breadth first through all states, so that the first loss found is one with the shortest way.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use crate::model::{State, Table, World, words};

/// What a search came to.
pub struct Found {
    /// Different states that were reached.
    pub states: usize,
    /// The way to a loss, in words.
    pub loss: Option<Vec<String>>,
    /// The way to an end at which something lies there that nobody needs.
    pub left_behind: Option<Vec<String>>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.loss.as_ref().or(self.left_behind.as_ref()) {
            None => write!(f, "{} states, no loss", self.states),
            Some(way) => {
                let what = if self.loss.is_some() { "loss" } else { "something left behind" };
                write!(
                    f,
                    "{what} in {} steps after {} states:\n  {}",
                    way.len() - 1,
                    self.states,
                    way.join("\n  ")
                )
            }
        }
    }
}

/// States are numbers of our own making: mixing their bits is enough.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u64(u64::from(*b)));
    }

    fn write_u64(&mut self, n: u64) {
        let m = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = m ^ m >> 32;
    }
}

type Origins = HashMap<State, State, BuildHasherDefault<Mixed>>;

/// Goes through all states, at most `states_max`, to the first loss.
pub fn search(world: &World, states_max: usize) -> Found {
    let table = Table::new(world);
    let start = table.start();
    let mut from: Origins = std::iter::once((start, start)).collect();
    let mut queue = VecDeque::from([start]);
    let mut next = Vec::new();
    let mut left_behind = None;
    while let Some(s) = queue.pop_front() {
        if table.is_loss(s) {
            return Found { states: from.len(), loss: Some(way(&table, &from, s)), left_behind };
        }
        next.clear();
        table.keeps(s, &mut next);
        if next.is_empty() && left_behind.is_none() && table.leaves_behind(s) {
            left_behind = Some(way(&table, &from, s));
        }
        table.happens(s, &mut next);
        for n in &next {
            from.entry(*n).or_insert_with(|| {
                queue.push_back(*n);
                s
            });
        }
        assert!(from.len() < states_max, "more states than expected: {world:?}");
    }
    Found { states: from.len(), loss: None, left_behind }
}

fn way(table: &Table, from: &Origins, to: State) -> Vec<String> {
    let (mut at, mut states) = (to, vec![to]);
    while from[&at] != at {
        at = from[&at];
        states.push(at);
    }
    states.iter().rev().map(|s| words(*s, table.blocks())).collect()
}
