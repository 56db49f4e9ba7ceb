//! What a node says of itself over a connection, for networks that let no datagrams through.
//!
//! A node that is named as a static peer is asked for its record over the node-to-node RPC every gossip interval; each answer
//! is a sign of life, and the record enters the same view as one that was gossiped (`gossip`). Owns the words, JSON:
//! `{"node","generation","gossip","pairs":{…}}` with the pairs of `keys`. A wrong one costs what a wrong gossip costs.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::keys::NodeRecord;
use crate::view::{ClusterView, Member};

/// The report in which a node says who it is.
pub const REPORT: &str = "record";

/// A node as it says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Unique name.
    pub name: String,
    /// Grows with every start.
    pub generation: u64,
    /// Where it gossips.
    pub gossip: SocketAddr,
    /// What it says.
    pub record: NodeRecord,
}

#[derive(Serialize, Deserialize)]
struct Words {
    node: String,
    generation: u64,
    gossip: SocketAddr,
    pairs: BTreeMap<String, String>,
}

/// What the observer of `view` says of itself; `None` before it has a place in its own view.
pub fn say(view: &ClusterView) -> Option<String> {
    let me: &Member = view.own()?;
    let pairs = me.record.to_pairs().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let words = Words { node: me.name.clone(), generation: me.generation, gossip: me.gossip, pairs };
    serde_json::to_string(&words).ok()
}

/// Takes what a node said.
///
/// # Errors
/// What is missing or not understood.
pub fn hear(said: &[u8]) -> Result<Told, String> {
    let words: Words = serde_json::from_slice(said).map_err(|e| e.to_string())?;
    crate::identity::check_name("node name", &words.node).map_err(|e| e.to_string())?;
    let record = NodeRecord::from_lookup(|k| words.pairs.get(k).map(String::as_str));
    let record = record.ok_or("the record is not whole")?;
    Ok(Told { name: words.node, generation: words.generation, gossip: words.gossip, record })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::tests::member;
    use std::sync::Arc;

    #[test]
    fn what_is_said_is_heard() {
        let me = member("a", "z", 7);
        let view = ClusterView {
            me: "a".into(),
            members: [("a".to_owned(), Arc::new(me.clone()))].into(),
            ..ClusterView::default()
        };
        let told = hear(say(&view).unwrap().as_bytes()).unwrap();
        assert_eq!(
            (told.name, told.generation, told.gossip, told.record),
            (me.name, me.generation, me.gossip, me.record)
        );
        assert_eq!(say(&ClusterView::default()), None);
        for bad in [
            "",
            "{}",
            r#"{"node":"a/b","generation":1,"gossip":"1.1.1.1:1","pairs":{}}"#,
            r#"{"node":"a","generation":1,"gossip":"1.1.1.1:1","pairs":{}}"#,
        ] {
            assert!(hear(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
