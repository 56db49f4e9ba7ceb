//! How Koios talks HTTP to others: credentials, TLS, proxy. The same fields stand inline in scrape jobs,
//! Alertmanagers and remote endpoints (Prometheus `http_config`).

use std::path::PathBuf;

use crate::read::Section;
use crate::secret::{MaskedUrl, Secret, mask_url};

/// A secret given in the file or by the name of another file, which is read at each use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// Given in the file.
    Inline(Secret),
    /// Path of a file that holds it; surrounding white space is not part of it.
    File(PathBuf),
}

/// User name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// User name.
    pub username: Option<SecretSource>,
    /// Password.
    pub password: Option<SecretSource>,
}

/// The `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Scheme, usually `Bearer`.
    pub kind: String,
    /// What follows the scheme.
    pub credentials: Option<SecretSource>,
}

/// OAuth 2 client credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2 {
    /// Client id.
    pub client_id: String,
    /// Client secret.
    pub client_secret: Option<SecretSource>,
    /// Where tokens are fetched.
    pub token_url: MaskedUrl,
    /// Requested scopes.
    pub scopes: Vec<String>,
    /// Further form fields.
    pub endpoint_params: Vec<(String, String)>,
    /// TLS towards the token endpoint.
    pub tls: TlsConfig,
    /// Proxy towards the token endpoint.
    pub proxy: ProxyConfig,
}

/// Lowest TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinTlsVersion {
    /// TLS 1.0; treated as 1.2, the lowest we speak.
    Tls10,
    /// TLS 1.1; treated as 1.2.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// TLS towards a server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    /// Certificates of trusted authorities, PEM.
    pub ca: Option<SecretSource>,
    /// Our certificate, PEM.
    pub cert: Option<SecretSource>,
    /// Its key, PEM.
    pub key: Option<SecretSource>,
    /// Name to verify instead of the host.
    pub server_name: Option<String>,
    /// Do not verify the server.
    pub insecure_skip_verify: bool,
    /// Lowest version.
    pub min_version: Option<MinTlsVersion>,
    /// Highest version.
    pub max_version: Option<MinTlsVersion>,
}

/// Proxy settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyConfig {
    /// Proxy address.
    pub url: Option<MaskedUrl>,
    /// Hosts that are reached directly.
    pub no_proxy: Option<String>,
    /// Take `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`.
    pub from_environment: bool,
    /// Headers of CONNECT requests.
    pub connect_headers: Vec<(String, Vec<Secret>)>,
}

/// A header sent with every request.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpHeader {
    /// Name.
    pub name: String,
    /// Values, in the order plain, secret, from files.
    pub values: Vec<SecretSource>,
}

/// Everything about the client side of HTTP.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpClientConfig {
    /// User name and password.
    pub basic_auth: Option<BasicAuth>,
    /// `Authorization` header.
    pub authorization: Option<Authorization>,
    /// OAuth 2.
    pub oauth2: Option<OAuth2>,
    /// TLS.
    pub tls: TlsConfig,
    /// Proxy.
    pub proxy: ProxyConfig,
    /// Follow redirects.
    pub follow_redirects: bool,
    /// Offer HTTP/2.
    pub enable_http2: bool,
    /// Extra headers.
    pub headers: Vec<HttpHeader>,
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        Self {
            basic_auth: None,
            authorization: None,
            oauth2: None,
            tls: TlsConfig::default(),
            proxy: ProxyConfig::default(),
            follow_redirects: true,
            enable_http2: true,
            headers: Vec::new(),
        }
    }
}

impl HttpClientConfig {
    /// Reads the fields that stand inline in `s`.
    pub(crate) fn read(s: &mut Section<'_>) -> Self {
        one_credential(s);
        let bearer = source(s, "bearer_token", "bearer_token_file");
        let bearer =
            bearer.map(|credentials| Authorization { kind: "Bearer".into(), credentials: Some(credentials) });
        let basic_auth = s.section("basic_auth").map(|mut b| {
            let username = source(&mut b, "username", "username_file");
            let password = source(&mut b, "password", "password_file");
            b.finish();
            BasicAuth { username, password }
        });
        let authorization = s.section("authorization").map(authorization).or(bearer);
        Self {
            basic_auth,
            authorization,
            oauth2: s.section("oauth2").map(oauth2),
            tls: s.section("tls_config").map(tls).unwrap_or_default(),
            proxy: proxy(s),
            follow_redirects: s.boolean("follow_redirects").unwrap_or(true),
            enable_http2: s.boolean("enable_http2").unwrap_or(true),
            headers: headers(s),
        }
    }
}

fn one_credential(s: &Section<'_>) {
    let all = ["basic_auth", "authorization", "oauth2", "bearer_token", "bearer_token_file"];
    for (i, a) in all.iter().enumerate() {
        for b in &all[i + 1..] {
            s.exclusive(a, b);
        }
    }
}

/// A secret from one of two fields.
pub(crate) fn source(s: &mut Section<'_>, inline: &'static str, file: &'static str) -> Option<SecretSource> {
    s.exclusive(inline, file);
    let path = s.path(file).map(SecretSource::File);
    // A user name is no secret, but is shown only as part of the source text either way.
    let text = if inline == "username" { s.string(inline).map(Secret::new) } else { s.secret(inline) };
    text.map(SecretSource::Inline).or(path)
}

fn authorization(mut s: Section<'_>) -> Authorization {
    let kind = s.text("type");
    if let Some(kind) = kind.as_ref().filter(|k| k.text.eq_ignore_ascii_case("basic")) {
        let cause = "authorization type cannot be \"basic\"";
        s.ctx.error(1308, kind.span, cause, "use `basic_auth:` with `username` and `password` instead");
    }
    let credentials = source(&mut s, "credentials", "credentials_file");
    s.finish();
    Authorization {
        kind: kind.map(|k| k.text).filter(|k| !k.is_empty()).unwrap_or("Bearer".into()),
        credentials,
    }
}

fn oauth2(mut s: Section<'_>) -> OAuth2 {
    let client_id = s.string("client_id").unwrap_or_default();
    let token_url = url(&mut s, "token_url").unwrap_or_default();
    if client_id.is_empty() {
        s.missing("client_id", "add the client id that the authorization server gave you");
    }
    if token_url.is_empty() && !s.has("token_url") {
        s.missing("token_url", "add the URL of the token endpoint");
    }
    let text = |(k, v): (crate::read::Text, crate::read::Text)| (k.text, v.text);
    let out = OAuth2 {
        client_id,
        client_secret: source(&mut s, "client_secret", "client_secret_file"),
        token_url,
        scopes: s.texts("scopes").into_iter().map(|t| t.text).collect(),
        endpoint_params: s.pairs("endpoint_params").into_iter().map(text).collect(),
        tls: s.section("tls_config").map(tls).unwrap_or_default(),
        proxy: proxy(&mut s),
    };
    s.finish();
    out
}

/// Reads a `tls_config`.
pub(crate) fn tls(mut s: Section<'_>) -> TlsConfig {
    const VERSIONS: &[(&str, MinTlsVersion)] = &[
        ("TLS10", MinTlsVersion::Tls10),
        ("TLS11", MinTlsVersion::Tls11),
        ("TLS12", MinTlsVersion::Tls12),
        ("TLS13", MinTlsVersion::Tls13),
    ];
    let out = TlsConfig {
        ca: source(&mut s, "ca", "ca_file"),
        cert: source(&mut s, "cert", "cert_file"),
        key: source(&mut s, "key", "key_file"),
        server_name: s.string("server_name").filter(|n| !n.is_empty()),
        insecure_skip_verify: s.boolean("insecure_skip_verify").unwrap_or(false),
        min_version: s.one_of("min_version", VERSIONS),
        max_version: s.one_of("max_version", VERSIONS),
    };
    if out.cert.is_some() != out.key.is_some() {
        let (has, lacks) = if out.cert.is_some() { ("certificate", "key") } else { ("key", "certificate") };
        let fix = format!("add `{}_file:`", if lacks == "key" { "key" } else { "cert" });
        s.ctx.error(1309, s.span, format!("`tls_config` has a {has} but no {lacks}"), fix);
    }
    s.finish();
    out
}

fn proxy(s: &mut Section<'_>) -> ProxyConfig {
    s.exclusive("proxy_url", "proxy_from_environment");
    let mut connect_headers = Vec::new();
    if let Some(map) = s.section("proxy_connect_header") {
        for (name, _) in map.keys() {
            // Free keys: each holds a list of secrets.
            let values = map.raw(name).map(|n| crate::read::secret_list(map.ctx, n)).unwrap_or_default();
            connect_headers.push((name.to_owned(), values));
        }
    }
    let out = ProxyConfig {
        url: url(s, "proxy_url"),
        no_proxy: s.string("no_proxy").filter(|n| !n.is_empty()),
        from_environment: s.boolean("proxy_from_environment").unwrap_or(false),
        connect_headers,
    };
    if out.no_proxy.is_some() && out.url.is_none() && !s.has("proxy_url") {
        let cause = "`no_proxy` has no effect without `proxy_url`";
        s.ctx.error(1310, s.key_span("no_proxy"), cause, "add `proxy_url`, or remove `no_proxy`");
    }
    out
}

/// Headers that the client sets itself.
const RESERVED: &[&str] = &[
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
    "accept",
];

fn headers(s: &mut Section<'_>) -> Vec<HttpHeader> {
    let Some(map) = s.section("http_headers") else { return Vec::new() };
    let mut out = Vec::new();
    for (name, span) in map.keys() {
        check_header(&map, name, span);
        let Some(node) = map.raw(name) else { continue };
        let mut h = Section::open(map.ctx, node, format!("http_headers.{name}"));
        let plain = h.texts("values").into_iter().map(|t| SecretSource::Inline(Secret::new(t.text)));
        let mut values: Vec<SecretSource> = plain.collect();
        h.allow("secrets");
        if let Some(node) = h.raw("secrets") {
            values.extend(crate::read::secret_list(h.ctx, node).into_iter().map(SecretSource::Inline));
        }
        values.extend(h.texts("files").into_iter().map(|t| SecretSource::File(map.ctx.resolve(&t.text))));
        h.finish();
        out.push(HttpHeader { name: name.to_owned(), values });
    }
    out
}

/// Reports a header that may not be set by hand, or has no valid name.
pub(crate) fn check_header(s: &Section<'_>, name: &str, span: crate::yaml::Span) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        s.ctx.error(
            1311,
            span,
            format!("{name:?} is not a valid header name"),
            "use letters, digits and `-`",
        );
    } else if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
        let cause = format!("the header `{name}` is set by Koios itself");
        s.ctx.error(1311, span, cause, "remove it; for credentials use `authorization:` or `basic_auth:`");
    }
}

/// An absolute `http` or `https` URL.
pub(crate) fn url(s: &mut Section<'_>, name: &'static str) -> Option<MaskedUrl> {
    let written = s.text(name).filter(|t| mask_url(&t.text).is_some());
    if let Some(with_password) = written {
        s.ctx.keep_url(with_password.span);
    }
    s.parsed(name, 1208, |text| {
        let shown = MaskedUrl::new(text);
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let host = rest.map(|r| r.split(['/', '?', '#']).next().unwrap_or(""));
        let fix = || "write an absolute URL, e.g. `https://host:9090/path`".to_owned();
        match host {
            None => Err((format!("\"{shown}\" is not an http or https URL"), fix())),
            Some("") => Err((format!("\"{shown}\" has no host"), fix())),
            Some(_) if text.contains(char::is_whitespace) => {
                Err((format!("\"{shown}\" contains white space"), fix()))
            }
            Some(_) => Ok(MaskedUrl::new(text)),
        }
    })
}
