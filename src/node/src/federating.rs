//! Endpoints beside the cluster, by flags and files, asked what they are for as long as the node runs.

use std::path::Path;
use std::sync::Arc;

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

/// Asks for as long as the runtime lives; nothing to do without endpoints.
pub fn start(net: &Handle, federation: &Arc<Federation>) {
    if federation.is_empty() {
        return;
    }
    let federation = federation.clone();
    net.spawn(async move {
        loop {
            federation.refresh().await;
            tokio::time::sleep(CHECK).await;
        }
    });
}
