//! Tombstones: which time ranges of which series of a block are deleted.
//!
//! File layout as Prometheus' `tsdb/docs/format/tombstones.md`: magic, version 1, entries of uvarint series
//! reference and two signed varints (first and last deleted millisecond), then the CRC32C of the entries.
//! Invariant: intervals of one series are sorted and do not touch.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use koios_chunk::varint;
use koios_model::failpoint;

use crate::crc::crc32c;
use crate::dec::{Dec, damaged};
use crate::error::BlockError;

const MAGIC: u32 = 0x0130_ba30;
const VERSION: u8 = 1;
const FILE: &str = "tombstones";

/// A deleted range, both ends inclusive, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    /// First deleted instant.
    pub mint: i64,
    /// Last deleted instant.
    pub maxt: i64,
}

impl Interval {
    /// Whether the instant is deleted.
    pub fn contains(&self, t: i64) -> bool {
        self.mint <= t && t <= self.maxt
    }
}

/// All tombstones of a block by series reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    by_series: BTreeMap<u64, Vec<Interval>>,
}

impl Tombstones {
    /// Deletes a range of a series; ranges that touch become one.
    pub fn add(&mut self, series: u64, interval: Interval) {
        let list = self.by_series.entry(series).or_default();
        let mut merged = interval;
        list.retain(|i| {
            let apart = i.maxt.saturating_add(1) < merged.mint || merged.maxt.saturating_add(1) < i.mint;
            if !apart {
                merged = Interval { mint: merged.mint.min(i.mint), maxt: merged.maxt.max(i.maxt) };
            }
            apart
        });
        let at = list.partition_point(|i| i.mint < merged.mint);
        list.insert(at, merged);
    }

    /// Deleted ranges of a series, sorted.
    pub fn get(&self, series: u64) -> &[Interval] {
        self.by_series.get(&series).map_or(&[], Vec::as_slice)
    }

    /// Number of deleted ranges, as `stats.numTombstones` counts.
    pub fn len(&self) -> usize {
        self.by_series.values().map(Vec::len).sum()
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.by_series.is_empty()
    }

    /// Reads the file of a block directory; a missing file means no tombstones (Thanos uploads none).
    ///
    /// # Errors
    /// `BlockError::Io`, `Damaged`, `Version`.
    pub fn read(dir: &Path) -> Result<Self, BlockError> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Self::decode(&bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(BlockError::io("read", &path)(e)),
        }
    }

    /// Writes the file of a block directory durably: temporary name, sync, rename, sync of the directory. The one
    /// file of a finished block that is ever replaced, together with the count in `meta.json`.
    ///
    /// # Errors
    /// `BlockError::Io`; the old file is then still in place.
    pub fn write(&self, dir: &Path) -> Result<(), BlockError> {
        let (tmp, path) = (dir.join("tombstones.tmp"), dir.join(FILE));
        failpoint::write("deletion write", &self.encode(), |part| fs::write(&tmp, part))
            .map_err(BlockError::io("write", &tmp))?;
        failpoint::pass("deletion sync");
        fs::File::open(&tmp).and_then(|f| f.sync_all()).map_err(BlockError::io("sync", &tmp))?;
        failpoint::pass("deletion rename");
        fs::rename(&tmp, &path).map_err(BlockError::io("rename", &tmp))?;
        crate::dir::sync_dir(dir)
    }

    /// Decodes a file's bytes.
    ///
    /// # Errors
    /// `BlockError::Damaged`, `Version`.
    pub fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        let mut d = Dec::at(bytes, FILE, 0)?;
        if d.be32()? != MAGIC {
            return Err(damaged(FILE, 0, "magic number is not that of tombstones"));
        }
        let version = d.u8()?;
        if version != VERSION {
            return Err(BlockError::Version { file: FILE, version });
        }
        let Some(len) = d.remaining().checked_sub(4) else { return Err(d.damaged("ends too early")) };
        let entries_at = d.offset();
        let entries = d.take(len)?;
        if d.be32()? != crc32c(entries) {
            return Err(damaged(FILE, entries_at, "checksum does not match"));
        }
        let mut out = Self::default();
        let mut d = Dec::at(entries, FILE, 0)?;
        while d.remaining() > 0 {
            let (series, mint, maxt) = (d.uvarint()?, d.varint()?, d.varint()?);
            if mint > maxt {
                return Err(d.damaged("range ends before it starts"));
            }
            out.add(series, Interval { mint, maxt });
        }
        Ok(out)
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_be_bytes().to_vec();
        out.push(VERSION);
        for (&series, intervals) in &self.by_series {
            for i in intervals {
                varint::put_uvarint(&mut out, series);
                varint::put_varint(&mut out, i.mint);
                varint::put_varint(&mut out, i.maxt);
            }
        }
        let crc = crc32c(&out[5..]);
        out.extend(crc.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The empty file as Prometheus writes it into every new block.
    #[test]
    fn golden_empty() {
        let empty = [0x01, 0x30, 0xba, 0x30, 1, 0, 0, 0, 0];
        assert_eq!(Tombstones::default().encode(), empty);
        assert!(Tombstones::decode(&empty).unwrap().is_empty());
    }

    #[test]
    fn touching_ranges_become_one() {
        let mut t = Tombstones::default();
        for (mint, maxt) in [(10, 20), (30, 40), (21, 29), (i64::MAX - 1, i64::MAX), (i64::MIN, i64::MIN)] {
            t.add(7, Interval { mint, maxt });
        }
        assert_eq!(t.get(7).len(), 3);
        assert_eq!(t.get(7)[1], Interval { mint: 10, maxt: 40 });
        assert_eq!(Tombstones::decode(&t.encode()).unwrap(), t);
        assert!(t.get(8).is_empty());
    }

    #[test]
    fn a_written_file_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let mut t = Tombstones::default();
        for end in [5, 9] {
            t.add(3, Interval { mint: 1, maxt: end });
            t.write(dir.path()).unwrap();
            assert_eq!(Tombstones::read(dir.path()).unwrap(), t);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn refuses_every_flipped_byte() {
        let mut t = Tombstones::default();
        t.add(1, Interval { mint: -5, maxt: 1_000_000 });
        let good = t.encode();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            assert!(Tombstones::decode(&bad).is_err(), "flip at {i}");
            assert!(Tombstones::decode(&good[..i]).is_err(), "cut at {i}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = MAGIC.to_be_bytes().to_vec();
            bytes.push(VERSION);
            bytes.extend(&body);
            bytes.extend(crc32c(&body).to_be_bytes());
            let _ = Tombstones::decode(&bytes);
        }
    }
}
