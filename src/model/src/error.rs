//! The closed set of error codes.
//!
//! Every typed error in Koios says which of these it is; HTTP and gRPC map the code once, in one place
//! each, so the same fault never gets two statuses. The names follow Prometheus' `errorType` where it has
//! one (reference: Prometheus HTTP API, "Format overview").

/// What kind of failure this is, seen from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request itself is wrong; repeating it cannot help.
    BadData,
    /// Evaluating a well-formed request failed.
    Execution,
    /// The caller went away or an operator cancelled.
    Canceled,
    /// The deadline passed.
    Timeout,
    /// A fault of ours.
    Internal,
    /// The named thing does not exist.
    NotFound,
    /// No representation the client accepts.
    NotAcceptable,
    /// Cannot be answered now, may work later or elsewhere: overload, not ready, incomplete.
    Unavailable,
    /// The caller may not do this.
    Denied,
}

impl Code {
    /// Prometheus' `errorType` text.
    pub fn error_type(self) -> &'static str {
        match self {
            Code::BadData => "bad_data",
            Code::Execution => "execution",
            Code::Canceled => "canceled",
            Code::Timeout => "timeout",
            Code::Internal => "internal",
            Code::NotFound => "not_found",
            Code::NotAcceptable => "not_acceptable",
            Code::Unavailable => "unavailable",
            Code::Denied => "forbidden",
        }
    }
}

/// An error that knows its code.
pub trait Coded: std::error::Error {
    /// The code this error maps to.
    fn code(&self) -> Code;
}
