//! Koios query: fragments, routing, dedup, completeness
