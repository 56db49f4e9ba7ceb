//! Endpoints beside the cluster, by flags and files, and what lies beside its nodes, asked what they are for as long as the node
//! runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use koios_cluster::Gossip;
use koios_cluster::view::Member;
use koios_store::federation::beside::Neighbour;
use koios_store::federation::spec::{EndpointSpec, read_yaml};
use koios_store::federation::{CHECK, Federation};
use tokio::runtime::Handle;

use crate::cli::RunArgs;

/// What the flags name.
///
/// # Errors
/// The flag, what is wrong with it, and the fix.
pub fn specs(args: &RunArgs) -> Result<Vec<EndpointSpec>, String> {
    let mut all = Vec::new();
    for (flag, addresses, strict) in
        [("endpoint", &args.endpoint, false), ("endpoint-strict", &args.endpoint_strict, true)]
    {
        for address in addresses {
            all.push(EndpointSpec::parse(address, strict).map_err(|e| format!("--{flag}: {e}"))?);
        }
    }
    for address in &args.endpoint_group {
        let text = if address.contains('+') { address.clone() } else { format!("dns+{address}") };
        all.push(EndpointSpec::parse(&text, false).map_err(|e| format!("--endpoint-group: {e}"))?);
    }
    if let Some(text) = &args.endpoint_sd_config {
        all.extend(read_yaml(text, Path::new(".")).map_err(|e| format!("--endpoint.sd-config: {e}"))?);
    }
    if let Some(file) = &args.endpoint_sd_config_file {
        let named = |e: String| format!("--endpoint.sd-config-file {}: {e}", file.display());
        let text = std::fs::read_to_string(file).map_err(|e| named(format!("{e}; fix: check the path")))?;
        all.extend(read_yaml(&text, file.parent().unwrap_or(Path::new("."))).map_err(named)?);
    }
    Ok(all)
}

/// How often the list of nodes is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Longest wait at the start for nodes to say what lies beside them.
const MEET_PATIENCE: Duration = Duration::from_secs(5);

/// Asks for as long as the runtime lives.
pub fn start(net: &Handle, federation: &Arc<Federation>, gossip: &Arc<Gossip>) {
    let refreshed = federation.clone();
    net.spawn(async move {
        loop {
            if !refreshed.is_empty() {
                refreshed.refresh().await;
            }
            tokio::time::sleep(CHECK).await;
        }
    });
    let (federation, gossip) = (federation.clone(), gossip.clone());
    net.spawn(async move {
        let mut met = None;
        loop {
            let now = neighbours(&gossip);
            if met.as_ref() != Some(&now) {
                let all = federation.meet(now.clone()).await;
                met = all.then_some(now);
            }
            tokio::time::sleep(LOOK).await;
        }
    });
}

/// Waits until all nodes that live said what lies beside them.
pub async fn meet_all(federation: &Federation, gossip: &Gossip) {
    let met = async {
        while !federation.meet(neighbours(gossip)).await {
            tokio::time::sleep(LOOK).await;
        }
        federation.refresh().await;
    };
    if tokio::time::timeout(MEET_PATIENCE, met).await.is_err() {
        tracing::warn!("some nodes did not say yet whether a Prometheus lies beside them");
    }
}

fn neighbours(gossip: &Gossip) -> Vec<Neighbour> {
    let view = gossip.view();
    let others = view.members.values().filter(|m| m.name != view.me);
    let neighbour = |m: &Arc<Member>| Neighbour {
        name: m.name.clone(),
        generation: m.generation,
        address: m.record.rpc.to_string(),
        alive: m.answers(),
    };
    others.map(neighbour).collect()
}
