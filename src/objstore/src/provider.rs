//! From a configuration to an open store.
//!
//! Owns the settings of `object_store`'s clients. Retries are its own: exponential with jitter, bounded in number and
//! by three minutes. Refuses to know what is in a bucket.

use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use crate::config::{AzureConfig, Encryption, GcsConfig, HttpConfig, Provider, S3Config};
use crate::error::ObjstoreError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_TIMEOUT: Duration = Duration::from_secs(180);
/// Longest request as a whole: a part of an upload, or a read of one range.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// Opens the store of a provider; a directory is made.
///
/// # Errors
/// What is wrong with the settings, or the directory.
pub(crate) fn open(provider: &Provider) -> Result<Arc<dyn ObjectStore>, ObjstoreError> {
    Ok(match provider {
        Provider::Filesystem(directory) => Arc::new(local(directory)?),
        Provider::S3(c) => s3(c)?,
        Provider::Gcs(c) => gcs(c)?,
        Provider::Azure(c) => azure(c)?,
    })
}

fn local(directory: &FsPath) -> Result<LocalFileSystem, ObjstoreError> {
    std::fs::create_dir_all(directory).map_err(|e| ObjstoreError::local("create", directory, e))?;
    let root = directory.canonicalize().map_err(|e| ObjstoreError::local("open", directory, e))?;
    Ok(LocalFileSystem::new_with_prefix(&root).map_err(refused)?.with_fsync(true))
}

fn s3(c: &S3Config) -> Result<Arc<dyn ObjectStore>, ObjstoreError> {
    let scheme = if c.http.insecure { "http" } else { "https" };
    let amazon = c.endpoint.ends_with(".amazonaws.com") || c.endpoint.ends_with(".amazonaws.com.cn");
    let virtual_hosted = c.virtual_hosted.unwrap_or(amazon);
    // With the bucket in the host name, the client expects it in the endpoint.
    let endpoint = match virtual_hosted {
        true => format!("{scheme}://{}.{}", c.bucket, c.endpoint),
        false => format!("{scheme}://{}", c.endpoint),
    };
    let mut b = AmazonS3Builder::from_env()
        .with_bucket_name(&c.bucket)
        .with_endpoint(endpoint)
        .with_virtual_hosted_style_request(virtual_hosted)
        .with_client_options(client(&c.http)?)
        .with_retry(retry(c.retries_max));
    if let Some(region) = region(c) {
        b = b.with_region(region);
    }
    if !c.access_key.is_empty() {
        b = b.with_access_key_id(&c.access_key).with_secret_access_key(&c.secret_key);
    }
    if !c.session_token.is_empty() {
        b = b.with_token(&c.session_token);
    }
    b = match &c.encryption {
        Encryption::Bucket => b,
        Encryption::Kms(key) => b.with_sse_kms_encryption(key),
        Encryption::Customer(file) => {
            let file = FsPath::new(file);
            let key = std::fs::read_to_string(file).map_err(|e| ObjstoreError::local("read", file, e))?;
            b.with_ssec_encryption(key.trim())
        }
    };
    Ok(Arc::new(b.build().map_err(refused)?))
}

/// `s3.REGION.amazonaws.com` names it.
fn region(c: &S3Config) -> Option<String> {
    if !c.region.is_empty() {
        return Some(c.region.clone());
    }
    let found =
        c.endpoint.strip_prefix("s3.")?.split_once(".amazonaws.com")?.0.trim_start_matches("dualstack.");
    (!found.is_empty()).then(|| found.to_owned())
}

fn gcs(c: &GcsConfig) -> Result<Arc<dyn ObjectStore>, ObjstoreError> {
    let mut b = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&c.bucket)
        .with_client_options(client(&c.http)?)
        .with_retry(retry(c.retries_max));
    if !c.service_account.is_empty() {
        b = b.with_service_account_key(&c.service_account);
    }
    if c.no_auth {
        b = b.with_skip_signature(true);
    }
    Ok(Arc::new(b.build().map_err(refused)?))
}

fn azure(c: &AzureConfig) -> Result<Arc<dyn ObjectStore>, ObjstoreError> {
    let mut b = MicrosoftAzureBuilder::from_env()
        .with_account(&c.account)
        .with_container_name(&c.container)
        .with_endpoint(c.endpoint.clone())
        .with_allow_http(c.http.insecure)
        .with_client_options(client(&c.http)?)
        .with_retry(retry(c.retries_max));
    if !c.key.is_empty() {
        b = b.with_access_key(&c.key);
    } else if let Some([tenant, id, secret]) = &c.application {
        b = b.with_client_secret_authorization(id, secret, tenant);
    } else if !c.user_assigned_id.is_empty() {
        b = b.with_client_id(&c.user_assigned_id);
    }
    Ok(Arc::new(b.build().map_err(refused)?))
}

fn client(c: &HttpConfig) -> Result<ClientOptions, ObjstoreError> {
    let mut options = ClientOptions::new()
        .with_allow_http(c.insecure)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_read_timeout(c.answer_timeout)
        .with_pool_idle_timeout(c.idle_timeout)
        .with_pool_max_idle_per_host(c.idle_per_host);
    if c.tls.skip_verify {
        options = options.with_allow_invalid_certificates(true);
    }
    if let Some(file) = &c.tls.ca_file {
        let pem = std::fs::read(file).map_err(|e| ObjstoreError::local("read", file, e))?;
        for authority in Certificate::from_pem_bundle(&pem).map_err(refused)? {
            options = options.with_root_certificate(authority);
        }
    }
    Ok(options)
}

fn retry(most: usize) -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: most, retry_timeout: RETRY_TIMEOUT }
}

fn refused(e: object_store::Error) -> ObjstoreError {
    ObjstoreError::store("open", &Path::default(), e)
}
