//! One round of questions, carried out: asked twice where a holder is late, left alone where replicas answered.
//!
//! Owns the races. What may be asked twice says `hedge`, whom to ask instead and whether a head can be done without says
//! `rounds`. Whoever loses a race is let go of, which ends the call and the work behind it.
//!
//! Bounds: a round lasts as long as its questions' patience; a question is asked at most twice in it; at most
//! `IN_FLIGHT` at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, Either, join_all, select};
use futures::stream::{self, StreamExt};
use koios_cluster::Member;
use koios_model::BlockId;

use crate::client::CallError;
use crate::hedge::{Class, Hedger, count};
use crate::rounds::{Questions, Rounds};
use crate::scope::{Missing, Scope};

/// Questions on their way at a time.
pub(crate) const IN_FLIGHT: usize = 128;

/// What a holder said beside its data.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// What was not served.
    pub missing: Vec<Missing>,
    /// Where the head's samples went.
    pub moved: Vec<BlockId>,
    /// Nothing was served: ask again in this many parts.
    pub split: u32,
}

/// What came, and the account of it.
pub(crate) type Asked<T> = Result<(T, Account), CallError>;
pub(crate) type Ask<'a, T> = dyn Fn(Arc<Member>, Scope) -> BoxFuture<'a, Asked<T>> + Send + Sync + 'a;
/// A question with its answer.
pub(crate) type Reply<T> = (Arc<Member>, Scope, Asked<T>);

/// How questions of one query are put.
pub(crate) struct Asking<'a, 'b, T> {
    pub ask: &'a Ask<'b, T>,
    pub hedger: &'a Hedger,
    /// This node.
    pub me: &'a str,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Of labels, not of series.
    pub words: bool,
}

impl<T: Send> Asking<'_, '_, T> {
    /// Puts all questions; every one comes back with its answer, or with why there is none.
    pub async fn round(
        &self,
        rounds: &Rounds,
        questions: Questions,
        avoid: &(dyn Fn(&Member) -> bool + Sync),
    ) -> Vec<Reply<T>> {
        let mut waiting: BTreeMap<usize, (Arc<Member>, Scope)> =
            questions.iter().cloned().enumerate().collect();
        let others = |node: &Member, scope: &Scope| rounds.substitutes(node, scope, avoid);
        let others = &others;
        let puts = questions.into_iter().enumerate();
        let puts = puts.map(|(i, (node, scope))| async move { (i, self.put(node, scope, others).await) });
        let mut answers = stream::iter(puts).buffer_unordered(IN_FLIGHT);
        let mut replies: Vec<Reply<T>> = Vec::new();
        let patience = self.hedger.head_patience();
        let mut enough = std::pin::pin!(tokio::time::sleep(patience));
        let mut over = false;
        loop {
            let leave = over && self.can_leave(rounds, &waiting, &replies);
            if leave {
                break;
            }
            tokio::select! {
                next = answers.next() => match next {
                    Some((i, more)) => {
                        waiting.remove(&i);
                        replies.extend(more);
                    }
                    None => break,
                },
                () = &mut enough, if !over => over = true,
            }
        }
        drop(answers);
        for (node, scope) in waiting.into_values() {
            count(&self.hedger.heads_left);
            self.hedger.late(&node.name);
            let why = format!("{}: slower than its replicas by {} ms", node.name, patience.as_millis());
            replies.push((node, scope, Err(CallError::Unreachable(why))));
        }
        replies
    }

    /// Whether only heads are open, and everything in them is held by nodes that answered.
    fn can_leave(
        &self,
        rounds: &Rounds,
        waiting: &BTreeMap<usize, (Arc<Member>, Scope)>,
        replies: &[Reply<T>],
    ) -> bool {
        let only_head = |(node, s): &(Arc<Member>, Scope)| {
            s.own && s.blocks.is_empty() && !s.whole_bucket && node.name != self.me
        };
        if waiting.is_empty() || !waiting.values().all(only_head) {
            return false;
        }
        let unheard = replies.iter().filter(|(_, scope, result)| {
            scope.own && result.as_ref().map_or(true, |(_, account)| !account.missing.is_empty())
        });
        let silent: Vec<&Member> =
            waiting.values().map(|(n, _)| &**n).chain(unheard.map(|(n, _, _)| &**n)).collect();
        rounds.whole_without(&silent)
    }

    /// `others` says who can be asked instead; that is looked up for the few that are late.
    async fn put(
        &self,
        node: Arc<Member>,
        scope: Scope,
        others: &(dyn Fn(&Member, &Scope) -> Questions + Sync),
    ) -> Vec<Reply<T>> {
        if node.name == self.me {
            let answer = (self.ask)(node.clone(), scope.clone()).await;
            return vec![(node, scope, answer)];
        }
        self.hedger.sent();
        let class = self.class(&scope);
        let first = self.timed(class, node.clone(), scope.clone());
        let mut first = std::pin::pin!(first);
        let hedgeable = !scope.own && !scope.blocks.is_empty();
        if hedgeable {
            let late = self.hedger.late_after(class);
            if let Ok(answer) = tokio::time::timeout(late, &mut first).await {
                return vec![(node, scope, answer)];
            }
            self.hedger.late(&node.name);
            let others = others(&node, &scope);
            if self.hedger.may_hedge(self.nodes, !others.is_empty()) {
                return self.race(node, scope, first, others).await;
            }
        }
        let answer = first.await;
        vec![(node, scope, answer)]
    }

    /// The first whole answer counts; the other call is dropped.
    async fn race(
        &self,
        node: Arc<Member>,
        scope: Scope,
        first: std::pin::Pin<&mut (impl Future<Output = Asked<T>> + Send)>,
        others: Questions,
    ) -> Vec<Reply<T>> {
        let second = join_all(others.into_iter().map(|(n, s)| async move {
            let answer = match n.name == self.me {
                true => (self.ask)(n.clone(), s.clone()).await,
                false => self.timed(self.class(&s), n.clone(), s.clone()).await,
            };
            (n, s, answer)
        }));
        let second = std::pin::pin!(second);
        match select(first, second).await {
            Either::Left((Err(e), second)) => {
                let mut replies = second.await;
                if !replies.iter().all(is_whole) {
                    replies.push((node, scope, Err(e)));
                }
                replies
            }
            Either::Left((answer, _)) => vec![(node, scope, answer)],
            Either::Right((replies, _)) if replies.iter().all(is_whole) => {
                count(&self.hedger.won);
                replies
            }
            Either::Right((_, first)) => vec![(node, scope, first.await)],
        }
    }

    async fn timed(&self, class: Class, node: Arc<Member>, scope: Scope) -> Asked<T> {
        let begun = self.hedger.now_us();
        let name = node.name.clone();
        let answer = (self.ask)(node, scope).await;
        if answer.is_ok() {
            self.hedger.answered(&name, class, begun);
        }
        answer
    }

    fn class(&self, scope: &Scope) -> Class {
        match (self.words, scope.own) {
            (true, _) => Class::Words,
            (false, true) => Class::Head,
            (false, false) => Class::Blocks,
        }
    }
}

fn is_whole<T>((_, _, answer): &Reply<T>) -> bool {
    answer.as_ref().is_ok_and(|(_, account)| account.missing.is_empty() && account.split == 0)
}
