//! Pages for people.

pub mod cluster;
