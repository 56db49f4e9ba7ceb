//! Why an evaluation did not give a result.

use koios_model::{Code, Coded};

/// An evaluation error; `Display` is the text Prometheus' users know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The data or a parameter value makes the expression impossible.
    #[error("{0}")]
    Execution(String),
    /// The request itself is wrong.
    #[error("{0}")]
    BadData(String),
    /// The deadline passed.
    #[error("query timed out in expression evaluation")]
    Timeout,
    /// Someone cancelled it.
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// More samples than allowed.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// More bytes than allowed.
    #[error(
        "query needs more than {0} bytes of memory; narrow the selectors or the range, or raise the limit"
    )]
    TooManyBytes(u64),
    /// More series than allowed.
    #[error("query selects more than {0} series; narrow the selectors or raise the limit")]
    TooManySeries(u64),
    /// A source failed.
    #[error("expanding series: {0}")]
    Source(String),
}

impl EvalError {
    pub(crate) fn exec(text: impl Into<String>) -> Self {
        Self::Execution(text.into())
    }
}

impl Coded for EvalError {
    fn code(&self) -> Code {
        match self {
            Self::BadData(_) => Code::BadData,
            Self::Timeout => Code::Timeout,
            Self::Canceled => Code::Canceled,
            Self::Execution(_)
            | Self::TooManySamples
            | Self::TooManyBytes(_)
            | Self::TooManySeries(_)
            | Self::Source(_) => Code::Execution,
        }
    }
}
