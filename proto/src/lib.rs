//! Koios wire messages: generated protobuf types
