//! Koios block format: meta, index, chunk segments, tombstones
