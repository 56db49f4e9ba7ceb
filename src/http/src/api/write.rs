//! `/api/v1/write`, and the same under the paths of Mimir and Thanos: remote write 1.0 and 2.0.
//!
//! Reads the body piece by piece into the receiver, which owns all bounds and all decisions; decoding and storing run
//! on the network runtime, the decoding of great bodies beside it. Answers are plain text, as Prometheus gives them.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use futures::StreamExt;
use koios_remote::answer::{Answer, STORED_HEADERS};
use koios_remote::negotiate::Said;
use koios_remote::{Intake, Receiver};

use crate::codec::reply::ApiError;
use crate::state::ApiState;

/// Prometheus', Mimir's and Thanos' path below `/api/v1`.
pub const PATHS: [&str; 3] = ["/write", "/push", "/receive"];

/// Packed bytes of a body that is opened on the network runtime itself: a few thousand samples, a millisecond or two.
const INLINE_BYTES_MAX: usize = 256 << 10;

const OFF: &str = "remote write receiver needs to be enabled with --web.enable-remote-write-receiver\n";

/// Takes a request.
///
/// # Errors
/// `internal` when the work was lost; everything else is an answer of the protocol.
pub async fn handle(
    state: web::Data<ApiState>,
    request: HttpRequest,
    body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let Some(receiver) = state.receiver.clone() else {
        return Ok(HttpResponse::NotFound().content_type("text/plain; charset=utf-8").body(OFF));
    };
    let intake = match collect(&receiver, request.headers(), body).await {
        Ok(intake) => intake,
        Err(answer) => return Ok(reply(answer)),
    };
    let net = state.net.clone();
    let work = async move {
        let opened = if intake.bytes() > INLINE_BYTES_MAX {
            let receiver = receiver.clone();
            let opening = net.spawn_blocking(move || receiver.open(intake));
            opening.await.map_err(|_| ApiError::internal("the request was lost (a bug; see the log)"))?
        } else {
            receiver.open(intake)
        };
        Ok::<_, ApiError>(match opened {
            Ok(opened) => receiver.store(opened).await,
            Err(answer) => answer,
        })
    };
    state.on_net(work).await.map(reply)
}

async fn collect(
    receiver: &Arc<Receiver>,
    headers: &HeaderMap,
    mut body: web::Payload,
) -> Result<Intake, Answer> {
    // What is not text is a type that is not known.
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let mut intake = receiver.begin(Said {
        content_type: text(header::CONTENT_TYPE.as_str()),
        content_encoding: text(header::CONTENT_ENCODING.as_str()),
        vm_version: text("x-victoriametrics-remote-write-version"),
    })?;
    while let Some(piece) = body.next().await {
        match piece {
            Ok(piece) => receiver.collect(&mut intake, &piece)?,
            Err(e) => return Err(receiver.broken_off(&intake, &e.to_string())),
        }
    }
    Ok(intake)
}

fn reply(answer: Answer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    if let Some(seconds) = answer.retry_after_seconds() {
        response.insert_header((header::RETRY_AFTER, seconds));
    }
    if let Some(stored) = answer.stored {
        for (name, n) in STORED_HEADERS.into_iter().zip([stored.samples, stored.histograms, stored.exemplars])
        {
            response.insert_header((name, n));
        }
    }
    if answer.body.is_empty() {
        return response.finish();
    }
    let mut body = answer.body;
    if !body.ends_with('\n') {
        body.push('\n');
    }
    response.content_type("text/plain; charset=utf-8").body(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_remote::answer::Stored;

    #[test]
    fn headers_of_an_answer() {
        let stored = Some(Stored { samples: 1, histograms: 2, exemplars: 3 });
        let retry_after = Some(std::time::Duration::from_secs(4));
        let r = reply(Answer { status: 503, body: "later".to_owned(), retry_after, stored });
        let of = |name: &str| r.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(r.status(), 503);
        assert_eq!(of("retry-after").as_deref(), Some("4"));
        assert_eq!(STORED_HEADERS.map(|n| of(n).unwrap()), ["1", "2", "3"]);
        let r = reply(Answer { status: 204, ..Answer::default() });
        assert!(STORED_HEADERS.iter().all(|n| r.headers().get(*n).is_none()));
        assert!(r.headers().get("content-type").is_none());
    }
}
