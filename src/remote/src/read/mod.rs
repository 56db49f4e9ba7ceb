//! Remote read, both sides: from the bytes of a question to what is asked and from series to both answers; and a question
//! and its answers from the asker's side (`asking`).
//!
//! Owns the formats: the question within bounds (`request`), samples in one message (`samples`), chunks in frames
//! (`frames`). The messages are described in `proto/prometheus/read.proto`. Refuses sockets, and where series come from.
//!
//! Invariants: no allocation is sized by what a question claims; an answer of frames has no chunk of an encoding that
//! a client may not know.

pub mod asking;
pub mod frames;
pub mod request;
pub mod samples;

use koios_model::Labels;

use crate::encode::put_bytes;

pub use frames::Frames;
pub use request::{Kind, ReadError, ReadQuery, ReadRequest};
pub use samples::{SAMPLES_MAX, SamplesAnswer, TooMuch};

/// Labels as the field `number` of a message, one entry each.
fn put_labels(out: &mut Vec<u8>, number: u64, labels: &Labels) {
    let mut entry = Vec::with_capacity(64);
    for (name, value) in labels {
        entry.clear();
        put_bytes(&mut entry, 1, name.as_bytes());
        put_bytes(&mut entry, 2, value.as_bytes());
        put_bytes(out, number, &entry);
    }
}
