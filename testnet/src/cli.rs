//! The command line of `comity-testnet`.

mod server;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use comity_sdk::Transport;

use crate::{
    bench, chaos, hostile, netns,
    network::{Network, Options},
    prove,
    replay::{self, Pace},
    sim, up,
};

/// A whole Comity network on this machine.
///
///   comity-testnet up                     three servers and demo users, until Ctrl-C
///   comity-testnet up --netns             the same, each server a host of its own
///   comity-testnet replay LOG.jsonl       plays a chat log on three servers and compares
///   comity-testnet bench all --json       measures, one JSON line for each scenario
///   comity-testnet chaos                  breaks servers and links while users talk
///   comity-testnet sim --seeds 1..200     simulated networks, each decided by its seed
///   comity-testnet prove --list           what is claimed; prove NAME tries it
#[derive(Debug, Parser)]
#[command(name = "comity-testnet", version, verbatim_doc_comment)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs three regional servers with demo users and shows how they are, until Ctrl-C.
    Up(up::Up),
    Wire(netns::args::Wire),
    /// Plays chat logs on a network and compares what every server then shows.
    Replay(Replay),
    /// Measures how fast the network is: all real processes, through the SDK.
    Bench(bench::Bench),
    /// Kills, stops and cuts off servers while users talk, then compares what every server shows.
    Chaos(chaos::Chaos),
    /// Plays simulated networks: clocks, disks, links and a lying server, all decided by a seed.
    Sim(sim::Sim),
    /// Tries what is claimed of the network, and whether each claim can fail.
    Prove(prove::Prove),
    /// One server of a network; what the other commands start.
    #[command(hide = true)]
    Server(server::Server),
    /// One target under hostile inputs; what `prove hostile-input` starts.
    #[command(hide = true)]
    Hostile(hostile::Hostile),
    /// Packets between namespaces; what `up --netns` starts.
    #[command(hide = true)]
    Router(netns::serve::Serve),
}

/// Which transport the clients use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Over {
    /// QUIC, then WebSocket.
    Auto,
    /// QUIC only.
    Quic,
    /// WebSocket only.
    Websocket,
    /// One after the other.
    Both,
}

impl Over {
    fn transports(self) -> Vec<Transport> {
        match self {
            Self::Auto => vec![Transport::Auto],
            Self::Quic => vec![Transport::Quic],
            Self::Websocket => vec![Transport::WebSocket],
            Self::Both => vec![Transport::Quic, Transport::WebSocket],
        }
    }
}

#[derive(Debug, Args)]
struct Replay {
    /// Chat logs: JSON lines, or plain IRC lines `[hh:mm] <nick> text`.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Servers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    servers: u8,
    /// `max`, or `real` to keep the log's times.
    #[arg(long, default_value = "max")]
    speed: Speed,
    /// Transport of the clients.
    #[arg(long, value_enum, default_value_t = Over::Both)]
    transport: Over,
    /// Print one JSON line a log and one for all.
    #[arg(long)]
    json: bool,
    /// One-way delay of a link, such as eu-us=80ms; may be repeated.
    #[arg(long = "latency", value_parser = latency)]
    latency: Vec<Latency>,
    /// Keep the network's files here instead of in a temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Speed {
    Max,
    Real,
}

/// A delay between two regions.
pub type Latency = ((String, String), Duration);

/// Reads `eu-us=80ms`.
///
/// # Errors
///
/// What is wrong with the text.
pub fn latency(text: &str) -> Result<Latency, String> {
    let wrong = || format!("{text}: a delay is written like eu-us=80ms");
    let (pair, delay) = text.split_once('=').ok_or_else(wrong)?;
    let (a, b) = pair.split_once('-').ok_or_else(wrong)?;
    let ms = delay
        .strip_suffix("ms")
        .and_then(|ms| ms.parse().ok())
        .ok_or_else(wrong)?;
    if ms > 10_000 {
        return Err(format!("{text}: at most 10000ms"));
    }
    Ok(((a.to_owned(), b.to_owned()), Duration::from_millis(ms)))
}

/// The regions of a network of so many servers.
#[must_use]
pub fn regions(servers: usize) -> Vec<String> {
    ["eu", "us", "ap", "sa", "af", "me", "oc", "an"][..servers.clamp(1, 8)]
        .iter()
        .map(|&region| region.to_owned())
        .collect()
}

/// A directory that goes away with the value, unless one was given.
#[derive(Debug)]
pub struct Place {
    /// The directory.
    pub path: PathBuf,
    temporary: bool,
}

impl Place {
    /// The given directory, or a new temporary one.
    ///
    /// # Errors
    ///
    /// If none can be made.
    pub fn new(given: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = given {
            return Ok(Self {
                path,
                temporary: false,
            });
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let name = format!("comity-testnet-{:016x}", u64::from_be_bytes(random));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self {
            path,
            temporary: true,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Runs the program and gives its exit code.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let done = match cli.command {
        Command::Server(server) => server::run(&server),
        Command::Hostile(hostile) => hostile::run(&hostile),
        Command::Sim(args) => sim::sim(&args),
        Command::Router(args) => netns::serve::run(&args),
        Command::Up(args) if args.in_namespaces() => up::enter(&args).and_then(|spaces| {
            let Some(spaces) = spaces else {
                return Ok(ExitCode::FAILURE);
            };
            runtime()?.block_on(up::up(args, Some(spaces)))
        }),
        other => runtime().and_then(|runtime| runtime.block_on(command(other))),
    };
    done.unwrap_or_else(|error| {
        eprintln!("comity-testnet: {error:#}");
        ExitCode::FAILURE
    })
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}

async fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(up) => up::up(up, None).await,
        Command::Wire(wire) => netns::args::wire(wire).await,
        Command::Bench(args) => bench::bench(args).await,
        Command::Replay(replay) => run_replay(replay).await,
        Command::Chaos(chaos) => chaos::chaos(chaos).await,
        Command::Prove(prove) => prove::prove(prove).await,
        Command::Server(_) => bail!("a server has a runtime of its own"),
        Command::Hostile(_) | Command::Sim(_) => bail!("neither needs a runtime"),
        Command::Router(_) => bail!("a router has a runtime of its own"),
    }
}

async fn run_replay(args: Replay) -> anyhow::Result<ExitCode> {
    let place = Place::new(args.dir)?;
    let regions = regions(args.servers.into());
    let options = Options {
        regions,
        delays: args.latency.into_iter().collect::<BTreeMap<_, _>>(),
        ..Options::new(&place.path, &[])
    };
    let mut network = Network::start(&options).await?;
    network.linked(Duration::from_secs(30)).await?;
    let pace = match args.speed {
        Speed::Max => Pace::Max,
        Speed::Real => Pace::Minute(Duration::from_secs(60)),
    };
    let mut all = Vec::new();
    for transport in args.transport.transports() {
        all.extend(replay::replay(&network, &args.files, transport, pace, args.json).await?);
    }
    network.stop().await?;
    let total = |of: fn(&replay::Summary) -> u64| all.iter().map(of).sum::<u64>();
    let (lines, sent) = (total(|s| s.lines), total(|s| s.sent));
    let (missing, duplicate) = (total(|s| s.report.missing), total(|s| s.report.duplicate));
    let out_of_order = total(|s| s.out_of_order);
    let equal = lines > 0 && sent > 0 && out_of_order == 0 && all.iter().all(|s| s.report.equal);
    for summary in &all {
        if args.json {
            println!("{}", serde_json::to_string(summary)?);
        } else {
            let file = summary.files[0].display();
            println!(
                "{file} over {}: {:.1} s",
                summary.transport, summary.seconds
            );
            println!("{}", summary.report);
        }
    }
    let last = serde_json::json!({
        "lines": lines,
        "sent": sent,
        "equal": equal,
        "missing": missing,
        "duplicate": duplicate,
        "out_of_order": out_of_order,
        "replays": all.len(),
        "acts": total(|s| s.acts),
        "replies_left_out": total(|s| s.replies_left_out),
        "messages_per_s": lines as f64 / all.iter().map(|s| s.seconds).sum::<f64>(),
    });
    if args.json {
        println!("{last}");
    } else {
        println!("{}: {last}", if equal { "equal" } else { "NOT EQUAL" });
    }
    Ok(if equal {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
