//! `koios`: one binary, one kind of process.
//!
//! Owns the command line (`cli`), what the flags and the file come to (`settings`), the order of start
//! (`start`), the wiring of actors (`wire`), the drain (`shutdown`), and the small commands beside running a
//! node. Refuses logic of its own: everything else is a crate below.

mod admin;
mod banner;
mod bench;
mod blocks_tool;
mod cli;
mod commands;
mod compact_tool;
mod counted;
mod facts_port;
mod features;
mod federating;
mod gossiping;
mod identity;
mod joining;
mod listen;
mod local_blocks;
mod metrics;
mod moving_in;
mod picture_metrics;
mod port;
mod push;
mod reports;
mod rpc;
mod serve;
mod settings;
mod shipping;
mod shutdown;
mod sidecar;
mod start;
mod static_peers;
mod status;
mod tsdb_tool;
mod watching;
mod wire;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    #[cfg(debug_assertions)]
    koios_model::failpoint::arm_from_environment();
    // Two crypto providers may be compiled in through dependencies; without a default rustls would panic.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match cli.command {
        Some(command) => commands::run(command),
        None => start::run(cli.run),
    }
}
