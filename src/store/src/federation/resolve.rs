//! From an entry to the addresses behind it.

use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

use crate::federation::spec::{EndpointSpec, Lookup};

/// Most addresses behind one entry.
const ADDRESSES_MAX: usize = 1000;

/// `host:port` of everything behind `spec`, sorted.
///
/// # Errors
/// Why nothing was found.
pub async fn resolve(spec: &EndpointSpec) -> Result<Vec<String>, String> {
    let mut found = match spec.lookup {
        Lookup::Plain => vec![spec.address.clone()],
        Lookup::Addresses => addresses(&spec.address).await?,
        Lookup::ServicesNoAddresses => services(&spec.address).await?,
        Lookup::Services => {
            let mut all = Vec::new();
            for service in services(&spec.address).await? {
                all.extend(addresses(&service).await?);
            }
            all
        }
    };
    found.sort_unstable();
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    Ok(found)
}

async fn addresses(name: &str) -> Result<Vec<String>, String> {
    let found = tokio::net::lookup_host(name).await.map_err(|e| format!("{name}: {e}"))?;
    Ok(found.map(|a: SocketAddr| a.to_string()).collect())
}

async fn services(name: &str) -> Result<Vec<String>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{name}: {e}");
    let resolver = TokioResolver::builder_tokio().map_err(|e| failed(&e))?.build().map_err(|e| failed(&e))?;
    let found = resolver.srv_lookup(name).await.map_err(|e| failed(&e))?;
    let service = |data: &RData| match data {
        RData::SRV(srv) => Some(format!("{}:{}", srv.target.to_utf8().trim_end_matches('.'), srv.port)),
        _ => None,
    };
    Ok(found.answers().iter().filter_map(|r| service(&r.data)).collect())
}
