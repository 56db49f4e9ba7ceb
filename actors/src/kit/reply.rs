//! Why an actor gave no answer, as one of our codes.

use actix::MailboxError;
use koios_model::{Code, Coded};

/// A question that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The mailroom is full.
    #[error("{actor} is overloaded: {bound} messages wait already")]
    Overloaded {
        /// Actor name.
        actor: &'static str,
        /// Permits of the mailroom.
        bound: usize,
    },
    /// The actor is down; its warden is starting it again.
    #[error("{actor} is restarting")]
    Down {
        /// Actor name.
        actor: &'static str,
    },
    /// The deadline passed while waiting.
    #[error("{actor} did not answer in time")]
    Late {
        /// Actor name.
        actor: &'static str,
    },
}

impl AskError {
    pub(crate) fn from_mailbox(actor: &'static str, e: MailboxError) -> Self {
        match e {
            MailboxError::Closed => AskError::Down { actor },
            MailboxError::Timeout => AskError::Late { actor },
        }
    }
}

impl Coded for AskError {
    fn code(&self) -> Code {
        match self {
            AskError::Overloaded { .. } | AskError::Down { .. } => Code::Unavailable,
            AskError::Late { .. } => Code::Timeout,
        }
    }
}
