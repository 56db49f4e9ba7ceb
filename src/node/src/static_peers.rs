//! Peers that are named one by one (`--cluster.peer`), for networks that let no datagrams through.
//!
//! Each is asked for its record every gossip interval, over the node-to-node RPC with its secret and its policy; what it says
//! goes into the same view as gossip (`koios_cluster::told`). Names are looked up again when an address does not answer.
//! A peer that is this node itself is noticed by its name. Ends with the gossip service.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use koios_cluster::{Gossip, Liveness, Member, NodeRecord, told};
use koios_query::Peers;
use tokio::runtime::Handle;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most peers that are asked.
pub const PEERS_MAX: usize = 256;

/// Asks for ever.
pub fn follow(
    net: &Handle,
    named: Vec<String>,
    interval: Duration,
    gossip: &Arc<Gossip>,
    peers: &Arc<Peers>,
) {
    if named.is_empty() {
        return;
    }
    let (gossip, peers) = (Arc::downgrade(gossip), peers.clone());
    net.spawn(async move {
        let mut found: HashMap<String, SocketAddr> = HashMap::new();
        let mut faults: HashMap<String, String> = HashMap::new();
        let mut ticker = tokio::time::interval(interval);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticker.tick().await;
            let Some(gossip) = gossip.upgrade() else { return };
            let asks = named.iter().take(PEERS_MAX).map(|peer| ask(peer, found.get(peer).copied(), &peers));
            for (peer, answer) in named.iter().zip(futures::future::join_all(asks).await) {
                match answer {
                    Ok((address, told)) => {
                        found.insert(peer.clone(), address);
                        if faults.remove(peer).is_some() {
                            tracing::info!(peer, node = told.name, "static peer answers");
                        }
                        gossip.hear(told);
                    }
                    Err(why) => {
                        found.remove(peer);
                        if faults.get(peer) != Some(&why) {
                            tracing::warn!(peer, why, "static peer does not answer");
                            faults.insert(peer.clone(), why);
                        }
                    }
                }
            }
        }
    });
}

async fn ask(
    peer: &str,
    known: Option<SocketAddr>,
    peers: &Peers,
) -> Result<(SocketAddr, told::Told), String> {
    let address = match known {
        Some(address) => address,
        None => {
            let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host(peer)).await;
            let found = found.map_err(|_| "its name is not found in time".to_owned())?;
            found.map_err(|e| e.to_string())?.next().ok_or("its name has no address")?
        }
    };
    // Nothing is known of it but where it answers.
    let unknown = Member {
        name: peer.to_owned(),
        generation: 0,
        gossip: address,
        liveness: Liveness::Alive,
        record: NodeRecord::new("", address, address),
    };
    let said = peers.report(&unknown, told::REPORT, PATIENCE).await.map_err(|e| e.text().to_owned())?;
    Ok((address, told::hear(&said)?))
}
