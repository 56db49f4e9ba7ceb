//! Envelopes, errors and their statuses. The one place where a code becomes an HTTP status.

use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, ResponseError};
use koios_model::{Code, Coded};
use koios_query::{Gap, QueryError};

use super::json::push_string;

/// Most warnings, and most infos, in one answer.
pub const NOTES_MAX: usize = 10;

/// An error as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// What kind.
    pub code: Code,
    /// In words.
    pub message: String,
}

impl ApiError {
    /// A request that is wrong.
    pub fn bad_data(message: String) -> Self {
        Self { code: Code::BadData, message }
    }

    /// Something that may be there later.
    pub fn unavailable(message: String) -> Self {
        Self { code: Code::Unavailable, message }
    }

    /// A fault of ours.
    pub fn internal(message: &str) -> Self {
        Self { code: Code::Internal, message: message.to_owned() }
    }
}

impl ApiError {
    /// The answer where people or programs expect plain text.
    pub fn plain(&self) -> HttpResponse {
        let response = &mut HttpResponse::build(self.status_code());
        response.content_type("text/plain; charset=utf-8").body(format!("{}\n", self.message))
    }
}

impl From<QueryError> for ApiError {
    fn from(e: QueryError) -> Self {
        let message = match &e {
            QueryError::Parse(p) => format!("invalid parameter \"query\": {p}"),
            other => other.to_string(),
        };
        Self { code: e.code(), message }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Status of a code. Prometheus answers 500 for `unavailable`; where Koios says it, it means "ask again",
/// which clients only read from 503.
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::BadData => StatusCode::BAD_REQUEST,
        Code::Execution => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Timeout | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Code::Denied => StatusCode::FORBIDDEN,
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        status(self.code)
    }

    fn error_response(&self) -> HttpResponse {
        let mut body = String::from("{\"status\":\"error\",\"errorType\":");
        push_string(&mut body, self.code.error_type());
        body.push_str(",\"error\":");
        push_string(&mut body, &self.message);
        body.push('}');
        HttpResponse::build(self.status_code()).content_type(ContentType::json()).body(body)
    }
}

/// Warnings and infos of an answer.
#[derive(Debug, Default)]
pub struct Notes {
    /// Shown as warnings.
    pub warnings: Vec<String>,
    /// Shown as infos.
    pub infos: Vec<String>,
}

impl Notes {
    /// Adds what may be missing.
    pub fn gaps(mut self, gaps: &[Gap]) -> Self {
        self.warnings.extend(gaps.iter().map(Gap::to_warning));
        self
    }

    /// Notes that a result was cut.
    pub fn truncated(mut self) -> Self {
        self.warnings.push("results truncated due to limit".to_owned());
        self
    }
}

/// `{"status":"success","data":…}` with its notes.
pub fn success(data: &str, notes: Notes) -> HttpResponse {
    let mut body = String::with_capacity(data.len() + 64);
    body.push_str("{\"status\":\"success\",\"data\":");
    body.push_str(data);
    push_end(&mut body, notes);
    HttpResponse::Ok().content_type(ContentType::json()).body(body)
}

/// What closes the body of a success after its data.
pub fn push_end(body: &mut String, notes: Notes) {
    push_notes(body, "warnings", "warning", notes.warnings);
    push_notes(body, "infos", "info", notes.infos);
    body.push('}');
}

fn push_notes(body: &mut String, key: &str, one: &str, mut notes: Vec<String>) {
    if notes.is_empty() {
        return;
    }
    if notes.len() > NOTES_MAX {
        let omitted = notes.len() - NOTES_MAX;
        notes.truncate(NOTES_MAX);
        notes.push(format!("{omitted} more {one} annotations omitted"));
    }
    body.push_str(&format!(",\"{key}\":["));
    for (i, note) in notes.iter().enumerate() {
        if i > 0 {
            body.push(',');
        }
        push_string(body, note);
    }
    body.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_capped_and_absent_when_empty() {
        let mut body = String::new();
        push_notes(&mut body, "warnings", "warning", Vec::new());
        assert_eq!(body, "");
        push_notes(&mut body, "infos", "info", (0..13).map(|i| i.to_string()).collect());
        assert!(body.ends_with(",\"9\",\"3 more info annotations omitted\"]"), "{body}");
    }

    #[test]
    fn statuses() {
        for (code, want) in [
            (Code::BadData, 400),
            (Code::Execution, 422),
            (Code::Canceled, 499),
            (Code::Timeout, 503),
            (Code::Internal, 500),
        ] {
            assert_eq!(status(code).as_u16(), want);
        }
    }
}
