//! The `comity-testnet` program.

use std::process::ExitCode;

use clap::Parser;

/// Counts in the process that `prove hostile-input` starts; in all others it is one look at a flag
/// before the system's allocator.
#[global_allocator]
static ALLOCATOR: comity_fuzz::allocation::Counting = comity_fuzz::allocation::Counting;

fn main() -> ExitCode {
    comity_testnet::cli::run(comity_testnet::cli::Cli::parse())
}
