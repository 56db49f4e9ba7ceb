//! Koios actors: thin shells around the engines, and the kit that makes actix safe
