//! The bounds of one request and of all together.
//!
//! Owns the numbers and nothing else. Prometheus bounds only the decoded length; the others keep what is made of a
//! request in proportion to it, because two bytes of protobuf can stand for hundreds of bytes in memory.

/// Bounds. Reaching one refuses the request or the series, with words that name the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body as it is sent.
    pub body_bytes: usize,
    /// Bytes of a body when unpacked (Prometheus: 32 MiB).
    pub decoded_bytes: usize,
    /// Bytes of all requests that are being worked on: bodies, packed and unpacked, then batches.
    pub bytes_in_flight: u64,
    /// Samples and histograms of a request.
    pub samples: usize,
    /// Exemplars of a request; further ones are left out and counted.
    pub exemplars: usize,
    /// Families a request may describe; further ones are left out.
    pub families: usize,
    /// Symbols of a version 2 request.
    pub symbols: usize,
    /// Bytes of the label sets of a request, written out.
    pub label_bytes: usize,
    /// Buckets, spans and bounds of all histograms of a request.
    pub histogram_parts: usize,
    /// Bytes of one histogram as it is sent.
    pub histogram_bytes: usize,
    /// Labels of a series.
    pub labels: usize,
    /// Bytes of a label name.
    pub name_bytes: usize,
    /// Bytes of a label value.
    pub value_bytes: usize,
    /// Bytes of a help text or unit; longer ones are left out.
    pub help_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 20,
            decoded_bytes: 32 << 20,
            bytes_in_flight: 256 << 20,
            samples: 1 << 20,
            exemplars: 1 << 16,
            families: 1 << 14,
            symbols: 1 << 20,
            label_bytes: 128 << 20,
            histogram_parts: 4 << 20,
            histogram_bytes: 1 << 20,
            labels: 128,
            name_bytes: 1 << 10,
            value_bytes: 16 << 10,
            help_bytes: 4 << 10,
        }
    }
}
