//! Identifiers that must not be mixed up.
//!
//! Owns block ids and replica slots. A slot is the identity of one of the R independent copies of a
//! scraped target (design 6): it travels with the series instead of the node's name, so a handover of a
//! slot continues the same series.

use std::fmt;
use std::str::FromStr;

/// A block's ULID: 26 characters of Crockford base 32, time-ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(ulid::Ulid);

impl BlockId {
    /// An id from a wall-clock time in milliseconds and 80 random bits.
    pub fn from_parts(timestamp_ms: u64, random: u128) -> Self {
        Self(ulid::Ulid::from_parts(timestamp_ms, random))
    }

    /// Milliseconds since the epoch at which the id was made.
    pub fn timestamp_ms(self) -> u64 {
        self.0.timestamp_ms()
    }

    /// The raw 128 bits.
    pub fn to_u128(self) -> u128 {
        self.0.0
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not a ULID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a block id: want 26 characters of Crockford base 32")]
pub struct BadBlockId(pub String);

impl FromStr for BlockId {
    type Err = BadBlockId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.len() != 26 {
            return Err(BadBlockId(s.to_owned()));
        }
        ulid::Ulid::from_string(s).map(Self).map_err(|_| BadBlockId(s.to_owned()))
    }
}

/// Which replica of a target a series belongs to; shown as the external label `replica`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

impl Slot {
    /// The largest number of slots a target can have.
    pub const MAX: u8 = 8;
    /// Of no target of ours: what another producer wrote, whose labels tell its replicas apart.
    pub const FOREIGN: Self = Self(u8::MAX);
    /// The same, as a Prometheus beside a node of ours tells it itself: it knows what one producer alone wrote.
    pub const LIVE: Self = Self(u8::MAX - 1);

    /// Whether another producer wrote it.
    pub fn is_foreign(self) -> bool {
        self >= Self::LIVE
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_ids_round_trip_and_refuse_paths() {
        let id = BlockId::from_parts(1_700_000_000_000, 42);
        assert_eq!(id.to_string().parse::<BlockId>().unwrap(), id);
        assert_eq!(id.timestamp_ms(), 1_700_000_000_000);
        for bad in
            ["", "../../../etc/passwd.......", "01ARZ3NDEKTSV4RRFFQ69G5FA", "01ARZ3NDEKTSV4RRFFQ69G5F!V"]
        {
            assert!(bad.parse::<BlockId>().is_err(), "{bad}");
        }
    }
}
