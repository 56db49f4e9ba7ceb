//! Targets that a server tells over HTTP (Prometheus documentation, "http_sd_config" and "Writing HTTP service
//! discovery").
//!
//! Owns one question to the server with its bounds, and what of its answers is believed: an error changes nothing, and an
//! empty list within `EMPTY_DOUBT_MS` of a full one is believed only when two more say the same. A list has one text
//! (the server's own schema) for the disk, for peers and for comparison. The believing part is pure.
//!
//! Bounds: `ANSWER_MAX` bytes an answer, `PATIENCE` a question.

use std::time::Duration;

use koios_config::{HttpSd, StaticGroup};
use koios_model::Clock;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderName, USER_AGENT};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use crate::discovery::{group, parse_json};
use crate::fetch::read_body;
use crate::http::{HttpClient, reason};
use crate::target::TargetGroup;

/// Decompressed bytes of an answer.
pub const ANSWER_MAX: u64 = 64 << 20;
/// An empty list is doubted for this long after one that was not.
pub const EMPTY_DOUBT_MS: i64 = 600_000;
/// Empty lists in a row that are believed all the same: one, and two that confirm it.
const EMPTY_BELIEVED: u32 = 3;
/// Time for a question; the refresh interval when that is shorter.
const PATIENCE: Duration = Duration::from_secs(30);
/// Prometheus' header that tells the server how often it will be asked.
const REFRESH_HEADER: HeaderName = HeaderName::from_static("x-prometheus-refresh-interval-seconds");
/// Label that names the server a target came from.
const URL: &str = "__meta_url";

/// What a source of targets is known by on every node: what is asked, how often, and with which (not secret) settings.
pub fn source_key(config: &HttpSd) -> u64 {
    xxh3_64(format!("{config:?}").as_bytes())
}

/// A server of targets.
pub struct HttpSource {
    config: HttpSd,
    client: HttpClient,
}

impl HttpSource {
    /// Nothing is connected yet.
    pub fn new(config: HttpSd, clock: Arc<dyn Clock>) -> Self {
        Self { client: HttpClient::new(config.http.clone(), clock), config }
    }

    /// The configuration.
    pub fn config(&self) -> &HttpSd {
        &self.config
    }

    /// Asks once.
    ///
    /// # Errors
    /// Why the answer is no list of targets, in words for a log; without secrets.
    pub async fn ask(&self) -> Result<Vec<StaticGroup>, String> {
        let patience = Duration::from_millis(self.config.refresh_ms.max(1_000) as u64).min(PATIENCE);
        let asked = tokio::time::timeout(patience, self.get()).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {} s", patience.as_secs())))
    }

    async fn get(&self) -> Result<Vec<StaticGroup>, String> {
        let request = self.client.request(Method::GET, self.config.url.reveal()).await;
        let request = request
            .map_err(|e| e.to_string())?
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "gzip")
            .header(USER_AGENT, concat!("Koios/", env!("CARGO_PKG_VERSION")))
            .header(REFRESH_HEADER, (self.config.refresh_ms as f64 / 1000.0).to_string());
        let response = request.send().await.map_err(|e| reason(&e))?;
        if response.status() != StatusCode::OK {
            return Err(format!("server returned HTTP status {}", response.status()));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !is_json(kind) {
            return Err(format!("unsupported content type {kind:?}, expected \"application/json\""));
        }
        let body = read_body(response, ANSWER_MAX).await.map_err(|e| e.cause)?;
        parse(std::str::from_utf8(&body).map_err(|e| e.to_string())?)
    }

    /// Groups as the targets of a job.
    pub fn targets(&self, groups: &[StaticGroup]) -> Vec<TargetGroup> {
        let url = self.config.url.to_string();
        let named = |(i, g): (usize, &StaticGroup)| group(format!("{url}:{i}"), g, Some((URL, &url)));
        groups.iter().enumerate().map(named).collect()
    }
}

/// `application/json`, alone or with the one character set that JSON has.
fn is_json(content_type: &str) -> bool {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, "charset=utf-8"));
    let charset = parameters.trim().to_ascii_lowercase();
    kind.trim().eq_ignore_ascii_case("application/json")
        && matches!(charset.as_str(), "charset=utf-8" | "charset=\"utf-8\"")
}

/// Groups from their text.
///
/// # Errors
/// What is wrong, with line and column.
pub fn parse(text: &str) -> Result<Vec<StaticGroup>, String> {
    parse_json(text).map_err(|e| e.to_string())
}

/// The text of groups; equal lists have equal texts.
fn text_of(groups: &[StaticGroup]) -> String {
    let labels = |g: &StaticGroup| -> Map<String, Value> {
        g.labels.iter().map(|(n, v)| (n.to_owned(), Value::from(v))).collect()
    };
    groups.iter().map(|g| json!({ "targets": g.targets, "labels": labels(g) })).collect::<Value>().to_string()
}

/// What is believed of a source.
#[derive(Clone, Debug, Default)]
pub struct Belief {
    groups: Arc<Vec<StaticGroup>>,
    text: Arc<str>,
    etag: u64,
    /// When a list with targets was heard last, monotonic milliseconds.
    full_ms: Option<i64>,
    empties: u32,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It says what is believed already.
    Same,
    /// It is believed, and new.
    New,
    /// It is empty, and not believed yet.
    Doubted,
}

impl Belief {
    /// Starts from a list of before, which is as good as one that was heard now.
    pub fn remembered(groups: Vec<StaticGroup>, now_ms: i64) -> Self {
        let mut belief = Self::default();
        belief.take(groups, now_ms);
        belief
    }

    /// Takes an answer of the source at monotonic `now_ms`.
    pub fn take(&mut self, groups: Vec<StaticGroup>, now_ms: i64) -> Taken {
        let is_empty = groups.iter().all(|g| g.targets.is_empty());
        if is_empty && self.full_ms.is_some_and(|t| now_ms.saturating_sub(t) < EMPTY_DOUBT_MS) {
            self.empties += 1;
            if self.empties < EMPTY_BELIEVED {
                return Taken::Doubted;
            }
        }
        self.settle(groups, (!is_empty).then_some(now_ms))
    }

    /// Takes what another node believes: it has doubted for both.
    pub fn follow(&mut self, groups: Vec<StaticGroup>, now_ms: i64) -> Taken {
        let is_empty = groups.iter().all(|g| g.targets.is_empty());
        self.settle(groups, (!is_empty).then_some(now_ms))
    }

    /// The other node believes what is believed here.
    pub fn confirm(&mut self, now_ms: i64) {
        if self.full_ms.is_some() {
            self.full_ms = Some(now_ms);
        }
        self.empties = 0;
    }

    fn settle(&mut self, groups: Vec<StaticGroup>, full_ms: Option<i64>) -> Taken {
        (self.empties, self.full_ms) = (0, full_ms);
        let text = text_of(&groups);
        if *text == *self.text {
            return Taken::Same;
        }
        (self.etag, self.text, self.groups) = (xxh3_64(text.as_bytes()), text.into(), Arc::new(groups));
        Taken::New
    }

    /// The list.
    pub fn groups(&self) -> &Arc<Vec<StaticGroup>> {
        &self.groups
    }

    /// Its text; empty as long as nothing was heard.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Short for the text; 0 as long as nothing was heard.
    pub fn etag(&self) -> u64 {
        self.etag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(targets: &[&str]) -> Vec<StaticGroup> {
        parse(&json!([{ "targets": targets }]).to_string()).unwrap()
    }

    #[test]
    fn an_empty_list_is_believed_when_it_is_confirmed_twice() {
        let mut b = Belief::default();
        assert_eq!(b.take(list(&["a:1"]), 0), Taken::New);
        let etag = b.etag();
        assert_eq!([b.take(list(&[]), 60_000), b.take(list(&[]), 120_000)], [Taken::Doubted; 2]);
        assert_eq!(b.take(list(&["a:1"]), 180_000), Taken::Same, "and the doubt begins anew");
        assert_eq!([b.take(vec![], 240_000), b.take(list(&[]), 300_000)], [Taken::Doubted; 2]);
        assert_eq!((b.etag(), b.groups().len()), (etag, 1));
        assert_eq!(b.take(vec![], 360_000), Taken::New);
        assert!(b.groups().is_empty() && b.etag() != etag);
        assert_eq!(b.take(vec![], 420_000), Taken::Same);
    }

    #[test]
    fn an_empty_list_long_after_a_full_one_is_believed_at_once() {
        let mut b = Belief::remembered(list(&["a:1"]), 1_000);
        assert_eq!(
            b.take(vec![], EMPTY_DOUBT_MS + 999),
            Taken::Doubted,
            "what was on disk counts from the start"
        );
        assert_eq!(b.take(vec![], EMPTY_DOUBT_MS + 1_000), Taken::New);
        let mut b = Belief::remembered(list(&["a:1"]), 0);
        b.confirm(EMPTY_DOUBT_MS);
        assert_eq!(b.take(vec![], EMPTY_DOUBT_MS + 1), Taken::Doubted);
        assert_eq!(b.follow(vec![], EMPTY_DOUBT_MS + 2), Taken::New, "who is followed has doubted already");
        assert_eq!(Belief::default().take(vec![], 0), Taken::New, "nothing was there before");
    }

    #[test]
    fn answers_are_read_as_prometheus_reads_them() {
        for (kind, good) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json;charset=\"utf-8\"", true),
            ("application/json; charset=latin1", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_json(kind), good, "{kind:?}");
        }
        let all = r#"[{"targets":["a:1","b:1"],"labels":{"z":"1","a":"ü\""}},{"targets":[]}]"#;
        let groups = parse(all).unwrap();
        assert_eq!(parse(&text_of(&groups)).unwrap(), groups);
        for bad in ["", "{}", "[null]", r#"[{"target":[]}]"#, r#"[{"targets":[1]}]"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn targets_name_their_server_without_its_password() {
        let config = HttpSd {
            url: koios_config::MaskedUrl::new("http://u:hunter2@h/x"),
            refresh_ms: 1,
            http: koios_config::HttpClientConfig::default(),
        };
        let key = source_key(&config);
        let source = HttpSource::new(config.clone(), koios_model::SystemClock::shared());
        let targets = source.targets(&list(&["a:1"]));
        assert_eq!(targets[0].labels.value(URL), "http://u:<secret>@h/x");
        assert_eq!(targets[0].targets[0].value(crate::target::ADDRESS), "a:1");
        assert_ne!(source_key(&HttpSd { refresh_ms: 2, ..config }), key);
    }
}
