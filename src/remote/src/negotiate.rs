//! What a sender says about its body, and whether it is taken.
//!
//! Owns the rules for `Content-Type` and `Content-Encoding` (remote write specifications 1.0 and 2.0, and what
//! Prometheus tolerates): no `proto` parameter means version 1, no encoding means snappy. What is not known is 415,
//! never a guess, because senders of version 2 go by that. Koios also takes zstd, which vmagent begins with.

use crate::answer::Answer;

const MEDIA: &str = "application/x-protobuf";

/// Which message a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Message {
    /// `prometheus.WriteRequest`, remote write 1.0.
    V1 = 0,
    /// `io.prometheus.write.v2.Request`, remote write 2.0.
    V2 = 1,
}

impl Message {
    /// Every message, by number.
    pub const ALL: [Self; 2] = [Self::V1, Self::V2];

    /// The full name, as the `proto` parameter and Prometheus' flag have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }

    /// The message of this full name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.as_str() == name)
    }
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Snappy's block format.
    Snappy,
    /// Zstandard frames.
    Zstd,
}

/// The headers that matter, as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said<'a> {
    /// `Content-Type`
    pub content_type: Option<&'a str>,
    /// `Content-Encoding`
    pub content_encoding: Option<&'a str>,
    /// `X-VictoriaMetrics-Remote-Write-Version`
    pub vm_version: Option<&'a str>,
}

/// A request that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which message.
    pub message: Message,
    /// How it is packed.
    pub encoding: Encoding,
    /// Whether vmagent's own protocol is spoken, in which 400 would mean "speak snappy from now on".
    pub vmagent: bool,
}

impl Head {
    /// Reads the headers.
    ///
    /// # Errors
    /// An answer with status 415 that says what is taken.
    pub fn read(said: Said<'_>, accepted: &[Message]) -> Result<Self, Answer> {
        let message = message(said.content_type.unwrap_or_default().trim(), accepted)?;
        let vmagent = said.vm_version.is_some();
        let encoding = match said.content_encoding.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "snappy" => Encoding::Snappy,
            "zstd" => Encoding::Zstd,
            other => {
                let other: String = other.chars().take(100).collect();
                return Err(Answer::unsupported(format!(
                    "Content-Encoding {other:?} is not supported; fix: send snappy (block format) or zstd"
                )));
            }
        };
        Ok(Self { message, encoding, vmagent })
    }
}

fn message(content_type: &str, accepted: &[Message]) -> Result<Message, Answer> {
    let unsupported = |why: &str| {
        let names: Vec<&str> = accepted.iter().map(|m| m.as_str()).collect();
        let said: String = content_type.chars().take(200).collect();
        Answer::unsupported(format!(
            "Content-Type {said:?} is not supported: {why}; fix: send {MEDIA} with proto={}",
            names.join(" or ")
        ))
    };
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    // Old senders of version 1 say nothing at all.
    if !media.is_empty() && !media.eq_ignore_ascii_case(MEDIA) {
        return Err(unsupported("not this media type"));
    }
    let mut message = Message::V1;
    for parameter in parts.filter(|p| !p.is_empty()) {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(unsupported("a parameter is not of the form name=value"));
        };
        if name.trim().eq_ignore_ascii_case("proto") {
            let value = value.trim().trim_matches('"');
            message = Message::parse(value).ok_or_else(|| unsupported("unknown message"))?;
            break;
        }
    }
    if accepted.contains(&message) { Ok(message) } else { Err(unsupported("this message is switched off")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: &str, content_encoding: &str) -> Result<Head, u16> {
        let said = Said {
            content_type: Some(content_type),
            content_encoding: Some(content_encoding),
            vm_version: None,
        };
        Head::read(said, &Message::ALL).map_err(|a| a.status)
    }

    #[test]
    fn what_is_taken() {
        for (kind, encoding, want) in [
            ("application/x-protobuf", "snappy", (Message::V1, Encoding::Snappy)),
            (
                "application/x-protobuf;proto=prometheus.WriteRequest",
                "snappy",
                (Message::V1, Encoding::Snappy),
            ),
            (
                "application/x-protobuf;proto=io.prometheus.write.v2.Request",
                "",
                (Message::V2, Encoding::Snappy),
            ),
            (
                " Application/X-Protobuf ; charset=x; proto=\"io.prometheus.write.v2.Request\"",
                "Snappy",
                (Message::V2, Encoding::Snappy),
            ),
            ("application/x-protobuf", "zstd", (Message::V1, Encoding::Zstd)),
            ("", "", (Message::V1, Encoding::Snappy)),
        ] {
            let got = read(kind, encoding).map(|h| (h.message, h.encoding));
            assert_eq!(got, Ok(want), "{kind} {encoding}");
        }
        assert!(
            Head::read(Said { vm_version: Some("1"), ..Said::default() }, &Message::ALL).unwrap().vmagent
        );
    }

    #[test]
    fn what_is_not() {
        for (kind, encoding) in [
            ("application/json", "snappy"),
            ("application/x-protobuf;proto=prometheus.Other", "snappy"),
            ("application/x-protobuf;proto", "snappy"),
            ("application/x-protobuf;proto=", "snappy"),
            ("application/x-protobuf", "gzip"),
            ("application/x-protobuf", "snappy, gzip"),
        ] {
            assert_eq!(read(kind, encoding), Err(415), "{kind} {encoding}");
        }
        let v2 = Said {
            content_type: Some("application/x-protobuf;proto=io.prometheus.write.v2.Request"),
            ..Said::default()
        };
        let answer = Head::read(v2, &[Message::V1]).unwrap_err();
        assert!(
            answer.status == 415 && answer.body.contains("proto=prometheus.WriteRequest"),
            "{}",
            answer.body
        );
        assert_eq!(Head::read(Said::default(), &[Message::V2]).map_err(|a| a.status), Err(415));
    }
}
