//! Koios configuration: YAML to raw to validated, every error with its place
