//! Reading one fragment: head and blocks series by series, so that it can stop at any of them.
//!
//! Pure CPU work for the pool. Owns when it ends early: because the asker went away, because a bound is passed, or
//! because the answer would be too large for one and is asked for in parts instead. A block that is damaged is missing
//! as a whole, the others are served.

use std::cell::Cell;

use koios_block::BlockError;
use koios_chunk::SeriesChunks;
use koios_model::{Labels, Matcher};
use koios_store::served::{dressed, settle};

use crate::error::QueryError;
use crate::limits::{FragmentLimits, Tally};
use crate::local::Ranged;
use crate::ports::{HeadPort, Stop};
use crate::rounds::SHARDS_MAX;
use crate::scope::{Answer, Missing, MissingReason, Part, Scope};

/// Series read between two looks at whether anybody still waits: some hundred microseconds.
const UNCHECKED: usize = 64;

/// Why reading ended early.
pub(crate) enum Halt {
    /// A bound is passed.
    Over(QueryError),
    /// Ask in this many parts.
    Split(u32),
    /// Nobody waits any more.
    Stopped,
}

enum Fault {
    Damage(BlockError),
    Halt(Halt),
}

impl From<BlockError> for Fault {
    fn from(e: BlockError) -> Self {
        Self::Damage(e)
    }
}

/// One fragment being read.
pub(crate) struct Reading<'a> {
    pub scope: &'a Scope,
    pub matchers: &'a [Matcher],
    pub limits: &'a FragmentLimits,
    /// Chunks of blocks are not read; series come without.
    pub labels_only: bool,
    pub stop: &'a Stop,
}

impl Reading<'_> {
    /// Adds what the head has, whose series get `external` labels.
    pub fn head(
        &self,
        head: &dyn HeadPort,
        external: &Labels,
        answer: &mut Answer,
        tally: &mut Tally,
    ) -> Result<(), Halt> {
        let scope = self.scope;
        let Some(matchers) = settle(external, self.matchers) else {
            answer.served.push(Part::Own);
            return Ok(());
        };
        let most = if scope.may_split { self.limits.split_series } else { u64::MAX };
        let matching = Cell::new(0u64);
        let keep = |labels: &Labels| {
            let wanted = !self.stop.is_set() && scope.shard.holds(labels);
            matching.set(matching.get() + u64::from(wanted));
            wanted && matching.get() <= most
        };
        let read = head.select(&matchers, scope.mint, scope.maxt, &keep);
        if self.stop.is_set() {
            return Err(Halt::Stopped);
        }
        if matching.get() > most {
            return Err(Halt::Split(split(matching.get(), most)));
        }
        match read {
            Ok(mut series) => {
                if !external.is_empty() {
                    series
                        .iter_mut()
                        .for_each(|s| s.labels = dressed(external, std::mem::take(&mut s.labels)));
                }
                series.iter().for_each(|s| tally.add(s));
                answer.series.extend(series);
                answer.served.push(Part::Own);
            }
            Err(detail) => {
                let reason = MissingReason::Corrupt;
                answer.missing.push(Missing { part: Part::Own, reason, detail });
            }
        }
        self.bytes(tally, 1.0)?;
        tally.check(scope, self.limits).map_err(Halt::Over)
    }

    /// Adds what blocks have.
    pub fn blocks(&self, blocks: &[Ranged], answer: &mut Answer, tally: &mut Tally) -> Result<(), Halt> {
        let mut picked = 0u64;
        for (at, block) in blocks.iter().enumerate() {
            let part = Part::Block(block.0.id());
            let (before, held) = (answer.series.len(), *tally);
            match self.block(block, (at, blocks.len()), &mut picked, &mut answer.series, tally) {
                Ok(()) => answer.served.push(part),
                Err(Fault::Halt(halt)) => return Err(halt),
                Err(Fault::Damage(e)) => {
                    answer.series.truncate(before);
                    *tally = held;
                    let (reason, detail) = (MissingReason::Corrupt, e.to_string());
                    answer.missing.push(Missing { part, reason, detail });
                }
            }
        }
        Ok(())
    }

    fn block(
        &self,
        (block, (mint, maxt)): &Ranged,
        (at, of): (usize, usize),
        picked: &mut u64,
        out: &mut Vec<SeriesChunks>,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let (scope, inner) = (self.scope, block.block());
        let external = block.external(scope.dress);
        let Some(matchers) = settle(external, self.matchers) else { return Ok(()) };
        let numbers = inner.pick(&matchers, *mint, *maxt)?;
        *picked += numbers.len() as u64;
        if scope.may_split && *picked > self.limits.split_series {
            let all = *picked * of as u64 / (at as u64 + 1);
            return Err(Fault::Halt(Halt::Split(split(all, self.limits.split_series))));
        }
        let (from, mut cursor) = (out.len(), inner.cursor(None));
        for (i, number) in numbers.iter().enumerate() {
            if i % UNCHECKED == 0 && self.stop.is_set() {
                return Err(Fault::Halt(Halt::Stopped));
            }
            cursor.go_to(*number, *mint, *maxt)?;
            if !cursor.has_chunks() || (self.labels_only && cursor.is_deleted()) {
                continue;
            }
            let labels = dressed(external, cursor.labels()?);
            if !scope.shard.holds(&labels) {
                continue;
            }
            let chunks = if self.labels_only { Vec::new() } else { cursor.chunks()? };
            if chunks.is_empty() && !self.labels_only {
                continue;
            }
            let series = SeriesChunks { labels, slot: inner.slot(), chunks };
            tally.add(&series);
            out.push(series);
            let done = (at as f64 + (i + 1) as f64 / numbers.len() as f64) / of as f64;
            self.bytes(tally, done).map_err(Fault::Halt)?;
            tally.check(scope, self.limits).map_err(|e| Fault::Halt(Halt::Over(e)))?;
        }
        if !external.is_empty() {
            out[from..].sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        Ok(())
    }

    /// Whether so many bytes are too many for one answer; `done` is the share of it that was read.
    fn bytes(&self, tally: &Tally, done: f64) -> Result<(), Halt> {
        let most = self.limits.split_bytes;
        if !self.scope.may_split || tally.bytes <= most {
            return Ok(());
        }
        Err(Halt::Split(split((tally.bytes as f64 / done) as u64, most)))
    }
}

/// In how many parts to ask for what would be `held` of at most `most`.
pub(crate) fn split(held: u64, most: u64) -> u32 {
    let parts = held.div_ceil(most.max(1)).clamp(2, u64::from(SHARDS_MAX));
    u32::try_from(parts).unwrap_or(SHARDS_MAX)
}
