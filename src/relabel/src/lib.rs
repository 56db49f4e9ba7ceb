//! Koios relabelling: a pure function over label sets
