//! Why a query was not answered.

use koios_model::{Code, Coded};
use koios_promql::{EvalError, ParseError};

use crate::completeness::Gap;

/// Errors of the query crate.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The expression does not parse; Prometheus' text.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// The evaluation failed.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The request is wrong.
    #[error("{0}")]
    BadData(String),
    /// The answer would not be whole, and a whole one was asked for.
    #[error("{}", describe(.0))]
    Incomplete(Vec<Gap>),
    /// Too much is going on.
    #[error("{0}")]
    Overloaded(String),
    /// The deadline passed while data was fetched.
    #[error("query timed out in query execution")]
    Timeout,
    /// More series or bytes than a query may fetch.
    #[error("{0}")]
    Limit(String),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

fn describe(gaps: &[Gap]) -> String {
    let list: Vec<String> = gaps.iter().take(5).map(Gap::to_warning).collect();
    format!("{}; ask again, or accept a partial answer with partial_response=true", list.join("; "))
}

impl Coded for QueryError {
    fn code(&self) -> Code {
        match self {
            QueryError::Parse(_) | QueryError::BadData(_) => Code::BadData,
            QueryError::Eval(e) => e.code(),
            QueryError::Incomplete(_) | QueryError::Overloaded(_) => Code::Unavailable,
            QueryError::Timeout => Code::Timeout,
            QueryError::Limit(_) => Code::Execution,
            QueryError::Internal(_) => Code::Internal,
        }
    }
}
