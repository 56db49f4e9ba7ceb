//! S3 and stores that speak its protocol.

use serde::Deserialize;

use crate::config::http::RawHttp;
use crate::config::{HttpConfig, config_error, http, note, required, section};
use crate::error::ObjstoreError;

/// Where, as whom, and how things are encrypted there.
#[derive(Clone, PartialEq)]
pub struct S3Config {
    /// Bucket.
    pub bucket: String,
    /// `host[:port]`, without a scheme.
    pub endpoint: String,
    /// Region; empty: found from the endpoint, else `us-east-1`.
    pub region: String,
    /// Empty: from the environment, a web identity, or the machine's role.
    pub access_key: String,
    /// Beside `access_key`.
    pub secret_key: String,
    /// Of temporary keys.
    pub session_token: String,
    /// Bucket in the host name (`true`), in the path, or whatever the endpoint asks for.
    pub virtual_hosted: Option<bool>,
    /// Server-side encryption.
    pub encryption: Encryption,
    /// Tries after the first.
    pub retries_max: usize,
    /// How requests are made.
    pub http: HttpConfig,
}

impl std::fmt::Debug for S3Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "S3 {}/{}", self.endpoint, self.bucket)
    }
}

/// Who encrypts.
#[derive(Clone, PartialEq)]
pub enum Encryption {
    /// As the bucket is set up; S3's own keys need no request header today.
    Bucket,
    /// A key of the key management service.
    Kms(String),
    /// A file with the customer's key.
    Customer(String),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    bucket: String,
    endpoint: String,
    region: String,
    disable_dualstack: Option<bool>,
    aws_sdk_auth: bool,
    access_key: String,
    secret_key: String,
    session_token: String,
    insecure: bool,
    signature_version2: bool,
    put_user_metadata: serde_json::Map<String, serde_json::Value>,
    http_config: RawHttp,
    trace: Option<serde_json::Value>,
    list_objects_version: String,
    bucket_lookup_type: String,
    send_content_md5: Option<bool>,
    disable_multipart: Option<bool>,
    part_size: Option<u64>,
    sse_config: RawEncryption,
    sts_endpoint: Option<String>,
    max_retries: Option<usize>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawEncryption {
    #[serde(rename = "type")]
    kind: String,
    kms_key_id: String,
    kms_encryption_context: serde_json::Map<String, serde_json::Value>,
    encryption_key: String,
}

pub(super) fn read(
    config: Option<serde_json::Value>,
    ignored: &mut Vec<String>,
) -> Result<S3Config, ObjstoreError> {
    let raw: Raw = section("S3", config)?;
    let unsupported = [
        ("signature_version2", raw.signature_version2, "use a store with signature version 4"),
        ("put_user_metadata", !raw.put_user_metadata.is_empty(), "leave it out"),
        ("list_objects_version: v1", raw.list_objects_version == "v1", "use a store with version 2 lists"),
        ("kms_encryption_context", !raw.sse_config.kms_encryption_context.is_empty(), "leave it out"),
    ];
    for (name, given, fix) in unsupported {
        if given {
            return Err(config_error(" in the S3 section", &format!("{name} is not supported"), fix));
        }
    }
    if raw.endpoint.contains("://") {
        let fix = "write host or host:port, and `insecure: true` for plain HTTP";
        return Err(config_error(" in the S3 section", "the endpoint has a scheme", fix));
    }
    if raw.access_key.is_empty() != raw.secret_key.is_empty() {
        let fix = "give both, or neither to take them from the environment";
        return Err(config_error(" in the S3 section", "one of access_key and secret_key is missing", fix));
    }
    note(
        ignored,
        &[
            ("disable_dualstack", raw.disable_dualstack.is_some()),
            ("trace", raw.trace.is_some()),
            ("send_content_md5", raw.send_content_md5.is_some()),
            ("disable_multipart", raw.disable_multipart.is_some()),
            ("part_size", raw.part_size.is_some()),
            ("sts_endpoint", raw.sts_endpoint.is_some()),
        ],
    );
    // The SDK's way is to take keys from the surroundings, whatever the file says.
    let keys = if raw.aws_sdk_auth { Default::default() } else { (raw.access_key, raw.secret_key) };
    Ok(S3Config {
        bucket: required("S3", "bucket", raw.bucket)?,
        endpoint: required("S3", "endpoint", raw.endpoint)?,
        region: raw.region,
        access_key: keys.0,
        secret_key: keys.1,
        session_token: raw.session_token,
        virtual_hosted: lookup(&raw.bucket_lookup_type)?,
        encryption: encryption(raw.sse_config)?,
        retries_max: raw.max_retries.filter(|n| *n > 0).unwrap_or(10).min(100),
        http: http::read(raw.http_config, raw.insecure, ignored)?,
    })
}

fn lookup(kind: &str) -> Result<Option<bool>, ObjstoreError> {
    match kind {
        "" | "auto" => Ok(None),
        "virtual-hosted" => Ok(Some(true)),
        "path" => Ok(Some(false)),
        other => {
            let cause = format!("unknown bucket_lookup_type {other:?}");
            Err(config_error(" in the S3 section", &cause, "use auto, virtual-hosted or path"))
        }
    }
}

fn encryption(raw: RawEncryption) -> Result<Encryption, ObjstoreError> {
    match raw.kind.as_str() {
        "" | "SSE-S3" => Ok(Encryption::Bucket),
        "SSE-KMS" => Ok(Encryption::Kms(required("SSE-KMS", "sse_config.kms_key_id", raw.kms_key_id)?)),
        "SSE-C" => {
            Ok(Encryption::Customer(required("SSE-C", "sse_config.encryption_key", raw.encryption_key)?))
        }
        other => {
            let cause = format!("unknown sse_config type {other:?}");
            Err(config_error(" in the S3 section", &cause, "use SSE-S3, SSE-KMS or SSE-C"))
        }
    }
}
