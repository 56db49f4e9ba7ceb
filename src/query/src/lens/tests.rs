//! Lenses.
