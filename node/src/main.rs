//! The `comity` program.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    comity_node::cli::run(comity_node::cli::Cli::parse())
}
