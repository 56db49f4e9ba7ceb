//! Unpacking a body within bounds.
//!
//! Owns the check that a claimed length is possible before memory is taken for it: snappy's format cannot unpack to
//! more than 64 bytes per 3 of input (format description, "Copies"), so a short body with a great claim is refused
//! unread. Zstandard frames need not claim anything; they are read piece by piece until the bound.

use std::io::Read;

use crate::limits::Limits;
use crate::memory::Held;
use crate::negotiate::Encoding;

/// More than snappy can unpack from one byte.
const SNAPPY_RATIO_MAX: usize = 22;
/// Longest window of a Zstandard frame, as a power of 2: that of the usual levels.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
const PIECE: usize = 128 << 10;

/// Why a body is not unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// It is not of this encoding, or was damaged on its way.
    #[error(
        "the body is not valid {encoding}: {why}; fix: check Content-Encoding and what stands between sender and node"
    )]
    Corrupt {
        /// Which encoding.
        encoding: &'static str,
        /// What the decoder says.
        why: String,
    },
    /// It unpacks to more than a request may have.
    #[error("the request unpacks to more than {max} bytes; fix: send fewer samples per request")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// Other requests hold all memory there is for requests (bytes).
    #[error("requests of {0} bytes are being worked on already")]
    NoRoom(u64),
}

/// Unpacks a body; what it takes is added to `held`.
pub(crate) fn unpack(
    encoding: Encoding,
    body: &[u8],
    limits: &Limits,
    held: &mut Held,
) -> Result<Vec<u8>, UnpackError> {
    match encoding {
        Encoding::Snappy => snappy(body, limits, held),
        Encoding::Zstd => zstd(body, limits, held),
    }
}

fn snappy(body: &[u8], limits: &Limits, held: &mut Held) -> Result<Vec<u8>, UnpackError> {
    if !held.take(snappy_length(body, limits.decoded_bytes)?) {
        return Err(UnpackError::NoRoom(limits.bytes_in_flight));
    }
    open_snappy(body)
}

/// What a snappy block unpacks to, bytes; no more than `max` and than its length allows.
fn snappy_length(body: &[u8], max: usize) -> Result<usize, UnpackError> {
    if body.is_empty() {
        return Err(bad_snappy("it is empty"));
    }
    let claimed = snap::raw::decompress_len(body).map_err(|e| bad_snappy(&e.to_string()))?;
    if claimed > max {
        return Err(UnpackError::TooLarge { max });
    }
    if claimed > body.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(bad_snappy("it claims to unpack to more than its length allows"));
    }
    Ok(claimed)
}

/// Unpacks a snappy block that comes to at most `max` bytes.
pub(crate) fn unpack_snappy(body: &[u8], max: usize) -> Result<Vec<u8>, UnpackError> {
    snappy_length(body, max)?;
    open_snappy(body)
}

fn open_snappy(body: &[u8]) -> Result<Vec<u8>, UnpackError> {
    snap::raw::Decoder::new().decompress_vec(body).map_err(|e| bad_snappy(&e.to_string()))
}

fn bad_snappy(why: &str) -> UnpackError {
    UnpackError::Corrupt { encoding: "snappy", why: why.to_owned() }
}

fn zstd(body: &[u8], limits: &Limits, held: &mut Held) -> Result<Vec<u8>, UnpackError> {
    let corrupt = |e: std::io::Error| UnpackError::Corrupt { encoding: "zstd", why: e.to_string() };
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(corrupt)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(corrupt)?;
    let mut out = Vec::new();
    loop {
        if !held.take(PIECE) {
            return Err(UnpackError::NoRoom(limits.bytes_in_flight));
        }
        let read = (&mut decoder).take(PIECE as u64).read_to_end(&mut out).map_err(corrupt)?;
        if out.len() > limits.decoded_bytes {
            return Err(UnpackError::TooLarge { max: limits.decoded_bytes });
        }
        if read < PIECE {
            return Ok(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Room;

    fn run(encoding: Encoding, body: &[u8], limits: &Limits) -> Result<Vec<u8>, UnpackError> {
        let room = Room::new(limits.bytes_in_flight);
        unpack(encoding, body, limits, &mut Held::none(&room))
    }

    fn pack(encoding: Encoding, data: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Snappy => snap::raw::Encoder::new().compress_vec(data).unwrap(),
            Encoding::Zstd => zstd::encode_all(data, 1).unwrap(),
        }
    }

    #[test]
    fn unpacks_up_to_the_bound() {
        let limits = Limits { decoded_bytes: 300_000, ..Limits::default() };
        for encoding in [Encoding::Snappy, Encoding::Zstd] {
            for n in [0, 1, PIECE - 1, PIECE, PIECE + 1, 300_000] {
                let data: Vec<u8> = (0..n).map(|i| (i / 7) as u8).collect();
                assert_eq!(run(encoding, &pack(encoding, &data), &limits), Ok(data), "{encoding:?} {n}");
            }
            let large = pack(encoding, &vec![0; 300_001]);
            assert_eq!(run(encoding, &large, &limits), Err(UnpackError::TooLarge { max: 300_000 }));
            let tight = Limits { bytes_in_flight: 10, ..limits };
            assert_eq!(run(encoding, &pack(encoding, &[0; 11]), &tight), Err(UnpackError::NoRoom(10)));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_stay_within_the_bound(body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let limits = Limits { decoded_bytes: 2000, ..Limits::default() };
            for encoding in [Encoding::Snappy, Encoding::Zstd] {
                for body in [body.clone(), pack(encoding, &body), pack(encoding, &body)[1..].to_vec()] {
                    if let Ok(out) = run(encoding, &body, &limits) {
                        proptest::prop_assert!(out.len() <= 2000);
                    }
                }
            }
        }
    }

    #[test]
    fn nonsense_is_corrupt() {
        for (encoding, body) in [
            (Encoding::Snappy, &b""[..]),
            (Encoding::Snappy, b"\xff\xff\xff\xff\xff\xff"),
            (Encoding::Snappy, b"\x05hello"),
            // Claims 16 MiB in four bytes.
            (Encoding::Snappy, b"\x80\x80\x80\x08"),
            (Encoding::Zstd, b"\x28\xb5\x2f\xfd\x00"),
            (Encoding::Zstd, b"not zstd at all"),
        ] {
            let got = run(encoding, body, &Limits::default());
            assert!(matches!(got, Err(UnpackError::Corrupt { .. })), "{body:?}: {got:?}");
        }
    }
}
