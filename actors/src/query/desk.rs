//! QueryDesk: owns the list of active queries and the places to run one.
//!
//! Takes `Admit` and `Leave`. Gives a ticket at once or when a place comes free, in order of arrival; a
//! waiter whose caller went away is skipped. Executes nothing. Bound: 512 messages, 256 waiters. On death:
//! starts with all places free; the tickets of the old desk come back to nobody.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use async_trait::async_trait;
use koios_query::{Admission, QueryError, Ticket};
use tokio::sync::oneshot;

use crate::kit::{Flare, Letter, Mailroom};

/// Most messages.
pub const BOUND: usize = 512;
/// Most queries waiting for a place.
pub const WAITERS_MAX: usize = 256;
/// Characters of a query kept in the list.
const SHOWN_MAX: usize = 1024;

/// A query that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveQuery {
    /// Number of the ticket.
    pub id: u64,
    /// PromQL, cut to 1,024 characters.
    pub query: String,
}

/// The actor.
pub struct QueryDesk {
    places: usize,
    next: u64,
    active: BTreeMap<u64, ActiveQuery>,
    waiting: VecDeque<(String, oneshot::Sender<Held>)>,
    room: Mailroom<QueryDesk>,
    _flare: Flare,
}

/// A place; given back on drop, wherever the ticket is by then.
struct Held {
    id: u64,
    room: Mailroom<QueryDesk>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.room.tell(Leave(self.id)).is_err() {
            // The mailroom is full of admissions; the place must come back all the same.
            let (room, id) = (self.room.clone(), self.id);
            if let Ok(handle) = tokio::runtime::Handle::try_current() {
                handle.spawn(async move {
                    let _ = room.ask(Leave(id), Duration::from_secs(60)).await;
                });
            }
        }
    }
}

impl QueryDesk {
    /// A desk with so many places, behind `room`.
    pub fn new(places: usize, room: Mailroom<QueryDesk>, flare: Flare) -> Self {
        Self {
            places: places.max(1),
            next: 1,
            active: BTreeMap::new(),
            waiting: VecDeque::new(),
            room,
            _flare: flare,
        }
    }

    fn seat(&mut self, query: String, reply: oneshot::Sender<Held>) {
        let id = self.next;
        self.next += 1;
        let shown = query.chars().take(SHOWN_MAX).collect();
        self.active.insert(id, ActiveQuery { id, query: shown });
        // When the caller is gone the place comes back through the drop of what was sent.
        let _ = reply.send(Held { id, room: self.room.clone() });
    }
}

impl Actor for QueryDesk {
    type Context = Context<Self>;
}

/// Asks for a place; the answer says where the ticket will arrive.
pub struct Admit(String);

impl Message for Admit {
    type Result = Option<Waiting>;
}

/// A place in the queue.
pub struct Waiting(oneshot::Receiver<Held>);

impl Handler<Letter<Admit>> for QueryDesk {
    type Result = actix::MessageResult<Letter<Admit>>;

    fn handle(&mut self, m: Letter<Admit>, _: &mut Context<Self>) -> actix::MessageResult<Letter<Admit>> {
        let (reply, waiting) = oneshot::channel();
        if self.active.len() < self.places {
            self.seat(m.body.0, reply);
        } else {
            self.waiting.retain(|(_, reply)| !reply.is_closed());
            if self.waiting.len() >= WAITERS_MAX {
                return actix::MessageResult(None);
            }
            self.waiting.push_back((m.body.0, reply));
        }
        actix::MessageResult(Some(Waiting(waiting)))
    }
}

struct Leave(u64);

impl Message for Leave {
    type Result = ();
}

impl Handler<Letter<Leave>> for QueryDesk {
    type Result = ();

    fn handle(&mut self, m: Letter<Leave>, _: &mut Context<Self>) {
        if self.active.remove(&m.body.0).is_none() {
            return;
        }
        while self.active.len() < self.places {
            let Some((query, reply)) = self.waiting.pop_front() else { break };
            if !reply.is_closed() {
                self.seat(query, reply);
            }
        }
    }
}

/// Lists the active queries.
pub struct Active;

impl Message for Active {
    type Result = Vec<ActiveQuery>;
}

impl Handler<Letter<Active>> for QueryDesk {
    type Result = Vec<ActiveQuery>;

    fn handle(&mut self, _: Letter<Active>, _: &mut Context<Self>) -> Vec<ActiveQuery> {
        self.active.values().cloned().collect()
    }
}

/// The desk as the query crate wants it.
pub struct DeskAdmission(pub Mailroom<QueryDesk>);

#[async_trait]
impl Admission for DeskAdmission {
    async fn admit(&self, query: &str, patience_ms: u64) -> Result<Ticket, QueryError> {
        let patience = Duration::from_millis(patience_ms.min(600_000));
        let overloaded =
            || QueryError::Overloaded("too many queries wait already; try again in a moment".to_owned());
        let seat = self.0.ask(Admit(query.to_owned()), patience).await;
        let waiting = seat.map_err(|e| QueryError::Overloaded(e.to_string()))?.ok_or_else(overloaded)?;
        match tokio::time::timeout(patience, waiting.0).await {
            Ok(Ok(held)) => Ok(Ticket::new(held)),
            Ok(Err(_)) => Err(QueryError::Overloaded("the query desk is restarting".to_owned())),
            Err(_) => Err(QueryError::Overloaded("no place to run the query came free in time".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit::Warden;

    #[actix::test]
    async fn places_are_limited_and_come_back() {
        let arbiter = actix::Arbiter::new();
        let room: Mailroom<QueryDesk> = Mailroom::new("desk", BOUND);
        let inner = room.clone();
        let warden =
            Warden::watch(room.clone(), arbiter.handle(), move |f| QueryDesk::new(1, inner.clone(), f));
        let desk = DeskAdmission(room.clone());
        let first = desk.admit("first", 1000).await.unwrap();
        assert!(matches!(desk.admit("second", 20).await, Err(QueryError::Overloaded(_))));
        let patience = Duration::from_secs(5);
        assert_eq!(room.ask(Active, patience).await.unwrap()[0].query, "first");
        drop(first);
        let third = desk.admit("third", 5000).await.unwrap();
        drop(third);
        warden.release();
        arbiter.stop();
    }
}
