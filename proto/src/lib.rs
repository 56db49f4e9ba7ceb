//! Wire messages, generated from the `.proto` files beside this crate and checked in.
//!
//! Owns generated types and nothing else: no conversions that need an engine. `tests/codegen.rs`
//! generates again and compares, so the sources and the output cannot drift; run it with
//! `KOIOS_WRITE_CODEGEN=1` to write a changed output.

#![allow(missing_docs)] // generated

/// All of the `.proto` files as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");

/// Node to node.
pub mod peer {
    include!("gen/koios.peer.v1.rs");
}

/// Remote write 1.0, and remote read.
pub mod prometheus {
    include!("gen/prometheus.rs");
}

/// Remote write 2.0.
pub mod write_v2 {
    include!("gen/io.prometheus.write.v2.rs");
}

/// Thanos' services.
pub mod thanos {
    include!("gen/thanos.rs");

    /// What an endpoint is and offers.
    pub mod info {
        include!("gen/thanos.info.rs");
    }
}
