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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::{Letter, Mailroom};
    use actix::{Actor, Context, Handler, Message};
    use std::time::Duration;

    struct Deaf;
    impl Actor for Deaf {
        type Context = Context<Self>;
    }
    struct Ask;
    impl Message for Ask {
        type Result = ();
    }
    impl Handler<Letter<Ask>> for Deaf {
        type Result = actix::ResponseFuture<()>;
        fn handle(&mut self, m: Letter<Ask>, _: &mut Context<Self>) -> Self::Result {
            Box::pin(async move {
                let _held = m.permit;
                std::future::pending::<()>().await;
            })
        }
    }

    /// The fault: a plain `send` to an actor that never answers waits for ever, and its errors have no name.
    #[actix::test]
    async fn silence_and_absence_have_names_and_codes() {
        let plain = Deaf.start();
        let room: Mailroom<Deaf> = Mailroom::new("deaf", 2);
        room.publish(Some(plain.clone()));
        let late = room.ask(Ask, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!((late, late.code()), (AskError::Late { actor: "deaf" }, Code::Timeout));
        assert_eq!(AskError::from_mailbox("deaf", MailboxError::Closed).code(), Code::Unavailable);
        assert_eq!(AskError::from_mailbox("deaf", MailboxError::Timeout).code(), Code::Timeout);
        let waiting =
            tokio::time::timeout(Duration::from_millis(50), room.ask(Ask, Duration::from_secs(60))).await;
        assert!(waiting.is_err(), "without patience of its own a caller would wait on");
    }
}
