//! Request parameters: URL query and form body merged as Go's `ParseForm` does.
//!
//! The body comes first, so it wins for single values; repeated keys are concatenated; an empty value counts
//! as absent for single values; unknown keys are ignored. Bounds: 10 MiB of body, 4,096 pairs.

use actix_web::dev::Payload;
use actix_web::http::{Method, header};
use actix_web::{FromRequest, HttpRequest};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use koios_model::Matcher;
use koios_model::duration::parse_duration;
use koios_model::format::parse_go_float;
use koios_model::timestamp::parse_time;

use super::reply::ApiError;

/// Largest form body.
pub const BODY_BYTES_MAX: usize = 10 << 20;
/// Most key-value pairs.
pub const PAIRS_MAX: usize = 4096;

/// Texts for Prometheus' two magic times.
const MIN_TIME: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME: &str = "292277025-08-18T07:12:54.999999999Z";

/// Decoded parameters, body before URL.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// From decoded pairs.
    pub fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// Of a URL alone, for requests whose body is something else.
    ///
    /// # Errors
    /// `bad_data` in Prometheus' words.
    pub fn of_url(request: &HttpRequest) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        decode_pairs(request.query_string().as_bytes(), &mut pairs)?;
        Ok(Self(pairs))
    }

    /// The first value of `name` that is not empty.
    pub fn first(&self, name: &str) -> Option<&str> {
        // Go takes the first value; an empty one means absent.
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A time in milliseconds, or `default`.
    ///
    /// # Errors
    /// `bad_data` in Prometheus' words.
    pub fn time(&self, name: &str, default: Option<i64>) -> Result<i64, ApiError> {
        match (self.first(name), default) {
            (None, Some(t)) => Ok(t),
            (text, _) => {
                let text = text.unwrap_or("");
                read_time(text).ok_or_else(|| {
                    invalid(name, &format!("cannot parse {} to a valid timestamp", quoted(text)))
                })
            }
        }
    }

    /// A time in milliseconds for labels and series, whose error is worded differently.
    ///
    /// # Errors
    /// `bad_data` in Prometheus' words.
    pub fn metadata_time(&self, name: &str, default: i64) -> Result<i64, ApiError> {
        match self.first(name) {
            None => Ok(default),
            Some(text) => read_time(text).ok_or_else(|| {
                let why = format!(
                    "invalid time value for '{name}': cannot parse {} to a valid timestamp",
                    quoted(text)
                );
                invalid(name, &why)
            }),
        }
    }

    /// A duration in milliseconds: float seconds or Prometheus' notation.
    ///
    /// # Errors
    /// `bad_data` in Prometheus' words.
    pub fn duration(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.first(name) else { return Ok(None) };
        read_duration(text)
            .map(Some)
            .ok_or_else(|| invalid(name, &format!("cannot parse {} to a valid duration", quoted(text))))
    }

    /// `limit`: a whole number, 0 means none.
    ///
    /// # Errors
    /// `bad_data` in Prometheus' words.
    pub fn limit(&self) -> Result<usize, ApiError> {
        let Some(text) = self.first("limit") else { return Ok(0) };
        match text.parse::<i64>() {
            Ok(n) if n >= 0 => Ok(n as usize),
            Ok(_) => Err(invalid("limit", "limit must be non-negative")),
            Err(_) => {
                Err(invalid("limit", &format!("strconv.Atoi: parsing {}: invalid syntax", quoted(text))))
            }
        }
    }

    /// `partial_response`, when given.
    ///
    /// # Errors
    /// `bad_data` when it is not a boolean.
    pub fn partial(&self) -> Result<Option<bool>, ApiError> {
        self.boolean("partial_response").map_err(|why| invalid("partial_response", &why))
    }

    /// A truth as Go reads it; `None` when missing.
    ///
    /// # Errors
    /// Go's words.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, String> {
        match self.first(name) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quoted(other))),
        }
    }

    /// The selectors of `match[]`.
    ///
    /// # Errors
    /// In Prometheus' words, when one does not parse or matches everything. Endpoints wrap it differently.
    pub fn selectors(&self) -> Result<Vec<Vec<Matcher>>, String> {
        let mut selectors = Vec::new();
        for text in self.all("match[]") {
            let matchers = koios_promql::parse_selector(text).map_err(|e| {
                let why = e.to_string();
                // A query says where; a parameter that is nothing but a selector need not.
                if why.ends_with(MATCHES_ALL) { MATCH_MATCHES_ALL.to_owned() } else { why }
            })?;
            if matchers.iter().all(Matcher::matches_empty) {
                return Err(MATCH_MATCHES_ALL.to_owned());
            }
            selectors.push(matchers);
        }
        Ok(selectors)
    }
}

const MATCHES_ALL: &str = "vector selector must contain at least one non-empty matcher";
const MATCH_MATCHES_ALL: &str = "match[] must contain at least one non-empty matcher";

/// An `invalid parameter "x": …` error.
pub fn invalid(name: &str, why: &str) -> ApiError {
    ApiError::bad_data(format!("invalid parameter {}: {why}", quoted(name)))
}

fn quoted(text: &str) -> String {
    koios_model::format::go_quote(text)
}

fn read_time(text: &str) -> Option<i64> {
    match text {
        MIN_TIME => Some(i64::MIN / 1_000_000),
        MAX_TIME => Some(i64::MAX / 1_000_000),
        text => parse_time(text),
    }
}

pub(super) fn read_duration(text: &str) -> Option<i64> {
    if let Some(seconds) = parse_go_float(text) {
        let ns = seconds * 1e9;
        return (ns.is_finite() && ns.abs() <= 9.2e18).then(|| (ns / 1e6).trunc() as i64);
    }
    parse_duration(text).ok()
}

impl FromRequest for Params {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let query = request.query_string().to_owned();
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        let media = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        let form = media == "application/x-www-form-urlencoded" && request.method() == Method::POST;
        let mut payload = payload.take();
        Box::pin(async move {
            let mut pairs = Vec::new();
            if form {
                let mut body = Vec::new();
                while let Some(part) = payload.next().await {
                    let part =
                        part.map_err(|e| ApiError::bad_data(format!("error parsing form values: {e}")))?;
                    if body.len() + part.len() > BODY_BYTES_MAX {
                        return Err(ApiError::bad_data(
                            "error parsing form values: http: request body too large".into(),
                        ));
                    }
                    body.extend_from_slice(&part);
                }
                decode_pairs(&body, &mut pairs)?;
            }
            decode_pairs(query.as_bytes(), &mut pairs)?;
            Ok(Params(pairs))
        })
    }
}

fn decode_pairs(text: &[u8], pairs: &mut Vec<(String, String)>) -> Result<(), ApiError> {
    let bad = |why: &str| ApiError::bad_data(format!("error parsing form values: {why}"));
    for pair in text.split(|b| *b == b'&').filter(|p| !p.is_empty()) {
        if pairs.len() >= PAIRS_MAX {
            return Err(bad("too many parameters"));
        }
        let cut = pair.iter().position(|b| *b == b'=');
        let (name, value) = cut.map_or((pair, &[][..]), |i| (&pair[..i], &pair[i + 1..]));
        pairs.push((decode(name).map_err(|e| bad(&e))?, decode(value).map_err(|e| bad(&e))?));
    }
    Ok(())
}

fn decode(text: &[u8]) -> Result<String, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = text.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
                let byte = hex.and_then(|h| u8::from_str_radix(h, 16).ok());
                let shown = String::from_utf8_lossy(&text[at..text.len().min(at + 3)]).into_owned();
                out.push(byte.ok_or_else(|| format!("invalid URL escape {}", quoted(&shown)))?);
                at += 2;
            }
            b => out.push(b),
        }
        at += 1;
    }
    String::from_utf8(out).map_err(|_| "parameter is not valid UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params::new(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn body_before_url_and_empty_is_absent() {
        let p = params(&[
            ("query", "body"),
            ("query", "url"),
            ("timeout", ""),
            ("match[]", "a"),
            ("match[]", "b"),
        ]);
        assert_eq!(p.first("query"), Some("body"));
        assert_eq!(p.first("timeout"), None);
        assert_eq!(p.all("match[]").count(), 2);
        assert_eq!(p.duration("timeout").unwrap(), None);
    }

    #[test]
    fn errors_are_worded_as_prometheus_words_them() {
        let p =
            params(&[("time", "x"), ("start", "y"), ("step", "z"), ("limit", "-1"), ("match[]", "{a=\"\"}")]);
        assert_eq!(
            p.time("time", None).unwrap_err().message,
            r#"invalid parameter "time": cannot parse "x" to a valid timestamp"#
        );
        assert_eq!(
            p.metadata_time("start", 0).unwrap_err().message,
            r#"invalid parameter "start": invalid time value for 'start': cannot parse "y" to a valid timestamp"#
        );
        assert_eq!(
            p.duration("step").unwrap_err().message,
            r#"invalid parameter "step": cannot parse "z" to a valid duration"#
        );
        assert_eq!(
            p.limit().unwrap_err().message,
            r#"invalid parameter "limit": limit must be non-negative"#
        );
        assert_eq!(p.selectors().unwrap_err(), MATCH_MATCHES_ALL);
        assert_eq!(params(&[("match[]", "{}")]).selectors().unwrap_err(), MATCH_MATCHES_ALL);
    }

    #[test]
    fn decodes_forms() {
        let mut pairs = Vec::new();
        decode_pairs(b"query=up%7Ba%3D%221%22%7D+%2B+1&x&y=", &mut pairs).unwrap();
        assert_eq!(pairs[0].1, "up{a=\"1\"} + 1");
        assert_eq!(pairs.len(), 3);
        assert!(decode_pairs(b"a=%zz", &mut pairs).is_err());
        assert!(decode_pairs(b"a=%ff", &mut pairs).is_err());
        assert_eq!(read_duration("1.5"), Some(1500));
        assert_eq!(read_duration("1m"), Some(60_000));
        assert_eq!(read_time("1445412749123"), Some(1_445_412_749_123_000), "13 digits of seconds are fine");
    }
}
