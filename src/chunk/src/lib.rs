//! Chunks: runs of consecutive samples of one series, compressed, as Prometheus stores them.
//!
//! Owns the encodings (XOR floats, native histograms), the `Chunk` that travels in query replies, `SeriesChunks` that head and
//! block both answer with, and the varints that all of Koios' storage formats share. Refuses files, series
//! identity, and merging of overlapping chunks but for the choice between replicas (`penalty`), which storage and queries share.
//!
//! Invariants: bytes written for an encoding are the bytes Prometheus would write for the same samples; no
//! input, however hostile, panics or makes a reader allocate more than a small multiple of its length.
//!
//! Chunks with start timestamps (encodings 4 to 6) pass through untouched; decoding them answers
//! `ChunkError::Unsupported`. So does Thanos' encoding 255 as a whole, of which `Chunk::aggregate` gives the parts.

mod aggregate;
mod bits;
mod chunk;
mod encode;
mod histogram;
pub mod penalty;
mod typed;
mod varbit;
pub mod varint;
mod xor;
mod xor_bulk;
mod xor_read;

pub use aggregate::Aggregate;
pub use chunk::{Chunk, ChunkError, Encoding, SeriesChunks, read_samples};
pub use encode::encode;
pub use histogram::{Coder, FloatCoder, HistogramAppender, HistogramIter, IntCoder, IntHistogram};
pub use typed::{Packer, Typed};
pub use xor::{XOR_HEADER_BYTES, XorAppender, encode_xor};
pub use xor_bulk::decode_xor;
pub use xor_read::XorIter;
