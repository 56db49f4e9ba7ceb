//! `/-/healthy`, `/-/ready`, `/-/reload`, `/metrics`: what machines ask of a process.

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};

use crate::state::{ApiState, Readiness};

/// `/-/healthy`.
pub async fn healthy() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::plaintext()).body("Koios is Healthy.\n")
}

/// `/-/ready`.
pub async fn ready(state: web::Data<ApiState>) -> HttpResponse {
    match (state.readiness(), state.node.impediment()) {
        (readiness, Some(why)) => service_unavailable(readiness, &format!("Service Unavailable: {why}\n")),
        (Readiness::Ready, None) => {
            HttpResponse::Ok().content_type(ContentType::plaintext()).body("Koios is Ready.\n")
        }
        (other, None) => not_ready(other),
    }
}

/// The answer of everything that needs a ready node.
pub fn not_ready(readiness: Readiness) -> HttpResponse {
    service_unavailable(readiness, "Service Unavailable")
}

fn service_unavailable(readiness: Readiness, body: &str) -> HttpResponse {
    let stopping = readiness == Readiness::Stopping;
    HttpResponse::ServiceUnavailable()
        .content_type(ContentType::plaintext())
        .insert_header(("X-Prometheus-Stopping", if stopping { "true" } else { "false" }))
        .body(body.to_owned())
}

/// `/-/reload`.
pub async fn reload(state: web::Data<ApiState>) -> HttpResponse {
    if !state.lifecycle {
        return HttpResponse::Forbidden()
            .content_type(ContentType::plaintext())
            .body("Lifecycle API is not enabled.");
    }
    match state.node.reload().await {
        Ok(()) => HttpResponse::Ok().finish(),
        Err(why) => HttpResponse::InternalServerError()
            .content_type(ContentType::plaintext())
            .body(format!("failed to reload config: {why}\n")),
    }
}

/// A lifecycle path asked with another method.
pub async fn only_post() -> HttpResponse {
    HttpResponse::MethodNotAllowed()
        .content_type(ContentType::plaintext())
        .body("Only POST or PUT requests allowed")
}

/// `/metrics`.
pub async fn metrics(state: web::Data<ApiState>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(state.node.metrics())
}
