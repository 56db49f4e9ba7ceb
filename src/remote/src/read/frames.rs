//! The answer of chunks: frames of `prometheus.ChunkedReadResponse`.
//!
//! A frame is the length of its message as a varint, the message's CRC-32C in four bytes, highest first, and the message
//! (Prometheus' documentation, "Remote Read API", streamed chunks). Invariants: a frame has chunks of one series; it is
//! at most `FRAME_BYTES_MAX` long unless one chunk with its labels is longer; chunks are of the encodings 1 to 3.

use koios_block::crc32c;
use koios_chunk::{Chunk, Encoding, encode};
use koios_model::{Columns, Labels};

use super::put_labels;
use crate::encode::{put_bytes, put_int, put_varint};

/// Bytes of a message in a frame: Prometheus' `--storage.remote.read-max-bytes-in-frame`.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// `Content-Type` of the answer.
pub const CONTENT_TYPE: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
/// More than keys, lengths and numbers around the chunks of a frame take.
const AROUND: usize = 64;

/// Samples of a chunk that is made here, as in Prometheus' blocks.
pub(super) const SAMPLES_PER_CHUNK: usize = 120;

/// Whether every client that accepts frames can decode them.
pub fn can_be_sent(chunks: &[Chunk]) -> bool {
    chunks.iter().all(|c| is_known(c.encoding))
}

fn is_known(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::Xor | Encoding::Histogram | Encoding::FloatHistogram)
}

/// Writes frames.
#[derive(Debug)]
pub struct Frames {
    bytes_max: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { bytes_max: FRAME_BYTES_MAX }
    }
}

impl Frames {
    /// Appends one series as `put` does, from its samples.
    pub fn put_samples(&self, out: &mut Vec<u8>, query: usize, labels: &Labels, samples: &Columns) {
        self.put(out, query, labels, &encode(samples, SAMPLES_PER_CHUNK));
    }

    /// Appends one series of the answer to query number `query`: one frame, or several when it is long; none without
    /// chunks.
    pub fn put(&self, out: &mut Vec<u8>, query: usize, labels: &Labels, chunks: &[Chunk]) {
        let mut head = Vec::with_capacity(256);
        put_labels(&mut head, 1, labels);
        let (mut series, mut one) = (head.clone(), Vec::new());
        for chunk in chunks {
            assert!(is_known(chunk.encoding), "BUG: a chunk of encoding {:?} is sent", chunk.encoding);
            one.clear();
            put_int(&mut one, 1, chunk.min_time as u64);
            put_int(&mut one, 2, chunk.max_time as u64);
            put_int(&mut one, 3, chunk.encoding as u64);
            put_bytes(&mut one, 4, &chunk.data);
            if series.len() > head.len() && series.len() + one.len() + AROUND > self.bytes_max {
                put_frame(out, query, &series);
                series.truncate(head.len());
            }
            put_bytes(&mut series, 2, &one);
        }
        if series.len() > head.len() {
            put_frame(out, query, &series);
        }
    }
}

fn put_frame(out: &mut Vec<u8>, query: usize, series: &[u8]) {
    let mut message = Vec::with_capacity(series.len() + AROUND);
    put_bytes(&mut message, 1, series);
    if query > 0 {
        put_int(&mut message, 2, query as u64);
    }
    put_varint(out, message.len() as u64);
    out.extend_from_slice(&crc32c(&message).to_be_bytes());
    out.extend_from_slice(&message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_chunk::encode_xor;
    use koios_model::Columns;
    use koios_proto::prometheus as wire;
    use prost::Message;

    fn chunks(n: i64, per_chunk: usize) -> Vec<Chunk> {
        let mut columns = Columns::default();
        (0..n).for_each(|k| columns.push(1000 * k, (k * k) as f64));
        encode_xor(&columns, per_chunk)
    }

    fn read(mut bytes: &[u8]) -> Vec<(usize, wire::ChunkedReadResponse)> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let len = prost::decode_length_delimiter(bytes).unwrap();
            let (sum, rest) = bytes[prost::length_delimiter_len(len)..].split_at(4);
            let (message, rest) = rest.split_at(len);
            assert_eq!(sum, crc32c(message).to_be_bytes());
            out.push((len, wire::ChunkedReadResponse::decode(message).unwrap()));
            bytes = rest;
        }
        out
    }

    #[test]
    fn golden_frame() {
        let chunk = Chunk {
            min_time: 1,
            max_time: 300,
            encoding: Encoding::FloatHistogram,
            data: bytes::Bytes::from_static(b"abc"),
        };
        let mut out = Vec::new();
        Frames::default().put(&mut out, 2, &Labels::from_pairs([("a", "b")]), &[chunk]);
        let message = [
            0x0a, 0x16, // chunked_series
            0x0a, 0x06, 0x0a, 1, b'a', 0x12, 1, b'b', // a label
            0x12, 0x0c, 0x08, 1, 0x10, 0xac, 0x02, 0x18, 3, 0x22, 3, b'a', b'b', b'c', // a chunk
            0x10, 2, // query_index
        ];
        assert_eq!(out[0], 26);
        assert_eq!(out[5..], message);
        // CRC-32C by its definition, bit by bit.
        let crc = message.iter().fold(u32::MAX, |crc, b| {
            (0..8).fold(crc ^ u32::from(*b), |c, _| c >> 1 ^ (0x82f6_3b78 * (c & 1)))
        });
        assert_eq!(out[1..5], (!crc).to_be_bytes());
    }

    #[test]
    fn a_long_series_goes_on_and_frames_hold_one_series() {
        let (a, b) = (Labels::from_pairs([("__name__", "a")]), Labels::from_pairs([("__name__", "b")]));
        let (long, short) = (chunks(600, 20), chunks(3, 120));
        let mut out = Vec::new();
        let frames = Frames { bytes_max: 400 };
        frames.put(&mut out, 0, &a, &long);
        frames.put(&mut out, 0, &b, &short);
        frames.put(&mut out, 1, &b, &[]);
        let got = read(&out);
        assert!(got.len() > 4, "{}", got.len());
        assert!(got.iter().all(|(len, m)| *len <= 400 && m.chunked_series.len() == 1 && m.query_index == 0));
        let data = |name: &str| -> Vec<Vec<u8>> {
            let of = |m: &&wire::ChunkedSeries| m.labels[0].value == name;
            let series = got.iter().flat_map(|(_, m)| &m.chunked_series).filter(of);
            series.flat_map(|s| &s.chunks).map(|c| c.data.clone()).collect()
        };
        assert_eq!(data("a"), long.iter().map(|c| c.data.to_vec()).collect::<Vec<_>>());
        assert_eq!(data("b").len(), 1);
    }

    #[test]
    fn samples_become_chunks_of_120() {
        let mut columns = Columns::default();
        (0..250).for_each(|k| columns.push(k, k as f64));
        let mut out = Vec::new();
        Frames::default().put_samples(&mut out, 0, &Labels::from_pairs([("a", "b")]), &columns);
        let got = read(&out);
        let bounds: Vec<_> = got[0].1.chunked_series[0]
            .chunks
            .iter()
            .map(|c| (c.min_time_ms, c.max_time_ms, c.r#type))
            .collect();
        assert_eq!((got.len(), bounds), (1, vec![(0, 119, 1), (120, 239, 1), (240, 249, 1)]));
        let mut newer = chunks(3, 120);
        assert!(can_be_sent(&newer));
        newer[0].encoding = Encoding::Xor2;
        assert!(!can_be_sent(&newer));
    }

    #[test]
    fn a_chunk_too_long_for_a_frame_goes_alone() {
        let mut out = Vec::new();
        Frames { bytes_max: 10 }.put(&mut out, 0, &Labels::from_pairs([("a", "b")]), &chunks(50, 10));
        assert_eq!(read(&out).len(), 5);
    }
}
