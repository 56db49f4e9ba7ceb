//! The question: unpacked, walked and checked, and the form of the answer.
//!
//! Owns the bounds of a question and the words about one that cannot be answered.

use koios_model::{MatchType, Matcher};

use crate::unpack::{UnpackError, unpack_snappy};
use crate::wire::{Broken, Fields, each_uint};

/// Bytes of a question as it is sent.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of a question when unpacked.
pub const DECODED_BYTES_MAX: usize = 4 << 20;
/// Queries of a question. A Prometheus sends one.
pub const QUERIES_MAX: usize = 64;
/// Matchers of a query.
pub const MATCHERS_MAX: usize = 256;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All samples in one message.
    Samples,
    /// Chunks in frames.
    Chunks,
}

/// One query.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadQuery {
    /// First sample time, inclusive, milliseconds.
    pub mint: i64,
    /// Last sample time, inclusive, milliseconds.
    pub maxt: i64,
    /// Conditions on labels.
    pub matchers: Vec<Matcher>,
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadRequest {
    /// Queries.
    pub queries: Vec<ReadQuery>,
    /// The first form of those allowed that is known here.
    pub kind: Kind,
}

/// Why a question cannot be answered; all of these are the asker's to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is no snappy block, or was damaged on its way.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// It is no `prometheus.ReadRequest`.
    #[error("the body is not a prometheus.ReadRequest: {0}; fix: ask as remote read 1.0 does")]
    Protobuf(&'static str),
    /// More than a question may have.
    #[error("the question has more than {max} {what}; fix: ask in several requests")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A condition that cannot be.
    #[error("query {query}: matcher of label {name:?}: {why}")]
    Matcher {
        /// Which query, from 0.
        query: usize,
        /// The label.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// None of the allowed forms is known here.
    #[error(
        "none of the accepted response types {0:?} is known; fix: accept SAMPLES (0) or STREAMED_XOR_CHUNKS (1)"
    )]
    Kinds(Vec<u64>),
}

impl ReadRequest {
    /// Opens a body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(body: &[u8]) -> Result<Self, ReadError> {
        let message = unpack_snappy(body, DECODED_BYTES_MAX).map_err(|e| match e {
            UnpackError::TooLarge { max } => ReadError::TooMuch { what: "bytes", max },
            other => other.into(),
        })?;
        Self::decode(&message)
    }

    /// Reads the message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(message: &[u8]) -> Result<Self, ReadError> {
        let (mut queries, mut kinds) = (Vec::new(), Vec::new());
        let mut fields = Fields::of(message);
        while let Some((number, value)) = fields.next().map_err(ReadError::Protobuf)? {
            match number {
                1 => {
                    if queries.len() == QUERIES_MAX {
                        return Err(ReadError::TooMuch { what: "queries", max: QUERIES_MAX });
                    }
                    queries.push(query(queries.len(), value.bytes().map_err(ReadError::Protobuf)?)?);
                }
                2 => {
                    // Of many types the first few decide, and the words name no more.
                    each_uint(value, |kind| {
                        if kinds.len() < 16 {
                            kinds.push(kind)
                        }
                    })
                    .map_err(ReadError::Protobuf)?;
                }
                _ => {}
            }
        }
        Ok(Self { queries, kind: negotiate(&kinds).ok_or(ReadError::Kinds(kinds))? })
    }
}

/// The first that is known; samples when nothing is said.
fn negotiate(kinds: &[u64]) -> Option<Kind> {
    if kinds.is_empty() {
        return Some(Kind::Samples);
    }
    kinds.iter().find_map(|kind| match kind {
        0 => Some(Kind::Samples),
        1 => Some(Kind::Chunks),
        _ => None,
    })
}

fn query(index: usize, message: &[u8]) -> Result<ReadQuery, ReadError> {
    let mut q = ReadQuery { mint: 0, maxt: 0, matchers: Vec::new() };
    let mut fields = Fields::of(message);
    while let Some((number, value)) = fields.next().map_err(ReadError::Protobuf)? {
        match number {
            1 => q.mint = value.int().map_err(ReadError::Protobuf)?,
            2 => q.maxt = value.int().map_err(ReadError::Protobuf)?,
            3 => {
                if q.matchers.len() == MATCHERS_MAX {
                    return Err(ReadError::TooMuch { what: "matchers in one query", max: MATCHERS_MAX });
                }
                let (kind, name, value) =
                    raw_matcher(value.bytes().map_err(ReadError::Protobuf)?).map_err(ReadError::Protobuf)?;
                let wrong = |why: String| ReadError::Matcher { query: index, name: name.to_owned(), why };
                let kind = match kind {
                    0 => MatchType::Equal,
                    1 => MatchType::NotEqual,
                    2 => MatchType::Regex,
                    3 => MatchType::NotRegex,
                    other => return Err(wrong(format!("type {other} is unknown; known are 0 to 3"))),
                };
                q.matchers.push(Matcher::new(kind, name, value).map_err(|e| wrong(e.to_string()))?);
            }
            _ => {}
        }
    }
    Ok(q)
}

fn raw_matcher(message: &[u8]) -> Result<(u64, &str, &str), Broken> {
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| "a text is not valid UTF-8");
    let (mut kind, mut name, mut value) = (0, "", "");
    let mut fields = Fields::of(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => kind = content.uint()?,
            2 => name = text(content.bytes()?)?,
            3 => value = text(content.bytes()?)?,
            _ => {}
        }
    }
    Ok((kind, name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use koios_proto::prometheus as wire;
    use prost::Message;

    fn matcher(r#type: i32, name: &str, value: &str) -> wire::LabelMatcher {
        wire::LabelMatcher { r#type, name: name.into(), value: value.into() }
    }

    fn request(matchers: Vec<wire::LabelMatcher>, kinds: Vec<i32>) -> Vec<u8> {
        let hints = Some(wire::ReadHints { func: "rate".into(), by: true, ..Default::default() });
        let query = wire::Query { start_timestamp_ms: -5, end_timestamp_ms: 7, matchers, hints };
        let message = wire::ReadRequest { queries: vec![query], accepted_response_types: kinds };
        snap::raw::Encoder::new().compress_vec(&message.encode_to_vec()).unwrap()
    }

    #[test]
    fn a_question_is_read() {
        let matchers =
            vec![matcher(0, "a", "1"), matcher(1, "b", "2"), matcher(2, "c", "x.*"), matcher(3, "d", "y")];
        let read = ReadRequest::open(&request(matchers, Vec::new())).unwrap();
        let [query] = &read.queries[..] else { panic!("{read:?}") };
        assert_eq!((query.mint, query.maxt, read.kind), (-5, 7, Kind::Samples));
        let words: Vec<String> = query.matchers.iter().map(ToString::to_string).collect();
        assert_eq!(words, [r#"a="1""#, r#"b!="2""#, r#"c=~"x.*""#, r#"d!~"y""#]);
        let nothing = snap::raw::Encoder::new().compress_vec(b"").unwrap();
        assert_eq!(ReadRequest::open(&nothing).unwrap().queries, []);
    }

    #[test]
    fn the_first_known_form_counts() {
        for (kinds, want) in [
            (vec![], Ok(Kind::Samples)),
            (vec![1], Ok(Kind::Chunks)),
            (vec![0, 1], Ok(Kind::Samples)),
            (vec![1, 0], Ok(Kind::Chunks)),
            (vec![9, 1, 0], Ok(Kind::Chunks)),
            (vec![9, 8], Err(ReadError::Kinds(vec![9, 8]))),
        ] {
            assert_eq!(ReadRequest::open(&request(Vec::new(), kinds)).map(|r| r.kind), want);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let words = |body: &[u8]| ReadRequest::open(body).unwrap_err().to_string();
        assert!(words(b"").contains("not valid snappy"), "{}", words(b""));
        assert!(words(b"\x05hello").contains("not valid snappy"));
        assert!(words(b"\xff\xff\xff\x7f\x00").contains("more than 4194304 bytes"));
        let pack = |m: &[u8]| snap::raw::Encoder::new().compress_vec(m).unwrap();
        assert!(words(&pack(&[0x0a, 9, 1])).contains("not a prometheus.ReadRequest"));
        let bad = words(&request(vec![matcher(2, "job", "a(")], vec![]));
        assert!(bad.contains(r#"query 0: matcher of label "job""#), "{bad}");
        assert!(words(&request(vec![matcher(7, "job", "")], vec![])).contains("type 7 is unknown"));
        let many = request(vec![matcher(0, "a", "b"); MATCHERS_MAX + 1], vec![]);
        assert!(words(&many).contains("more than 256 matchers"));
        assert!(words(&pack(&[0x0a, 0].repeat(QUERIES_MAX + 1))).contains("more than 64 queries"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = ReadRequest::decode(&body);
            let _ = ReadRequest::open(&body);
        }
    }
}
