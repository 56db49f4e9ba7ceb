//! Koios chunk encodings: XOR and its iterators
