//! The answer to a request: a status that makes each sender do the right thing, and words.
//!
//! Owns the whole map. Prometheus drops a batch on any 4xx and sends it again on 5xx, honouring `Retry-After`; it drops
//! on 429 too unless told otherwise, so overload is 503. vmagent takes 400 as "speak another protocol" and sends again
//! for ever on other 4xx except 409, so data errors are 409 there. A sender of version 2 takes a success without the
//! three written headers as a total failure, so version 2 always has them, and version 1 never.

use std::time::Duration;

use crate::assembly::DecodeError;
use crate::negotiate::{Head, Message};
use crate::port::PushError;
use crate::unpack::UnpackError;

/// How long a sender waits when there is no room for its request.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// What was stored of a version 2 request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Floats, repetitions included.
    pub samples: u64,
    /// Native histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

/// Names of the headers of `Stored`, in its order.
pub const STORED_HEADERS: [&str; 3] = [
    "X-Prometheus-Remote-Write-Samples-Written",
    "X-Prometheus-Remote-Write-Histograms-Written",
    "X-Prometheus-Remote-Write-Exemplars-Written",
];

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Plain text; empty with 204.
    pub body: String,
    /// For `Retry-After`.
    pub retry_after: Option<Duration>,
    /// For the headers of version 2; `None` for version 1.
    pub stored: Option<Stored>,
}

impl Answer {
    pub(crate) fn unsupported(body: String) -> Self {
        Self { status: 415, body, ..Self::default() }
    }

    fn of(head: &Head, status: u16, body: String) -> Self {
        let status = if status == 400 && head.vmagent { 409 } else { status };
        let stored = (head.message == Message::V2).then(Stored::default);
        Self { status, body, retry_after: None, stored }
    }

    /// The request is wrong as a whole; nothing is stored.
    pub(crate) fn bad(head: &Head, why: String) -> Self {
        Self::of(head, 400, why)
    }

    /// All of it should be sent again.
    fn again(head: &Head, status: u16, why: String, after: Duration) -> Self {
        Self { retry_after: Some(after), ..Self::of(head, status, why) }
    }

    /// There is no room for the request now.
    pub(crate) fn no_room(head: &Head, max: u64) -> Self {
        let why = format!("requests of {max} bytes are being worked on already; send it again later");
        Self::again(head, 503, why, ROOM_RETRY)
    }

    /// It was decoded and pushed; `refused` is empty when all of it is stored.
    pub(crate) fn pushed(head: &Head, stored: Stored, refused: String) -> Self {
        let status = if refused.is_empty() { 204 } else { 400 };
        let answer = Self::of(head, status, refused);
        Self { stored: answer.stored.map(|_| stored), ..answer }
    }

    /// What `Retry-After` says: whole seconds, at least one.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|d| d.as_secs() + u64::from(d.subsec_nanos() > 0)).map(|s| s.max(1))
    }

    pub(crate) fn unpack(head: &Head, e: UnpackError) -> Self {
        match e {
            UnpackError::NoRoom(max) => Self::no_room(head, max),
            other => Self::bad(head, other.to_string()),
        }
    }

    pub(crate) fn decode(head: &Head, e: &DecodeError) -> Self {
        Self::bad(head, e.to_string())
    }

    pub(crate) fn push(head: &Head, e: PushError) -> Self {
        match e {
            PushError::Unavailable { why, retry_after } => Self::again(head, 503, why, retry_after),
            PushError::RateLimited { why, retry_after } => Self::again(head, 429, why, retry_after),
            PushError::Refused(why) => Self::bad(head, why),
            PushError::Internal(why) => Self::of(head, 500, why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiate::Encoding;

    const V1: Head = Head { message: Message::V1, encoding: Encoding::Snappy, vmagent: false };
    const V2: Head = Head { message: Message::V2, ..V1 };
    const VM: Head = Head { encoding: Encoding::Zstd, vmagent: true, ..V1 };

    #[test]
    fn statuses_by_sender() {
        let wait = Duration::from_millis(1500);
        let unavailable = PushError::Unavailable { why: "no quorum".to_owned(), retry_after: wait };
        let a = Answer::push(&V2, unavailable.clone());
        assert_eq!((a.status, a.retry_after_seconds(), a.stored), (503, Some(2), Some(Stored::default())));
        assert_eq!(Answer::push(&VM, unavailable).status, 503);
        let limited = PushError::RateLimited { why: String::new(), retry_after: Duration::ZERO };
        let a = Answer::push(&V1, limited);
        assert_eq!((a.status, a.retry_after_seconds(), a.stored), (429, Some(1), None));
        let refused = || PushError::Refused("no".to_owned());
        assert_eq!((Answer::push(&V1, refused()).status, Answer::push(&VM, refused()).status), (400, 409));
        assert_eq!(Answer::push(&VM, PushError::Internal(String::new())).status, 500);
        assert_eq!(Answer::no_room(&V1, 1).retry_after_seconds(), Some(1));
    }

    #[test]
    fn only_version_2_says_what_is_stored() {
        let stored = Stored { samples: 1, histograms: 2, exemplars: 3 };
        let ok = |head| Answer::pushed(head, stored, String::new());
        assert_eq!((ok(&V1).status, ok(&V1).stored), (204, None));
        assert_eq!((ok(&V2).status, ok(&V2).stored), (204, Some(stored)));
        let partly = Answer::pushed(&V2, stored, "1 refused".to_owned());
        assert_eq!((partly.status, partly.stored), (400, Some(stored)));
    }
}
