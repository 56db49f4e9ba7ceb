//! One name, one living node.
//!
//! Two processes of one name (a copied disk, a copied command line) would take each other's place in every view, back
//! and forth. So a node that starts asks the cluster, before it says a word in gossip, whether somebody of its name
//! lives elsewhere. The word of others is only a hint: the one they name is rung, and only when it answers with that
//! name does the newcomer give up. Its own address never counts: there it was itself, before a restart.
//!
//! Bounds: `ASKED_MAX` nodes are asked, all at once, each for `doorbell::RING_TIMEOUT`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use futures::future::join_all;

use crate::doorbell::{self, Answer};
use crate::error::JoinProblem;
use crate::secret::KeyRing;

/// Most nodes that are asked.
pub const ASKED_MAX: usize = 16;

/// Asks `peers` for a living node called `me` at another address than `own`, and in another start than `generation`.
///
/// # Errors
/// `JoinProblem::SameName` when there is one.
pub async fn refuse(
    (me, generation): (&str, u64),
    own: SocketAddr,
    peers: &[SocketAddr],
    keys: &KeyRing,
) -> Result<(), JoinProblem> {
    let asked: BTreeSet<SocketAddr> = peers.iter().copied().filter(|a| *a != own).take(ASKED_MAX).collect();
    let answers = ring_all(me, asked, keys).await;
    let living = |answers: &[(SocketAddr, Answer)]| {
        answers.iter().find(|(_, a)| a.node == me && a.generation != generation).map(|(at, _)| *at)
    };
    let found = match living(&answers) {
        Some(addr) => Some(addr),
        None => {
            let named = answers.iter().filter_map(|(_, a)| a.namesake).filter(|a| *a != own);
            living(&ring_all(me, named.collect(), keys).await)
        }
    };
    match found {
        Some(addr) => Err(JoinProblem::SameName { name: me.to_owned(), addr }),
        None => Ok(()),
    }
}

async fn ring_all(me: &str, addrs: BTreeSet<SocketAddr>, keys: &KeyRing) -> Vec<(SocketAddr, Answer)> {
    let rings = addrs.into_iter().take(ASKED_MAX).map(|addr| async move {
        let answer = doorbell::ring(addr, &addr.to_string(), me, keys).await.ok()?;
        Some((addr, answer))
    });
    join_all(rings).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tokio::net::TcpListener;

    async fn house(name: &str, knows: Option<SocketAddr>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let keys = Arc::new(KeyRing::new("c", &[]));
        let known = Arc::new(move |asked: &str| knows.filter(|_| asked == "twin"));
        tokio::spawn(doorbell::serve(listener, (name.into(), 1), keys, known));
        addr
    }

    #[tokio::test]
    async fn only_a_living_twin_elsewhere_is_a_reason() {
        let keys = KeyRing::new("c", &[]);
        let own: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let twin = house("twin", None).await;
        let knowing = house("other", Some(twin)).await;
        for peers in [vec![twin], vec![knowing]] {
            let e = refuse(("twin", 2), own, &peers, &keys).await.unwrap_err();
            assert!(e == JoinProblem::SameName { name: "twin".into(), addr: twin } && !e.may_heal(), "{e}");
        }
        assert_eq!(refuse(("twin", 2), twin, &[twin, knowing], &keys).await, Ok(()), "it is itself");
        assert_eq!(
            refuse(("twin", 1), own, &[twin, knowing], &keys).await,
            Ok(()),
            "it is itself, by another way"
        );
        assert_eq!(refuse(("another", 2), own, &[twin, knowing], &keys).await, Ok(()));
        let gone = house("other", Some("127.0.0.1:2".parse().unwrap())).await;
        assert_eq!(refuse(("twin", 2), own, &[gone], &keys).await, Ok(()), "it lives no more");
        assert_eq!(refuse(("twin", 2), own, &[], &keys).await, Ok(()));
    }
}
