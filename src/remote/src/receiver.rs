//! All of a request in order: negotiate, collect, unpack, decode, push, answer.
//!
//! Owns the bound on all requests together and the counts. A request is decoded whole before anything of it is pushed.
//! What senders do wrong is logged the first time and then ever more rarely, because they repeat it with each request.

use std::sync::Arc;

use crate::answer::{Answer, Stored};
use crate::assembly::{DecodeError, Decoded};
use crate::batch::PushBatch;
use crate::counters::{Counters, Outcome, add};
use crate::faults::{Faults, Reason, shown};
use crate::limits::Limits;
use crate::memory::{Held, Room};
use crate::negotiate::{Head, Message, Said};
use crate::port::{PushOutcome, PushPort};
use crate::{unpack, v1, v2};

/// Takes remote write requests. Share it by `Arc`.
pub struct Receiver {
    port: Arc<dyn PushPort>,
    limits: Limits,
    accepted: Vec<Message>,
    room: Arc<Room>,
    counters: Counters,
}

/// A body that is coming in.
#[derive(Debug)]
pub struct Intake {
    head: Head,
    body: Vec<u8>,
    held: Held,
}

impl Intake {
    /// Bytes that came in.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }
}

/// A decoded request that is to be stored.
#[derive(Debug)]
pub struct Opened {
    head: Head,
    decoded: Decoded,
    _held: Held,
}

impl Receiver {
    /// Over a port, taking the `accepted` messages.
    pub fn new(port: Arc<dyn PushPort>, limits: Limits, accepted: Vec<Message>) -> Self {
        let room = Room::new(limits.bytes_in_flight);
        Self { port, limits, accepted, room, counters: Counters::default() }
    }

    /// The counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes of the requests that are being worked on.
    pub fn bytes_in_flight(&self) -> u64 {
        self.room.taken()
    }

    /// Begins a request.
    ///
    /// # Errors
    /// The answer to give at once.
    pub fn begin(&self, said: Said<'_>) -> Result<Intake, Answer> {
        let head = Head::read(said, &self.accepted).inspect_err(|_| {
            add(&self.counters.unsupported, 1);
        })?;
        Ok(Intake { head, body: Vec::new(), held: Held::none(&self.room) })
    }

    /// Adds a piece of the body.
    ///
    /// # Errors
    /// The answer to give at once: the body is too long, or all requests together are.
    pub fn collect(&self, intake: &mut Intake, piece: &[u8]) -> Result<(), Answer> {
        if intake.body.len() + piece.len() > self.limits.body_bytes {
            let max = self.limits.body_bytes;
            let why = format!("the body has more than {max} bytes; fix: send fewer samples per request");
            return Err(self.count(&intake.head, Answer::bad(&intake.head, why)));
        }
        if !intake.held.take(piece.len()) {
            let answer = Answer::no_room(&intake.head, self.limits.bytes_in_flight);
            return Err(self.count(&intake.head, answer));
        }
        intake.body.extend_from_slice(piece);
        Ok(())
    }

    /// The body could not be read to its end.
    pub fn broken_off(&self, intake: &Intake, why: &str) -> Answer {
        let why = format!("the body ended early: {why}");
        self.count(&intake.head, Answer::bad(&intake.head, why))
    }

    /// Unpacks and decodes the collected body. Takes the CPU for as long as the body is: about half a microsecond a
    /// series.
    ///
    /// # Errors
    /// The answer to give: nothing of the request is usable.
    pub fn open(&self, intake: Intake) -> Result<Opened, Answer> {
        let Intake { head, body, mut held } = intake;
        add(&self.counters.bytes, body.len() as u64);
        let opened = unpack::unpack(head.encoding, &body, &self.limits, &mut held)
            .map_err(|e| Answer::unpack(&head, e))
            .and_then(|bytes| {
                decode(head.message, &bytes, &self.limits).map_err(|e| Answer::decode(&head, &e))
            });
        drop(body);
        // The packed and the unpacked body are gone; the batch has taken their place.
        held.give_back();
        let opened = opened.and_then(|decoded| {
            let (bytes, max) = (decoded.batch.memory_bytes(), self.limits.bytes_in_flight);
            if bytes as u64 > max {
                // There never will be room.
                let why = format!("the request takes {bytes} bytes of memory, more than {max}; fix: send fewer samples per request");
                return Err(Answer::bad(&head, why));
            }
            if held.take(bytes) { Ok(decoded) } else { Err(Answer::no_room(&head, max)) }
        });
        match opened {
            Ok(decoded) => Ok(Opened { head, decoded, _held: held }),
            Err(answer) => Err(self.count(&head, answer)),
        }
    }

    /// Pushes what was opened, and says what became of it.
    pub async fn store(&self, opened: Opened) -> Answer {
        let Opened { head, decoded, _held } = opened;
        let answer = self.push(&head, decoded).await;
        self.count(&head, answer)
    }

    async fn push(&self, head: &Head, decoded: Decoded) -> Answer {
        let c = &self.counters;
        add(&c.floats, decoded.floats);
        add(&c.histograms, decoded.histograms);
        add(&c.exemplars, decoded.exemplars);
        if decoded.dropped_series > 0 {
            add(&c.dropped_series, decoded.dropped_series);
            add(&c.dropped_samples, decoded.dropped_samples);
            if add(&c.requests_with_drops, 1).is_power_of_two() {
                let (series, first) = (decoded.dropped_series, decoded.dropped_first.unwrap_or_default());
                tracing::warn!(series, first, "remote write: series with invalid labels dropped");
            }
        }
        let (batch, mut faults) = (Arc::new(decoded.batch), decoded.faults);
        let pushed =
            if batch.is_empty() { Ok(PushOutcome::default()) } else { self.port.push(batch.clone()).await };
        let outcome = match pushed {
            Ok(outcome) => outcome,
            Err(e) => return Answer::push(head, e),
        };
        let stored = settle(&batch, &outcome, &mut faults);
        add(&c.exemplars_rejected, decoded.exemplars - stored.exemplars.min(decoded.exemplars));
        Reason::ALL.iter().for_each(|r| c.reject(*r, faults.count(*r)));
        let words =
            if faults.is_empty() { String::new() } else { faults.text(stored.samples + stored.histograms) };
        Answer::pushed(head, stored, words)
    }

    fn count(&self, head: &Head, answer: Answer) -> Answer {
        let outcome = match answer.status {
            204 => Outcome::Stored,
            400 | 409 => Outcome::Refused,
            _ => Outcome::Again,
        };
        let n = self.counters.request(head.message, outcome);
        if outcome != Outcome::Stored && n.is_power_of_two() {
            let why = answer.body.lines().next().unwrap_or_default();
            tracing::warn!(
                status = answer.status,
                requests = n,
                why,
                "remote write: request not stored whole"
            );
        }
        answer
    }
}

/// Decodes an unpacked body.
///
/// # Errors
/// When nothing of it is usable.
pub fn decode(message: Message, body: &[u8], limits: &Limits) -> Result<Decoded, DecodeError> {
    match message {
        Message::V1 => v1::decode(body, limits),
        Message::V2 => v2::decode(body, limits),
    }
}

/// What of the batch is stored; what the port refused joins the faults.
fn settle(batch: &PushBatch, outcome: &PushOutcome, faults: &mut Faults) -> Stored {
    let floats = batch.samples.iter().filter(|s| s.v.is_float()).count() as u64;
    let mut stored = Stored {
        samples: floats,
        histograms: batch.samples.len() as u64 - floats,
        exemplars: (batch.exemplars.len() as u64).saturating_sub(u64::from(outcome.exemplars_rejected)),
    };
    for &(number, reason) in &outcome.rejected {
        let Some(sample) = batch.samples.get(number as usize) else { continue };
        let of_kind = if sample.v.is_float() { &mut stored.samples } else { &mut stored.histograms };
        *of_kind = of_kind.saturating_sub(1);
        faults.add(reason, 1, || {
            let labels = batch.series_of(number).map(|i| shown(&batch.series[i].labels)).unwrap_or_default();
            format!("{labels} at {}", koios_model::timestamp::rfc3339(sample.t))
        });
    }
    stored
}
