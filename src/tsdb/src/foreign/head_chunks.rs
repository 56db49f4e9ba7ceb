//! Mapped head chunks: `chunks_head/NNNNNN`.
//!
//! File: magic 01 30 bc 91, version 1, three zero bytes; then per chunk series reference, first and last time (8
//! bytes each, big-endian), encoding (bit 7: out of order), `uvarint` length, data, CRC32C of all of it. The rest of
//! the file, which is allocated in advance, is zero. Invariant: a chunk handed out has passed its checksum.

use bytes::Bytes;
use koios_block::crc32c;
use koios_chunk::varint::get_uvarint;
use koios_chunk::{Chunk, Encoding};

const MAGIC: [u8; 4] = [0x01, 0x30, 0xbc, 0x91];
const OUT_OF_ORDER: u8 = 0x80;

/// A chunk of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadChunk {
    /// Prometheus' reference of its series.
    pub series: u64,
    /// Whether its samples came late.
    pub out_of_order: bool,
    /// The chunk.
    pub chunk: Chunk,
}

/// Reads a whole file. What cannot be read is said in the second part of the answer; all before it is there.
pub fn read_head_chunks(bytes: &Bytes) -> (Vec<HeadChunk>, Option<String>) {
    let mut out = Vec::new();
    if bytes.get(..4) != Some(&MAGIC) || bytes.get(4) != Some(&1) || bytes.len() < 8 {
        return (out, Some("file does not begin as one of head chunks".to_owned()));
    }
    let mut at = 8;
    loop {
        // References begin at 1; zeros are the part that was never written.
        let head = bytes.get(at..at + 8).unwrap_or_default();
        if head.iter().all(|b| *b == 0) {
            let rest = bytes.get(at..).unwrap_or_default();
            let clean = rest.iter().all(|b| *b == 0);
            return (out, (!clean).then(|| format!("zeros at {at} are followed by something")));
        }
        match one(bytes, &mut at) {
            Ok(chunk) => out.push(chunk),
            Err(what) => return (out, Some(format!("at {at}: {what}"))),
        }
    }
}

fn one(bytes: &Bytes, at: &mut usize) -> Result<HeadChunk, &'static str> {
    let short = "chunk is cut short";
    let start = *at;
    let mut rest = bytes.get(start..).ok_or(short)?;
    let mut be64 = || -> Option<u64> {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        rest = tail;
        Some(u64::from_be_bytes(*head))
    };
    let (series, mint, maxt) = (be64().ok_or(short)?, be64().ok_or(short)?, be64().ok_or(short)?);
    let (&encoding, tail) = rest.split_first().ok_or(short)?;
    let mut rest = tail;
    let len = get_uvarint(&mut rest).and_then(|n| usize::try_from(n).ok()).ok_or(short)?;
    let data_at = bytes.len() - rest.len();
    let end = data_at.checked_add(len).filter(|e| e + 4 <= bytes.len()).ok_or(short)?;
    let crc = bytes[end..].first_chunk::<4>().ok_or(short)?;
    if crc32c(&bytes[start..end]) != u32::from_be_bytes(*crc) {
        return Err("checksum does not fit");
    }
    let out_of_order = encoding & OUT_OF_ORDER != 0;
    let encoding = Encoding::from_u8(encoding & !OUT_OF_ORDER).ok_or("chunk encoding is unknown")?;
    *at = end + 4;
    let chunk =
        Chunk { min_time: mint as i64, max_time: maxt as i64, encoding, data: bytes.slice(data_at..end) };
    Ok(HeadChunk { series, out_of_order, chunk })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(chunks: &[(u64, u8, &[u8])]) -> Vec<u8> {
        let mut out = vec![0x01, 0x30, 0xbc, 0x91, 1, 0, 0, 0];
        for (series, encoding, data) in chunks {
            let start = out.len();
            out.extend(series.to_be_bytes());
            out.extend(5u64.to_be_bytes());
            out.extend(9u64.to_be_bytes());
            out.push(*encoding);
            out.push(data.len() as u8);
            out.extend(*data);
            let crc = crc32c(&out[start..]);
            out.extend(crc.to_be_bytes());
        }
        out
    }

    #[test]
    fn reads_all_and_stops_at_damage() {
        let mut bytes = file(&[(3, 1, b"abc"), (4, 0x82, b"")]);
        let end = bytes.len();
        bytes.resize(end + 100, 0);
        let (found, bad) = read_head_chunks(&bytes.clone().into());
        assert_eq!((found.len(), bad), (2, None));
        assert_eq!(
            (found[0].series, found[0].out_of_order, &found[0].chunk.data[..]),
            (3, false, &b"abc"[..])
        );
        assert!(found[1].out_of_order && found[1].chunk.encoding == Encoding::Histogram);
        assert_eq!((found[1].chunk.min_time, found[1].chunk.max_time), (5, 9));
        bytes[end - 1] ^= 1;
        let (found, bad) = read_head_chunks(&bytes.into());
        assert!(found.len() == 1 && bad.unwrap().contains("checksum"));
        assert!(read_head_chunks(&Bytes::from_static(b"nothing")).1.is_some());
    }
}
