//! The command line of `comity`.

mod commands;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

pub use serve::{Ready, run_server};

/// A Comity home server: chat for an organisation, linked with those of others.
///
/// First steps:
///   comity init chat.example.org        makes the server in ./comity
///   comity serve                        runs it
///   comity user add alice               makes an account and prints how to sign in
///   comity invite                       prints a token with which people make their own
#[derive(Debug, Parser)]
#[command(name = "comity", version, verbatim_doc_comment)]
pub struct Cli {
    /// The server's directory: comity.toml, keys and data.
    #[arg(long, global = true, default_value = "comity", env = "COMITY_DIR")]
    pub dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a new server: keys, card and comity.toml. Its name is final.
    Init(commands::Init),
    /// Runs the server until SIGINT or SIGTERM; then stops without losing anything.
    Serve(serve::Serve),
    /// Accounts.
    #[command(subcommand)]
    User(commands::User),
    /// Prints a token with which people make their own accounts.
    Invite(commands::Invite),
    /// Prints this server's card, for [[peers]] in another server's comity.toml.
    Card,
    /// How the running server is: exit code 0 healthy, 3 degraded, 1 not running.
    Status(commands::Status),
}

/// Runs the program and gives its exit code: 0 done, 1 failed, 2 usage, 3 degraded.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Init(init) => commands::init(&cli.dir, init),
        Command::Serve(serve) => serve::serve(&cli.dir, &serve),
        Command::User(user) => commands::user(&cli.dir, user),
        Command::Invite(invite) => commands::invite(&cli.dir, &invite),
        Command::Card => commands::card(&cli.dir),
        Command::Status(status) => commands::status(&cli.dir, &status),
    };
    done.unwrap_or_else(|error| {
        eprintln!("comity: {error:#}");
        ExitCode::FAILURE
    })
}
