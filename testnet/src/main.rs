//! The `comity-testnet` program.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    comity_testnet::cli::run(comity_testnet::cli::Cli::parse())
}
