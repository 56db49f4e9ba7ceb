//! Chunks: runs of consecutive samples of one series, compressed, as Prometheus stores them.
//!
//! Owns the encodings (XOR today), the `Chunk` that travels in query replies, `SeriesChunks` that head and
//! block both answer with, and the varints that all of Koios' storage formats share. Refuses files, series
//! identity, and merging of overlapping chunks.
//!
//! Invariants: bytes written for an encoding are the bytes Prometheus would write for the same samples; no
//! input, however hostile, panics or makes a reader allocate more than a small multiple of its length.
//!
//! The place of what comes next: histogram and float-histogram codecs become `histogram.rs` and
//! `float_histogram.rs` beside `xor.rs`, Thanos' aggregate chunks `aggr.rs`; until then `Chunk::read` answers
//! `ChunkError::Unsupported` for them while their bytes pass through untouched.

mod bits;
mod chunk;
pub mod varint;
mod xor;
mod xor_bulk;
mod xor_read;

pub use chunk::{Chunk, ChunkError, Encoding, SeriesChunks};
pub use xor::{XOR_HEADER_BYTES, XorAppender, encode_xor};
pub use xor_bulk::decode_xor;
pub use xor_read::XorIter;
