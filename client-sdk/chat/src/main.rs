//! `comity-chat`: talk from a terminal. Plain lines in, plain lines out: works in a pipe too.

mod app;
mod command;
mod render;
mod text;

use std::{
    io::{BufRead, IsTerminal, Write},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use comity_sdk::{Client, Transport};
use tokio::sync::mpsc;

/// Lines read ahead of the one being worked on.
const INPUT_LINES: usize = 64;

const EXAMPLES: &str = "\
Examples:
  comity-chat --invite TOKEN alice@eu.example     make a new user (asks for a password to set)
  comity-chat alice@eu.example                    sign in; asks for the password the first time
  comity-chat --token TOKEN bot@eu.example        sign in with a device token
  comity-chat --server 127.0.0.1:8008 alice@eu.example
  echo 'deploy done' | comity-chat alice@eu.example --open Ops
  COMITY_PASSWORD=... comity-chat alice@eu.example < script

After the first sign-in the device's key is kept in the store, and no password is needed.
Type /help inside for the commands.";

/// Chat on a Comity server from the terminal.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// Who you are: alice@eu.example
    address: String,
    /// Sign in with this device token, the first time; with --sign-up, an invitation's
    #[arg(
        long,
        value_name = "TOKEN",
        env = "COMITY_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// Make a new user with the invitation given as --token
    #[arg(long, requires = "token")]
    sign_up: bool,
    /// The same in one word: make a new user with this invitation
    #[arg(long, value_name = "TOKEN", conflicts_with = "token")]
    invite: Option<String>,
    /// Password; better in the environment than on the command line, where others can read it
    #[arg(long, env = "COMITY_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Where the server is, if not at the address's name: host:port or URL
    #[arg(long, value_name = "SERVER", env = "COMITY_SERVER")]
    server: Option<String>,
    /// Trust this root certificate too (PEM file); also COMITY_CA
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How to connect
    #[arg(long, value_enum, default_value = "auto")]
    transport: Via,
    /// Directory for this device's key, outbox and place of reading
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Open this conversation first: title, id, or a user's address
    #[arg(long, value_name = "NAME")]
    open: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Via {
    /// QUIC, and WebSocket where QUIC does not get through
    Auto,
    /// QUIC only
    Quic,
    /// WebSocket only
    Websocket,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("comity-chat: {}", text::safe(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<bool> {
    let store = match args.store {
        Some(store) => store,
        None => default_store(&args.address).context("no home directory: name one with --store")?,
    };
    let mut builder = Client::builder(&args.address)
        .store(&store)
        .device_name("comity-chat")
        .offline_ok(true)
        .transport(match args.transport {
            Via::Auto => Transport::Auto,
            Via::Quic => Transport::Quic,
            Via::Websocket => Transport::WebSocket,
        });
    if let Some(server) = args.server {
        builder = builder.server(server);
    }
    if let Some(ca) = args.ca {
        builder = builder.ca(ca);
    }
    let known = store.join("account.json").exists();
    let (token, invite) = match args.token {
        Some(token) if args.sign_up => (None, Some(token)),
        token => (token, args.invite),
    };
    builder = match (token, invite, args.password) {
        (Some(token), _, _) => builder.token(token),
        (None, Some(token), Some(password)) => builder.sign_up(password, token),
        (None, Some(token), None) if !known => builder.sign_up(ask_password()?, token),
        (None, None, Some(password)) => builder.password(password),
        (None, None, None) if !known => builder.password(ask_password()?),
        _ => builder,
    };
    let client = builder
        .connect()
        .await
        .with_context(|| format!("signing in as {}", args.address))?;
    app::App::new(client).run(read_input(), args.open).await
}

/// Standard input as lines. A thread of its own: reading cannot be interrupted.
fn read_input() -> mpsc::Receiver<String> {
    let (lines, input) = mpsc::channel(INPUT_LINES);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            // Bytes that are no UTF-8 end the input as its end does.
            let Ok(line) = line else { break };
            if lines.blocking_send(line).is_err() {
                break;
            }
        }
    });
    input
}

/// Asks on the terminal, without showing what is typed where the terminal allows it.
fn ask_password() -> Result<String> {
    let hide = std::io::stdin().is_terminal();
    eprint!("password: ");
    std::io::stderr()
        .flush()
        .context("asking for the password")?;
    let hidden = hide && stty("-echo");
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    if hidden {
        stty("echo");
        eprintln!();
    }
    read.context("reading the password")?;
    let password = line.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!password.is_empty(), "no password was given");
    Ok(password.to_owned())
}

fn stty(mode: &str) -> bool {
    let mut stty = Command::new("stty");
    stty.arg(mode).stdin(Stdio::inherit()).stderr(Stdio::null());
    stty.status().is_ok_and(|status| status.success())
}

/// `$XDG_DATA_HOME/comity-chat/ADDRESS`, or the same below `~/.local/share`.
fn default_store(address: &str) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(absolute);
    let data =
        data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")))?;
    // An address holds no slash once it is accepted; until then it must not lead elsewhere.
    let name: String = address
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .collect();
    Some(data.join("comity-chat").join(name))
}
