//! Which endpoints are asked beside the cluster: addresses, and Thanos' YAML for them.
//!
//! An address is `host:port`, or a name with how it is looked up in front: `dns+` (addresses of a name), `dnssrv+` (names and
//! ports from SRV records, then their addresses) and `dnssrvnoa+` (SRV records, names as they are). Reading is strict.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// How an address is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lookup {
    /// As it stands.
    Plain,
    /// Every address of the name.
    Addresses,
    /// SRV records, then addresses.
    Services,
    /// SRV records alone.
    ServicesNoAddresses,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointSpec {
    /// `host:port`, or a name for SRV records.
    pub address: String,
    /// How it is found.
    pub lookup: Lookup,
    /// Asked even when it is not well, so that its absence shows.
    pub strict: bool,
    /// Encryption; `None` for plain text.
    pub tls: Option<EndpointTls>,
}

/// Encryption towards an endpoint. Files are read again at each connection's set-up.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointTls {
    /// Authorities, PEM; the system's without.
    pub ca_file: Option<PathBuf>,
    /// Own certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// The name to expect.
    pub server_name: Option<String>,
}

impl EndpointSpec {
    /// From an address as it is written in flags and files.
    ///
    /// # Errors
    /// What is wrong and how to write it.
    pub fn parse(text: &str, strict: bool) -> Result<Self, String> {
        let prefixes = [
            ("dnssrvnoa+", Lookup::ServicesNoAddresses),
            ("dnssrv+", Lookup::Services),
            ("dnsdualstack+", Lookup::Addresses),
            ("dns+", Lookup::Addresses),
        ];
        let found = prefixes.iter().find_map(|(p, lookup)| Some((text.strip_prefix(p)?, *lookup)));
        let (address, lookup) = found.unwrap_or((text, Lookup::Plain));
        let needs_port = matches!(lookup, Lookup::Plain | Lookup::Addresses);
        let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        if address.is_empty()
            || address.contains('/')
            || (needs_port && port.is_none_or(|(h, _)| h.is_empty()))
        {
            let fix = "write host:port, dns+host:port, dnssrv+name or dnssrvnoa+name";
            return Err(format!("{text:?} is no endpoint; fix: {fix}"));
        }
        if strict && lookup != Lookup::Plain {
            let fix = "write host:port, or leave strict out";
            return Err(format!("{text:?}: a strict endpoint has one fixed address; fix: {fix}"));
        }
        Ok(Self { address: address.to_owned(), lookup, strict, tls: None })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    endpoints: Vec<RawEndpoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndpoint {
    address: String,
    #[serde(default)]
    strict: bool,
    #[serde(default)]
    group: bool,
    client_config: Option<RawClient>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawClient {
    tls_config: Option<EndpointTls>,
}

/// Reads `endpoints: [{address, strict, group, client_config: {tls_config}}]`; files are taken from `base`.
///
/// # Errors
/// The place, the cause and the fix.
pub fn read_yaml(yaml: &str, base: &Path) -> Result<Vec<EndpointSpec>, String> {
    let raw: RawFile = serde_saphyr::from_str(yaml).map_err(|e| {
        let fix = "write `endpoints:` with a list of `address:`";
        format!("endpoints: {e}; fix: {fix}")
    })?;
    let one = |e: RawEndpoint| {
        // A group is one name for many addresses, which are all asked.
        let text = if e.group && !e.address.contains('+') { format!("dns+{}", e.address) } else { e.address };
        let mut spec = EndpointSpec::parse(&text, e.strict && !e.group)?;
        spec.tls = e.client_config.and_then(|c| c.tls_config).map(|mut tls| {
            for file in [&mut tls.ca_file, &mut tls.cert_file, &mut tls.key_file] {
                *file = file.take().map(|f| base.join(f));
            }
            tls
        });
        Ok(spec)
    };
    raw.endpoints.into_iter().map(one).collect()
}

#[derive(Deserialize)]
struct RawTargets {
    targets: Vec<String>,
}

/// Reads a file of targets as Prometheus' file discovery has it, YAML or JSON.
///
/// # Errors
/// What is wrong.
pub fn read_targets(text: &str) -> Result<Vec<EndpointSpec>, String> {
    let groups: Vec<RawTargets> = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    groups.iter().flat_map(|g| &g.targets).map(|t| EndpointSpec::parse(t, false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_how_they_are_found() {
        let lookup = |text: &str| EndpointSpec::parse(text, false).map(|s| (s.address, s.lookup));
        assert_eq!(lookup("h:1"), Ok(("h:1".into(), Lookup::Plain)));
        assert_eq!(lookup("dns+h:1"), Ok(("h:1".into(), Lookup::Addresses)));
        assert_eq!(lookup("dnssrv+_grpc._tcp.x"), Ok(("_grpc._tcp.x".into(), Lookup::Services)));
        assert_eq!(lookup("dnssrvnoa+x").unwrap().1, Lookup::ServicesNoAddresses);
        for bad in ["", "h", "http://h:1", "dns+h", ":1", "h:99999"] {
            assert!(lookup(bad).unwrap_err().contains("fix:"), "{bad}");
        }
        assert!(EndpointSpec::parse("dns+h:1", true).unwrap_err().contains("strict"));
        assert!(EndpointSpec::parse("h:1", true).unwrap().strict);
    }

    #[test]
    fn files_are_read_strictly() {
        let yaml = "endpoints:\n- address: a:1\n  strict: true\n- {address: b:2, group: true, client_config: {tls_config: {ca_file: ca.pem}}}\n";
        let specs = read_yaml(yaml, Path::new("/x")).unwrap();
        assert!(specs[0].strict && specs[1].lookup == Lookup::Addresses);
        assert_eq!(specs[1].tls.as_ref().unwrap().ca_file, Some("/x/ca.pem".into()));
        assert!(read_yaml("endpoints: [{addres: x}]", Path::new("/")).unwrap_err().contains("addres"));
        let insecure =
            "endpoints: [{address: 'a:1', client_config: {tls_config: {insecure_skip_verify: true}}}]";
        assert!(read_yaml(insecure, Path::new("/")).is_err(), "not done silently");
        let targets = read_targets("- targets: ['a:1', 'b:2']\n").unwrap();
        assert_eq!(targets.len(), 2);
    }
}
