//! HTTP clients made from `http_config`: credentials, TLS, proxy, redirects, extra headers.
//!
//! Owns turning a configuration into a client and a request, for scraping and for everybody else who talks
//! HTTP by the same fields. Certificate files are looked at before each use and the client is rebuilt when
//! they changed; secret files are read at each use. Invariant: a secret goes into a header marked sensitive
//! and into no message.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use koios_config::{HttpClientConfig, MinTlsVersion, OAuth2, ProxyConfig, SecretSource, TlsConfig};
use koios_model::{Clock, Code, Coded};
use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Identity, NoProxy, Proxy, RequestBuilder, redirect, tls};

/// Bytes of a secret or certificate file.
const FILE_MAX: u64 = 1 << 20;
/// Redirects followed, as Go's client does.
const REDIRECTS_MAX: usize = 10;
/// Time to connect; the caller's deadline is usually shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept per host.
const IDLE_PER_HOST: usize = 2;
/// A token is renewed this many seconds before it expires.
const TOKEN_MARGIN_S: u64 = 10;

/// Why a client or a request cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// A file that the configuration names.
    #[error("unable to read {what} file {}: {why}", path.display())]
    File {
        /// What it holds.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// A certificate or key that is not valid.
    #[error("unable to use the {what}: {why}")]
    Tls {
        /// Which part.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// Anything else in the configuration.
    #[error("bad http configuration: {0}")]
    Config(String),
    /// No token.
    #[error("oauth2: cannot fetch token from {url}: {why}")]
    Token {
        /// Where.
        url: String,
        /// Why not.
        why: String,
    },
}

impl Coded for HttpError {
    fn code(&self) -> Code {
        match self {
            HttpError::Token { .. } => Code::Unavailable,
            _ => Code::BadData,
        }
    }
}

struct Built {
    client: Client,
    /// Modification time and size of every file that went into it.
    stamp: Vec<(u128, u64)>,
}

struct Token {
    value: String,
    /// Monotonic nanoseconds.
    expires_ns: u64,
}

/// A client with its configuration. Share it; it pools connections.
pub struct HttpClient {
    config: HttpClientConfig,
    clock: Arc<dyn Clock>,
    built: Mutex<Option<Built>>,
    token: Mutex<Option<Token>>,
}

impl HttpClient {
    /// Nothing is read or connected yet.
    pub fn new(config: HttpClientConfig, clock: Arc<dyn Clock>) -> Self {
        Self { config, clock, built: Mutex::new(None), token: Mutex::new(None) }
    }

    /// The configuration.
    pub fn config(&self) -> &HttpClientConfig {
        &self.config
    }

    /// A GET or POST with credentials and headers in place.
    ///
    /// # Errors
    /// Files, certificates, tokens; see `HttpError`.
    pub async fn request(&self, method: reqwest::Method, url: &str) -> Result<RequestBuilder, HttpError> {
        let client = self.client(url).await?;
        let request = client.request(method, self.addressed(url)?);
        self.authorize(request, url).await
    }

    /// With `server_name` the TLS layer must see another host than the URL has.
    fn addressed(&self, url: &str) -> Result<reqwest::Url, HttpError> {
        let mut parsed = reqwest::Url::parse(url).map_err(|e| HttpError::Config(format!("{url:?}: {e}")))?;
        if let Some(name) = self.pinned_name(url) {
            parsed
                .set_host(Some(name))
                .map_err(|e| HttpError::Config(format!("server_name {name:?}: {e}")))?;
        }
        Ok(parsed)
    }

    fn pinned_name(&self, url: &str) -> Option<&str> {
        self.config.tls.server_name.as_deref().filter(|_| url.starts_with("https://"))
    }

    async fn client(&self, url: &str) -> Result<Client, HttpError> {
        if let Some(name) = self.pinned_name(url) {
            return self.pinned_client(url, name).await;
        }
        let stamp = stamp(&self.config.tls);
        if let Some(built) = self.built.lock().as_ref().filter(|b| b.stamp == stamp) {
            return Ok(built.client.clone());
        }
        let client = finish(builder(&self.config.tls, &self.config.proxy, &self.config)?)?;
        *self.built.lock() = Some(Built { client: client.clone(), stamp });
        Ok(client)
    }

    /// A client for which the name in the certificate resolves to the real host's addresses.
    async fn pinned_client(&self, url: &str, name: &str) -> Result<Client, HttpError> {
        let parsed = reqwest::Url::parse(url).map_err(|e| HttpError::Config(format!("{url:?}: {e}")))?;
        let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = parsed.port_or_known_default().unwrap_or(443);
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let addresses: Vec<_> =
            found.map_err(|e| HttpError::Config(format!("lookup {host}: {e}")))?.collect();
        let plain = builder(&self.config.tls, &self.config.proxy, &self.config)?.http1_only();
        finish(plain.resolve_to_addrs(name, &addresses))
    }

    async fn authorize(&self, mut request: RequestBuilder, url: &str) -> Result<RequestBuilder, HttpError> {
        let c = &self.config;
        if let Some(host) = self.pinned_name(url).and_then(|_| url.split("://").nth(1)) {
            request = request.header(reqwest::header::HOST, host.split(['/', '?']).next().unwrap_or(host));
        }
        if let Some(basic) = &c.basic_auth {
            let user =
                basic.username.as_ref().map(|s| read_secret(s, "username")).transpose()?.unwrap_or_default();
            let password = basic.password.as_ref().map(|s| read_secret(s, "password")).transpose()?;
            request = request.basic_auth(user, password);
        }
        if let Some(auth) = &c.authorization {
            let credentials = auth.credentials.as_ref().map(|s| read_secret(s, "credentials")).transpose()?;
            request = request.header(
                AUTHORIZATION,
                sensitive(&format!("{} {}", auth.kind, credentials.unwrap_or_default()))?,
            );
        }
        if let Some(oauth) = &c.oauth2 {
            let token = self.token(oauth).await?;
            request = request.header(AUTHORIZATION, sensitive(&format!("Bearer {token}"))?);
        }
        for header in &c.headers {
            let name = HeaderName::try_from(&header.name).map_err(|e| HttpError::Config(e.to_string()))?;
            for value in &header.values {
                request = request.header(name.clone(), sensitive(&read_secret(value, "header")?)?);
            }
        }
        Ok(request)
    }

    async fn token(&self, oauth: &OAuth2) -> Result<String, HttpError> {
        let now = self.clock.mono_ns();
        if let Some(token) = self.token.lock().as_ref().filter(|t| t.expires_ns > now) {
            return Ok(token.value.clone());
        }
        let fail = |why: String| HttpError::Token { url: oauth.token_url.to_string(), why };
        let secret = oauth.client_secret.as_ref().map(|s| read_secret(s, "client secret")).transpose()?;
        let form = token_form(oauth, &secret.unwrap_or_default());
        let client = finish(builder(&oauth.tls, &oauth.proxy, &self.config)?)?;
        let request = client
            .post(oauth.token_url.reveal())
            .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .timeout(CONNECT_TIMEOUT)
            .body(form);
        let response = request.send().await.map_err(|e| fail(reason(&e)))?;
        if !response.status().is_success() {
            return Err(fail(format!("server returned HTTP status {}", response.status())));
        }
        let body = crate::fetch::read_body(response, 0).await.map_err(|e| fail(e.cause))?;
        let answer: serde_json::Value = serde_json::from_slice(&body).map_err(|e| fail(e.to_string()))?;
        let value =
            answer["access_token"].as_str().ok_or_else(|| fail("no access_token in the answer".into()))?;
        let seconds = answer["expires_in"].as_u64().unwrap_or(60).saturating_sub(TOKEN_MARGIN_S);
        let expires_ns = now.saturating_add(seconds.saturating_mul(1_000_000_000));
        *self.token.lock() = Some(Token { value: value.to_owned(), expires_ns });
        Ok(value.to_owned())
    }
}

fn token_form(oauth: &OAuth2, secret: &str) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials").append_pair("client_id", &oauth.client_id);
    form.append_pair("client_secret", secret);
    if !oauth.scopes.is_empty() {
        form.append_pair("scope", &oauth.scopes.join(" "));
    }
    form.extend_pairs(&oauth.endpoint_params);
    form.finish()
}

/// The innermost cause of a transport error, without the URL.
pub fn reason(error: &reqwest::Error) -> String {
    let mut at: &dyn std::error::Error = error;
    while let Some(inner) = at.source() {
        at = inner;
    }
    let text = at.to_string();
    // "Connection refused (os error 111)" reads better without the number, and Go says it in lower case.
    let text = text.split(" (os error").next().unwrap_or(&text).trim();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if !text.starts_with(char::is_uppercase) => format!("{first}{}", chars.as_str()),
        Some(first) => format!("{}{}", first.to_lowercase(), chars.as_str()),
        None => "unknown transport error".to_owned(),
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, HttpError> {
    let bad = |_| HttpError::Config("a header value holds a character that HTTP does not allow".into());
    let mut value = HeaderValue::from_str(text).map_err(bad)?;
    value.set_sensitive(true);
    Ok(value)
}

fn read_secret(source: &SecretSource, what: &'static str) -> Result<String, HttpError> {
    match source {
        SecretSource::Inline(secret) => Ok(secret.reveal().to_owned()),
        SecretSource::File(path) => {
            let bytes = read_file(path, what)?;
            let text = String::from_utf8(bytes).map_err(|_| HttpError::File {
                what,
                path: path.clone(),
                why: "not UTF-8".into(),
            })?;
            Ok(text.trim().to_owned())
        }
    }
}

fn read_file(path: &Path, what: &'static str) -> Result<Vec<u8>, HttpError> {
    let fail = |why: String| HttpError::File { what, path: path.to_owned(), why };
    let size = fs::metadata(path).map_err(|e| fail(e.to_string()))?.len();
    if size > FILE_MAX {
        return Err(fail(format!("{size} bytes, more than {FILE_MAX}")));
    }
    fs::read(path).map_err(|e| fail(e.to_string()))
}

fn read_pem(source: &SecretSource, what: &'static str) -> Result<Vec<u8>, HttpError> {
    match source {
        SecretSource::Inline(secret) => Ok(secret.reveal().as_bytes().to_vec()),
        SecretSource::File(path) => read_file(path, what),
    }
}

fn stamp(tls: &TlsConfig) -> Vec<(u128, u64)> {
    let files = [&tls.ca, &tls.cert, &tls.key].into_iter().flatten();
    files
        .filter_map(|s| if let SecretSource::File(path) = s { Some(path) } else { None })
        .map(|path| {
            let meta = fs::metadata(path).ok();
            let modified =
                meta.as_ref().and_then(|m| m.modified().ok()).and_then(|t| t.duration_since(UNIX_EPOCH).ok());
            (modified.unwrap_or_default().as_nanos(), meta.map_or(0, |m| m.len()))
        })
        .collect()
}

fn finish(builder: ClientBuilder) -> Result<Client, HttpError> {
    builder.build().map_err(|e| HttpError::Config(reason(&e)))
}

fn builder(tls: &TlsConfig, proxy: &ProxyConfig, c: &HttpClientConfig) -> Result<ClientBuilder, HttpError> {
    let mut b = Client::builder()
        // Bodies are decompressed by us, where their size can be watched.
        .no_gzip()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .tls_backend_rustls();
    b = b.redirect(redirects(c));
    if !c.enable_http2 {
        b = b.http1_only();
    }
    let bad = |what| move |e: reqwest::Error| HttpError::Tls { what, why: reason(&e) };
    if let Some(ca) = &tls.ca {
        let pem = read_pem(ca, "CA")?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(bad("CA"))?;
        if certificates.is_empty() {
            return Err(HttpError::Tls { what: "CA", why: "no certificate in it".into() });
        }
        b = b.tls_certs_only(certificates);
    }
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        let mut pem = read_pem(cert, "certificate")?;
        pem.push(b'\n');
        pem.extend(read_pem(key, "key")?);
        b = b.identity(Identity::from_pem(&pem).map_err(bad("client certificate"))?);
    }
    if tls.insecure_skip_verify {
        b = b.tls_danger_accept_invalid_certs(true);
    }
    if let Some(version) = tls.min_version {
        b = b.tls_version_min(tls_version(version));
    }
    if let Some(version) = tls.max_version {
        b = b.tls_version_max(tls_version(version));
    }
    add_proxy(b, proxy)
}

/// The client drops `Authorization` when a redirect leaves the host, but knows nothing of secrets in extra
/// headers; with such headers a redirect may not leave.
fn redirects(c: &HttpClientConfig) -> redirect::Policy {
    if !c.follow_redirects {
        return redirect::Policy::none();
    }
    if c.headers.is_empty() {
        return redirect::Policy::limited(REDIRECTS_MAX);
    }
    redirect::Policy::custom(|attempt| {
        let first = attempt.previous().first();
        let same = first
            .is_some_and(|f| f.host_str() == attempt.url().host_str() && f.port() == attempt.url().port());
        match (same, attempt.previous().len() > REDIRECTS_MAX) {
            (true, false) => attempt.follow(),
            (true, true) => attempt.error("too many redirects"),
            (false, _) => attempt.error("a redirect to another host is not followed with http_headers set"),
        }
    })
}

/// Versions before 1.2 are not spoken, so they mean 1.2.
fn tls_version(version: MinTlsVersion) -> tls::Version {
    if version == MinTlsVersion::Tls13 { tls::Version::TLS_1_3 } else { tls::Version::TLS_1_2 }
}

fn add_proxy(b: ClientBuilder, proxy: &ProxyConfig) -> Result<ClientBuilder, HttpError> {
    let Some(url) = &proxy.url else {
        return Ok(if proxy.from_environment { b } else { b.no_proxy() });
    };
    let mut p =
        Proxy::all(url.reveal()).map_err(|e| HttpError::Config(format!("proxy_url: {}", reason(&e))))?;
    p = p.no_proxy(proxy.no_proxy.as_deref().and_then(NoProxy::from_string));
    let mut headers = HeaderMap::new();
    for (name, values) in &proxy.connect_headers {
        let name = HeaderName::try_from(name).map_err(|e| HttpError::Config(e.to_string()))?;
        for value in values {
            headers.append(name.clone(), sensitive(value.reveal())?);
        }
    }
    if !headers.is_empty() {
        p = p.headers(headers);
    }
    Ok(b.proxy(p))
}
