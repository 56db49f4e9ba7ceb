//! Thanos' object-store YAML: `type`, `config`, `prefix`.
//!
//! Owns reading it strictly. Invariant: a configuration that is accepted can be opened.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::ObjstoreError;

/// Which bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketConfig {
    /// A directory.
    Filesystem {
        /// Its path.
        directory: PathBuf,
        /// Sub-path in front of every object.
        prefix: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    config: Option<RawConfig>,
    #[serde(default)]
    prefix: String,
}

#[derive(Deserialize)]
struct RawConfig {
    directory: Option<String>,
}

const NOT_YET: [&str; 10] = ["S3", "GCS", "AZURE", "SWIFT", "COS", "ALIYUNOSS", "BOS", "OCI", "OBS", "OSS"];

impl BucketConfig {
    /// A plain directory.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        BucketConfig::Filesystem { directory: path.into(), prefix: String::new() }
    }

    /// Reads the YAML; a relative directory is taken from `base`.
    ///
    /// # Errors
    /// `ObjstoreError::Config` with the place, the cause and the fix.
    pub fn parse(yaml: &str, base: &Path) -> Result<Self, ObjstoreError> {
        let raw: Raw = serde_saphyr::from_str(yaml).map_err(|e| {
            let place =
                e.location().map(|l| format!(" line {} column {}", l.line(), l.column())).unwrap_or_default();
            config_error(&place, &e.to_string(), "write `type: FILESYSTEM` and `config: {directory: /path}`")
        })?;
        match raw.kind.to_ascii_uppercase().as_str() {
            "FILESYSTEM" => {
                let directory = raw.config.and_then(|c| c.directory).filter(|d| !d.is_empty());
                let directory = directory.ok_or_else(|| {
                    config_error("", "FILESYSTEM has no directory", "add `config: {directory: /path}`")
                })?;
                Ok(BucketConfig::Filesystem { directory: base.join(directory), prefix: raw.prefix })
            }
            kind if NOT_YET.contains(&kind) => Err(config_error(
                "",
                &format!("type {kind} is known but not supported by this version"),
                "use type FILESYSTEM, e.g. on a shared volume",
            )),
            kind => Err(config_error("", &format!("unknown type {kind:?}"), "use FILESYSTEM")),
        }
    }
}

fn config_error(place: &str, cause: &str, fix: &str) -> ObjstoreError {
    ObjstoreError::Config { place: place.to_owned(), cause: cause.to_owned(), fix: fix.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_thanos_yaml_and_explains_mistakes() {
        let ok = BucketConfig::parse("type: FILESYSTEM\nconfig:\n  directory: b\n", Path::new("/x")).unwrap();
        assert_eq!(ok, BucketConfig::directory("/x/b"));
        for (bad, cause) in [
            ("type: S3\nconfig: {bucket: b}\n", "not supported"),
            ("type: FTP\n", "unknown type"),
            ("type: FILESYSTEM\n", "no directory"),
            ("typo: FILESYSTEM\n", "typo"),
            ("{", "line"),
        ] {
            let e = BucketConfig::parse(bad, Path::new("/")).unwrap_err().to_string();
            assert!(e.contains(cause) && e.contains("fix:"), "{bad:?}: {e}");
        }
    }
}
