//! What lies beside the nodes of the own cluster.
//!
//! Whether something does is constant while a process lives, so each node is asked once in each of its generations, and again
//! until it answers. One that does not answer any more keeps what was known: its absence has to show. No gossip is needed for
//! that, and a node of an older version has nothing beside it. Bound: the nodes that are told of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tonic::Code;

use crate::storeapi::client::EndpointClient;
use crate::storeapi::{BESIDE, Beside};

/// Longest wait for one node.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node of the own cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub name: String,
    /// Which of its lives.
    pub generation: u64,
    /// Where its gRPC services are, `host:port`.
    pub address: String,
    /// Whether it may be asked now.
    pub alive: bool,
}

#[derive(Clone)]
struct Known {
    node: Neighbour,
    /// The generation that answered last.
    asked: Option<u64>,
    has: bool,
}

/// Those who have something beside them.
#[derive(Default)]
pub(super) struct Beings {
    known: Mutex<BTreeMap<String, Known>>,
    here: Mutex<Option<(Neighbour, Arc<dyn Beside>)>>,
}

impl Beings {
    pub fn put_here(&self, me: Neighbour, source: Arc<dyn Beside>) {
        *self.here.lock() = Some((me, source));
    }

    pub fn here(&self) -> Option<Arc<dyn Beside>> {
        self.here.lock().as_ref().map(|(_, source)| source.clone())
    }

    pub fn is_empty(&self) -> bool {
        self.here.lock().is_none() && !self.known.lock().values().any(|k| k.has)
    }

    /// All who have something beside them.
    pub fn all(&self) -> Vec<Neighbour> {
        let here = self.here.lock().as_ref().map(|(me, _)| me.clone());
        let known = self.known.lock();
        let others =
            known.values().filter(|k| k.has && here.as_ref().is_none_or(|me| me.name != k.node.name));
        others.map(|k| k.node.clone()).chain(here.clone()).collect()
    }

    pub fn client(&self, node: &Neighbour) -> Result<EndpointClient, String> {
        match &*self.here.lock() {
            Some((me, source)) if me.name == node.name => {
                Ok(EndpointClient::here(&me.address, source.clone()))
            }
            _ => EndpointClient::beside(&node.address),
        }
    }

    /// Whether anything changed, and whether all have answered.
    pub async fn meet(&self, nodes: Vec<Neighbour>) -> (bool, bool) {
        let (mut changed, strangers) = self.take_in(nodes);
        let asked = join_all(strangers.into_iter().map(|node| async {
            let has = has_beside(&node).await;
            (node, has)
        }));
        let mut all = true;
        for (node, has) in asked.await {
            let Some(has) = has else {
                all = false;
                continue;
            };
            let mut known = self.known.lock();
            let Some(k) = known.get_mut(&node.name).filter(|k| k.node == node) else { continue };
            changed |= k.has != has;
            (k.asked, k.has) = (Some(node.generation), has);
        }
        (changed, all)
    }

    /// The list as it is now: whether one who had something beside it left or moved, and who is to be asked.
    fn take_in(&self, nodes: Vec<Neighbour>) -> (bool, Vec<Neighbour>) {
        let mut known = self.known.lock();
        let before: Vec<Neighbour> = known.values().filter(|k| k.has).map(|k| k.node.clone()).collect();
        let next = nodes.into_iter().map(|node| {
            let last = known.get(&node.name).cloned();
            let (asked, has) = last.map_or((None, false), |k| (k.asked, k.has));
            (node.name.clone(), Known { node, asked, has })
        });
        *known = next.collect();
        let after = known.values().filter(|k| k.has).map(|k| &k.node);
        let changed = !before.iter().map(|n| (&n.name, &n.address)).eq(after.map(|n| (&n.name, &n.address)));
        let strangers = known.values().filter(|k| k.node.alive && k.asked != Some(k.node.generation));
        (changed, strangers.map(|k| k.node.clone()).collect())
    }
}

/// Whether something lies beside a node; `None` when it does not say.
async fn has_beside(node: &Neighbour) -> Option<bool> {
    let client = EndpointClient::beside(&node.address).ok()?;
    match client.info(PATIENCE).await {
        Ok(_) => Some(true),
        Err(e) if e.code() == Code::FailedPrecondition => Some(false),
        // There is something, which is away.
        Err(e) => e.metadata().contains_key(BESIDE).then_some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, generation: u64, port: u16) -> Neighbour {
        Neighbour { name: name.into(), generation, address: format!("127.0.0.1:{port}"), alive: true }
    }

    #[test]
    fn a_node_is_asked_once_in_a_generation_and_what_it_had_is_remembered() {
        let beings = Beings::default();
        let names = |l: Vec<Neighbour>| l.into_iter().map(|n| n.name).collect::<Vec<_>>();
        let (changed, strangers) = beings.take_in(vec![node("a", 1, 1), node("b", 1, 2)]);
        assert_eq!((changed, names(strangers)), (false, vec!["a".into(), "b".into()]));
        for k in beings.known.lock().values_mut() {
            (k.asked, k.has) = (Some(1), k.node.name == "a");
        }
        assert_eq!(names(beings.all()), ["a"]);
        let (changed, strangers) = beings.take_in(vec![node("a", 1, 1), node("b", 1, 2)]);
        assert!(!changed && strangers.is_empty());
        let (_, strangers) = beings.take_in(vec![node("a", 2, 1), node("b", 1, 2)]);
        assert_eq!((names(strangers), names(beings.all())), (vec!["a".into()], vec!["a".into()]));
        assert!(beings.take_in(vec![node("a", 2, 9), node("b", 1, 2)]).0, "it moved");
        assert!(beings.take_in(vec![node("b", 1, 2)]).0, "it left");
        assert!(beings.is_empty());
    }

    #[tokio::test]
    async fn who_does_not_answer_is_asked_again() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        drop(held);
        let beings = Beings::default();
        assert_eq!(beings.meet(vec![node("a", 1, port)]).await, (false, false));
        assert_eq!(beings.take_in(vec![node("a", 1, port)]).1.len(), 1);
    }
}
