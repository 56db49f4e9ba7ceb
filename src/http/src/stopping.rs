//! `/-/safe-to-stop` and `/-/drain`: may this node stop, and make it stop in order.

use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use koios_query::picture::stop;

use crate::state::{ApiState, Readiness};

/// `/-/safe-to-stop`: 200 when nothing is missing and writes find their quorum while this node is away, else 409 with
/// the reasons; 503 while the node cannot tell.
pub async fn safe_to_stop(state: web::Data<ApiState>) -> HttpResponse {
    let (status, body) = match state.readiness() {
        Readiness::Stopping => (StatusCode::OK, "yes: this node is stopping already\n".to_owned()),
        Readiness::Starting => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no: this node is starting and cannot tell; ask again\n".to_owned(),
        ),
        Readiness::Ready => state.front.look(state.clock.now_ms(), |facts| match &stop::reasons(facts)[..] {
            [] => (StatusCode::OK, format!("{}\n", stop::yes(facts.view))),
            reasons => (StatusCode::CONFLICT, reasons.iter().map(|r| format!("no: {r}\n")).collect()),
        }),
    };
    HttpResponse::build(status).content_type(ContentType::plaintext()).body(body)
}

/// `/-/drain`: what SIGTERM does.
pub async fn drain(state: web::Data<ApiState>) -> HttpResponse {
    if !state.lifecycle {
        return HttpResponse::Forbidden()
            .content_type(ContentType::plaintext())
            .body("Lifecycle API is not enabled; start the node with --web.enable-lifecycle.");
    }
    state.node.drain();
    HttpResponse::Accepted()
        .content_type(ContentType::plaintext())
        .body("draining: targets are handed over, the head is uploaded, then the process ends\n")
}
