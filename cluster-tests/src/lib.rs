//! Koios cluster tests: many nodes, one truth
