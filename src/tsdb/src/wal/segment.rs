//! Segment files: the header, the frames, and what a damaged file still gives.
//!
//! Header, 24 bytes: `KOIOSWAL`, version, kind, two zero bytes, segment number, CRC32C of the 20 bytes before.
//! Frame: length, CRC32C of the payload, payload. All integers little-endian. Nothing names the node, so a
//! segment can be replayed anywhere. Reading goes on after a damaged frame as long as lengths lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};

use koios_block::crc32c;

/// Bytes before the first frame.
pub(crate) const HEADER_BYTES: usize = 24;
/// Length and checksum.
pub(crate) const FRAME_BYTES: usize = 8;
const MAGIC: &[u8; 8] = b"KOIOSWAL";
const VERSION: u8 = 1;
/// Extension of a log segment.
const SUFFIX: &str = ".wal";
const CHECKPOINT_PREFIX: &str = "checkpoint.";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Log = 0,
    Checkpoint = 1,
}

pub(crate) fn header(kind: Kind, number: u64) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8] = VERSION;
    out[9] = kind as u8;
    out[12..20].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c(&out[..20]);
    out[20..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Appends a frame whose payload `fill` writes.
pub(crate) fn put_frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; FRAME_BYTES]);
    fill(out);
    let payload = &out[at + FRAME_BYTES..];
    let len = u32::try_from(payload.len()).expect("BUG: a log record of 4 GiB");
    let crc = crc32c(payload);
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    out[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
}

/// One thing found in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A record, checksum verified.
    Record(&'a [u8]),
    /// A stretch that is no record; reading goes on behind it.
    Bad {
        /// Where it begins.
        offset: usize,
        /// How long it is.
        bytes: usize,
        /// Why.
        what: &'static str,
    },
}

/// Walks over the frames of a whole segment file.
pub(crate) struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    /// Checks the header. A file too short for one is an empty segment whose creation was interrupted.
    pub(crate) fn open(bytes: &'a [u8], kind: Kind, number: u64) -> Result<Self, &'static str> {
        if bytes.len() < HEADER_BYTES {
            return Err("header is cut short");
        }
        let (head, crc) = bytes[..HEADER_BYTES].split_at(20);
        if head[..8] != *MAGIC {
            return Err("magic is not that of a Koios log");
        }
        if crc != crc32c(head).to_le_bytes() {
            return Err("checksum of the header does not match");
        }
        if head[8] != VERSION {
            return Err("version of the log is not supported");
        }
        if head[9] != kind as u8 || head[12..20] != number.to_le_bytes() {
            return Err("header belongs to another file");
        }
        Ok(Self { bytes, at: HEADER_BYTES })
    }

    fn payload(&self, at: usize) -> Result<&'a [u8], &'static str> {
        let rest = &self.bytes[at..];
        let Some((head, body)) = rest.split_first_chunk::<FRAME_BYTES>() else {
            return Err("frame is cut short");
        };
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(payload) = body.get(..len).filter(|_| len > 0) else {
            return Err("record is cut short");
        };
        if crc32c(payload).to_le_bytes() != head[4..8] {
            return Err("checksum does not match");
        }
        Ok(payload)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        let at = self.at;
        if at >= self.bytes.len() {
            return None;
        }
        match self.payload(at) {
            Ok(payload) => {
                self.at = at + FRAME_BYTES + payload.len();
                Some(Found::Record(payload))
            }
            Err(what) => {
                // Only a checksum error leaves a length that may be right: it is, if a sound record follows.
                let next = match (what, self.bytes[at..].first_chunk::<4>()) {
                    ("checksum does not match", Some(len)) => {
                        at + FRAME_BYTES + u32::from_le_bytes(*len) as usize
                    }
                    _ => self.bytes.len(),
                };
                let follows = next < self.bytes.len() && self.payload(next).is_ok();
                self.at = if follows { next } else { self.bytes.len() };
                Some(Found::Bad { offset: at, bytes: self.at - at, what })
            }
        }
    }
}

pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}{SUFFIX}"))
}

pub(crate) fn checkpoint_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{CHECKPOINT_PREFIX}{number:08}"))
}

/// First and last number of the log's segments in a shard's directory; `None` when there are none.
pub fn segment_numbers(dir: &Path) -> Option<(u64, u64)> {
    let (segments, _) = list(dir).ok()?;
    Some((*segments.first()?, *segments.last()?))
}

/// Numbers of the segments and of the checkpoints in a directory, ascending.
pub(crate) fn list(dir: &Path) -> std::io::Result<(Vec<u64>, Vec<u64>)> {
    let (mut segments, mut checkpoints) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(n) = name.strip_suffix(SUFFIX).and_then(|n| n.parse().ok()) {
            segments.push(n);
        } else if let Some(n) = name.strip_prefix(CHECKPOINT_PREFIX).and_then(|n| n.parse().ok()) {
            checkpoints.push(n);
        }
    }
    segments.sort_unstable();
    checkpoints.sort_unstable();
    Ok((segments, checkpoints))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = header(Kind::Log, 7).to_vec();
        payloads.iter().for_each(|p| put_frame(&mut out, |o| o.extend_from_slice(p)));
        out
    }

    fn found(bytes: &[u8]) -> Vec<Found<'_>> {
        Frames::open(bytes, Kind::Log, 7).unwrap().collect()
    }

    #[test]
    fn golden_bytes() {
        let bytes = file(&[b"123456789"]);
        let mut want = b"KOIOSWAL\x01\x00\x00\x00\x07\0\0\0\0\0\0\0".to_vec();
        want.extend(crc32c(&want).to_le_bytes());
        want.extend([9, 0, 0, 0, 0x83, 0x92, 0x06, 0xe3]);
        want.extend(b"123456789");
        assert_eq!(bytes, want);
    }

    #[test]
    fn a_cut_or_a_flip_loses_one_record_at_most_before_it() {
        let payloads: [&[u8]; 3] = [b"first", b"second record", b"third"];
        let good = file(&payloads);
        let ends = [HEADER_BYTES + 8 + 5, HEADER_BYTES + 16 + 18, good.len()];
        for cut in HEADER_BYTES..good.len() {
            let whole = ends.iter().filter(|e| **e <= cut).count();
            let got = found(&good[..cut]);
            let records = got.iter().filter(|f| matches!(f, Found::Record(_))).count();
            assert_eq!(records, whole, "cut at {cut}");
            let clean = cut == HEADER_BYTES || ends.contains(&cut);
            assert_eq!(got.len() - records, usize::from(!clean), "cut at {cut}");
        }
        for flip in HEADER_BYTES..good.len() {
            let mut bad = good.clone();
            bad[flip] ^= 0x20;
            let hit = ends.iter().filter(|e| **e <= flip).count();
            let got = found(&bad);
            for (i, p) in payloads.iter().enumerate() {
                let there = got.contains(&Found::Record(p));
                assert!(there || i >= hit, "flip at {flip} lost record {i} before it");
                assert!(!there || i != hit, "flip at {flip} was not noticed");
            }
            assert!(got.iter().any(|f| matches!(f, Found::Bad { .. })));
        }
        for flip in 0..HEADER_BYTES {
            let mut bad = good.clone();
            bad[flip] ^= 1;
            assert!(Frames::open(&bad, Kind::Log, 7).is_err(), "flip at {flip}");
        }
        assert!(Frames::open(&good, Kind::Log, 8).is_err());
    }

    #[test]
    fn a_damaged_payload_in_the_middle_is_skipped() {
        let mut bytes = file(&[b"first", b"second", b"third"]);
        bytes[HEADER_BYTES + 13 + 8] ^= 1;
        let got = found(&bytes);
        assert_eq!(got[0], Found::Record(b"first"));
        assert!(matches!(got[1], Found::Bad { offset: 37, bytes: 14, .. }), "{got:?}");
        assert_eq!(got[2], Found::Record(b"third"));
    }
}
