//! Remote write, receiving side: from the bytes of a request to a batch, and from what became of it to an answer. And
//! the formats of remote read (`read`).
//!
//! Owns what one process can decide about pushed data: which protocol it is (`negotiate`), unpacking it within bounds
//! (`unpack`, `memory`), walking its protobuf in place (`wire`, `v1`, `v2`), checking labels and histograms (`labels`,
//! `histogram`), the words about what was refused (`faults`), and the status that makes each sender do the right thing
//! (`answer`). `receiver` is all of it in order. `encode` and `relay` are how nodes hand batches to one another.
//!
//! Refuses: sockets and HTTP frameworks, storage, and the distribution over nodes. The last two stand behind
//! `PushPort`, which takes a batch and says what became of each sample.
//!
//! Invariants: nothing of a request is pushed before all of it was decoded; no allocation is sized by what a request
//! claims, only by what it carries; a sample is stored, or named as refused, or the whole request is to be sent again.

pub mod answer;
mod assembly;
pub mod batch;
pub mod counters;
pub mod encode;
pub mod faults;
mod histogram;
mod labels;
pub mod limits;
mod memory;
pub mod negotiate;
pub mod port;
pub mod read;
pub mod receiver;
pub mod relay;
pub mod unpack;
pub mod v1;
pub mod v2;
mod wire;

pub use answer::Answer;
pub use assembly::{DecodeError, Decoded};
pub use batch::{PushBatch, PushExemplar, PushSample, PushSeries, PushValue};
pub use counters::Counters;
pub use faults::{Faults, Reason};
pub use limits::Limits;
pub use negotiate::{Encoding, Head, Message};
pub use port::{PushError, PushOutcome, PushPort};
pub use receiver::{Intake, Opened, Receiver};
