//! Thanos' object-store YAML: `type`, `config`, `prefix`.
//!
//! Owns reading it strictly, with `$(NAME)` replaced from the environment first, one file a provider. What Thanos
//! knows and Koios does not need (tracing, sizes of parts) is taken and named in `ignored`; what would change the
//! meaning and is not supported is an error. Invariant: a configuration that is accepted can be opened.

mod azure;
mod gcs;
mod http;
mod s3;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use azure::AzureConfig;
pub use gcs::GcsConfig;
pub use http::{HttpConfig, TlsConfig};
pub use s3::{Encryption, S3Config};

use crate::error::ObjstoreError;

/// Where a bucket lies, and how it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketConfig {
    /// Which store.
    pub provider: Provider,
    /// Sub-path in front of every object, without slashes at its ends; empty for none.
    pub prefix: String,
    /// When a slow read is asked a second time.
    pub hedging: Option<Hedging>,
    /// Options that were given and change nothing here.
    pub ignored: Vec<String>,
}

/// One kind of store.
#[derive(Clone, Debug, PartialEq)]
pub enum Provider {
    /// A directory.
    Filesystem(PathBuf),
    /// Amazon S3 and what speaks its protocol.
    S3(Box<S3Config>),
    /// Google Cloud Storage.
    Gcs(Box<GcsConfig>),
    /// Azure Blob Storage.
    Azure(Box<AzureConfig>),
}

/// Reads that take longer than most are asked again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedging {
    /// Most requests for one read, the first included.
    pub up_to: u32,
    /// The share of reads that is fast enough, in (0, 1).
    pub quantile: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    config: Option<serde_json::Value>,
    prefix: Option<String>,
    hedging_config: Option<RawHedging>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHedging {
    #[serde(default)]
    enabled: bool,
    #[serde(default = "three")]
    up_to: u32,
    #[serde(default = "ninety")]
    quantile: f64,
}

fn three() -> u32 {
    3
}

fn ninety() -> f64 {
    0.9
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDirectory {
    #[serde(default)]
    directory: String,
}

/// Stores that Thanos knows and Koios does not.
const OTHERS: [&str; 7] = ["SWIFT", "COS", "ALIYUNOSS", "BOS", "OCI", "OBS", "OSS"];
const KINDS: &str = "use FILESYSTEM, S3, GCS or AZURE";

impl BucketConfig {
    /// A plain directory.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self {
            provider: Provider::Filesystem(path.into()),
            prefix: String::new(),
            hedging: None,
            ignored: Vec::new(),
        }
    }

    /// Reads the YAML; a relative directory is taken from `base`, and `env` gives the variables of `$(NAME)`.
    ///
    /// # Errors
    /// `ObjstoreError::Config` with the place, the cause and the fix.
    pub fn parse(
        yaml: &str,
        base: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ObjstoreError> {
        let yaml = expand(yaml, env)?;
        let raw: Raw = serde_saphyr::from_str(&yaml).map_err(|e| {
            let place =
                e.location().map(|l| format!(" line {} column {}", l.line(), l.column())).unwrap_or_default();
            config_error(&place, &e.to_string(), "write `type: FILESYSTEM` and `config: {directory: /path}`")
        })?;
        let mut ignored = Vec::new();
        let provider = match raw.kind.to_ascii_uppercase().as_str() {
            "FILESYSTEM" => {
                let directory = section::<RawDirectory>("FILESYSTEM", raw.config)?.directory;
                let directory = required("FILESYSTEM", "directory", directory)?;
                Provider::Filesystem(base.join(directory))
            }
            "S3" => Provider::S3(Box::new(s3::read(raw.config, &mut ignored)?)),
            "GCS" => Provider::Gcs(Box::new(gcs::read(raw.config, &mut ignored)?)),
            "AZURE" => Provider::Azure(Box::new(azure::read(raw.config, &mut ignored)?)),
            kind if OTHERS.contains(&kind) => {
                let cause = format!("type {kind} is known but not supported by this version");
                return Err(config_error(
                    "",
                    &cause,
                    "many stores speak S3 too: use type S3 with their endpoint",
                ));
            }
            kind => return Err(config_error("", &format!("unknown type {kind:?}"), KINDS)),
        };
        let hedging = hedging(raw.hedging_config)?;
        Ok(Self {
            provider,
            prefix: raw.prefix.unwrap_or_default().trim_matches('/').to_owned(),
            hedging,
            ignored,
        })
    }
}

fn hedging(raw: Option<RawHedging>) -> Result<Option<Hedging>, ObjstoreError> {
    let Some(raw) = raw.filter(|h| h.enabled) else { return Ok(None) };
    let inside = raw.quantile > 0.0 && raw.quantile < 1.0;
    if !inside || !(2..=10).contains(&raw.up_to) {
        let fix = "use a quantile between 0 and 1 and up_to from 2 to 10";
        return Err(config_error("", "hedging_config is out of range", fix));
    }
    Ok(Some(Hedging { up_to: raw.up_to, quantile: raw.quantile }))
}

/// Replaces `$(NAME)` by the variable's value, as Thanos does with this file.
fn expand(yaml: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, ObjstoreError> {
    let (mut out, mut rest) = (String::with_capacity(yaml.len()), yaml);
    while let Some(start) = rest.find("$(") {
        let Some(len) = rest[start..].find(')') else { break };
        let name = &rest[start + 2..start + len];
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        out.push_str(&rest[..start]);
        if is_name {
            let fix = "set it, or write the value into the file";
            let unset = || config_error("", &format!("the environment has no variable {name}"), fix);
            out.push_str(&env(name).ok_or_else(unset)?);
        } else {
            out.push_str(&rest[start..=start + len]);
        }
        rest = &rest[start + len + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The `config` section of a provider.
fn section<T: DeserializeOwned>(kind: &str, config: Option<serde_json::Value>) -> Result<T, ObjstoreError> {
    let mut config = config.filter(|c| !c.is_null()).unwrap_or_else(|| serde_json::json!({}));
    without_nulls(&mut config);
    serde_json::from_value(config).map_err(|e| {
        config_error(
            &format!(" in the {kind} section"),
            &e.to_string(),
            "see Thanos' documentation of this type",
        )
    })
}

/// A name without a value says nothing, in Go's reading of YAML.
fn without_nulls(value: &mut serde_json::Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, v| !v.is_null());
        map.values_mut().for_each(without_nulls);
    }
}

fn required(kind: &str, name: &str, value: String) -> Result<String, ObjstoreError> {
    if value.is_empty() {
        let fix = format!("add `config: {{{name}: ...}}`");
        return Err(config_error("", &format!("{kind} has no {name}"), &fix));
    }
    Ok(value)
}

/// Notes options that change nothing here.
fn note(ignored: &mut Vec<String>, given: &[(&str, bool)]) {
    ignored.extend(given.iter().filter(|(_, given)| *given).map(|(name, _)| (*name).to_owned()));
}

fn config_error(place: &str, cause: &str, fix: &str) -> ObjstoreError {
    ObjstoreError::Config { place: place.to_owned(), cause: cause.to_owned(), fix: fix.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<BucketConfig, ObjstoreError> {
        let env = |name: &str| (name == "KEY").then(|| "from-env".to_owned());
        BucketConfig::parse(yaml, Path::new("/x"), &env)
    }

    #[test]
    fn reads_thanos_yaml() {
        let ok = parse("type: FILESYSTEM\nconfig:\n  directory: b\n").unwrap();
        assert_eq!(ok, BucketConfig::directory("/x/b"));
        let s3 = parse(
            "type: S3\nconfig: {bucket: b, endpoint: 'h:9000', access_key: a, secret_key: $(KEY), insecure: true, trace: {enable: true}}\nprefix: /p/\nhedging_config: {enabled: true}",
        )
        .unwrap();
        let Provider::S3(c) = &s3.provider else { panic!("{s3:?}") };
        assert_eq!((c.secret_key.as_str(), c.http.insecure), ("from-env", true));
        assert_eq!((s3.prefix.as_str(), s3.ignored.as_slice()), ("p", &["trace".to_owned()][..]));
        assert_eq!(s3.hedging, Some(Hedging { up_to: 3, quantile: 0.9 }));
        let gcs =
            parse("type: GCS\nprefix:\nconfig: {bucket: b, no_auth: true, http_config: {tls_config: }}")
                .unwrap();
        assert!(matches!(gcs.provider, Provider::Gcs(c) if c.no_auth));
        let connection = "AccountName=n;AccountKey=a2V5;BlobEndpoint=http://h/n;";
        let azure = parse(&format!(
            "type: AZURE\nconfig: {{container: c, storage_connection_string: '{connection}'}}"
        ))
        .unwrap();
        let Provider::Azure(c) = &azure.provider else { panic!("{azure:?}") };
        assert_eq!((c.account.as_str(), c.key.as_str(), c.endpoint.as_str()), ("n", "a2V5", "http://h/n"));
    }

    #[test]
    fn mistakes_are_explained() {
        for (bad, cause) in [
            ("type: SWIFT\nconfig: {}\n", "not supported"),
            ("type: S3\n", "no bucket"),
            ("type: S3\nconfig: {bucket: b, endpoint: e, access_keys: x}\n", "access_keys"),
            ("type: S3\nconfig: {bucket: b, endpoint: e, signature_version2: true}\n", "signature_version2"),
            ("type: S3\nconfig: {bucket: b, endpoint: e, secret_key: $(NONE)}\n", "NONE"),
            ("type: S3\nconfig: {bucket: b, endpoint: 'http://e'}\n", "scheme"),
            ("type: GCS\nconfig: {}\n", "no bucket"),
            ("type: AZURE\nconfig: {container: c}\n", "storage_account"),
            ("type: FTP\n", "unknown type"),
            ("type: FILESYSTEM\n", "no directory"),
            (
                "type: FILESYSTEM\nconfig: {directory: d}\nhedging_config: {enabled: true, quantile: 2}",
                "hedging",
            ),
            ("typo: FILESYSTEM\n", "typo"),
            ("{", "line"),
        ] {
            let e = parse(bad).unwrap_err().to_string();
            assert!(e.contains(cause) && e.contains("fix:"), "{bad:?}: {e}");
        }
    }

    #[test]
    fn shipped_examples_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/objstore");
        let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(files.len() >= 4);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let read = BucketConfig::parse(&text, Path::new("/x"), &|_| Some("v".into()));
            assert!(read.is_ok_and(|c| c.ignored.is_empty()), "{}", file.display());
        }
    }

    #[test]
    fn what_is_no_variable_stays() {
        assert_eq!(expand("a $(b c) $x $(", &|_| None).unwrap(), "a $(b c) $x $(");
        assert_eq!(expand("$(A)$(A)", &|_| Some("1".into())).unwrap(), "11");
    }
}
