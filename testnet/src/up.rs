//! `comity-testnet up`: a running network for somebody who wants to try it.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use comity_sdk::{Role, Transport};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{Latency, latency, regions},
    netns::{args::Netns, probe, spaces::Spaces},
    network::{Network, Options},
};

/// Demo users on each server.
const USERS: [&str; 2] = ["alice", "bob"];
/// Time between two looks at the servers.
const REFRESH: Duration = Duration::from_secs(2);

/// A network to try things on.
#[derive(Debug, Args)]
pub struct Up {
    /// Where the network is kept; the next start goes on with it.
    #[arg(long, default_value = ".comity/testnet")]
    dir: PathBuf,
    /// Servers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    servers: u8,
    /// One-way delay of a link, such as eu-us=80ms; may be repeated.
    #[arg(long = "latency", value_parser = latency)]
    latency: Vec<Latency>,
    /// Print one JSON line with everything when ready, and no table.
    #[arg(long)]
    json: bool,
    /// Stop by itself after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    #[command(flatten)]
    netns: Netns,
}

impl Up {
    /// Whether its servers are to be hosts of their own.
    pub(crate) fn in_namespaces(&self) -> bool {
        self.netns.netns
    }
}

/// A demo user, as it is kept for the next start.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct DemoUser {
    region: String,
    handle: String,
    token: String,
}

#[derive(Debug, Serialize)]
struct ReadyServer {
    name: String,
    address: String,
    http: String,
    after_ms: u64,
    /// The network namespace in which all this is, if it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
}

#[derive(Debug, Serialize)]
struct SignIn {
    address: String,
    server: String,
    token: String,
    line: String,
}

/// Makes the namespaces of `up --netns` and brings this thread to its users' one. `None` where
/// that cannot be done, which it says with the reason.
///
/// # Errors
///
/// An option that does not fit, or what the system says.
pub(crate) fn enter(args: &Up) -> anyhow::Result<Option<Arc<Spaces>>> {
    let sites = args.netns.sites(&regions(args.servers.into()))?;
    if let Err(why) = probe::available() {
        eprintln!("netns unavailable: {why}");
        return Ok(None);
    }
    let spaces = Spaces::create(&sites).context("making namespaces")?;
    spaces.enter_people()?;
    Ok(Some(Arc::new(spaces)))
}

/// Runs until Ctrl-C, then stops every server. With `spaces` each server is in one of them, and
/// this process is among its users.
///
/// # Errors
///
/// What kept a server from starting or from stopping cleanly.
pub async fn up(args: Up, spaces: Option<Arc<Spaces>>) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let mut int = signal(SignalKind::interrupt())?;
    let mut term = signal(SignalKind::terminate())?;
    std::fs::create_dir_all(&args.dir).with_context(|| format!("making {}", args.dir.display()))?;
    let regions = regions(args.servers.into());
    let mut delays = args.latency.iter().cloned().collect();
    let mut rules = Vec::new();
    if spaces.is_some() {
        rules = args.netns.rules(&regions, &args.latency)?;
        delays = BTreeMap::new();
    }
    let options = Options {
        regions,
        delays,
        spaces,
        rules,
        ..Options::new(args.dir.canonicalize()?, &[])
    };
    let mut network = Network::start(&options).await?;
    let ready_ms = started.elapsed().as_millis();
    let users = demo_users(&network).await?;
    let sign_ins: Vec<_> = users
        .iter()
        .filter_map(|user| sign_in(&network, user))
        .collect();
    tell(&network, &sign_ins, ready_ms, args.json)?;
    let end = args
        .seconds
        .map(|s| tokio::time::Instant::now() + Duration::from_secs(s));
    let table = !args.json && std::io::stdout().is_terminal();
    loop {
        let limit = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = int.recv() => break,
            _ = term.recv() => break,
            () = limit => break,
            () = tokio::time::sleep(REFRESH) => {}
        }
        if table {
            show(&network).await?;
        }
        for node in &mut network.nodes {
            if !node.process.is_running()? {
                anyhow::bail!("{} ended; see {}", node.name, node.process.log().display());
            }
        }
        network.check_wires()?;
    }
    eprintln!("\nstopping");
    network.stop().await?;
    eprintln!("all servers have stopped; everything accepted is on the disk");
    Ok(ExitCode::SUCCESS)
}

/// Makes the demo users once, with a conversation in which all of them are.
async fn demo_users(network: &Network) -> anyhow::Result<Vec<DemoUser>> {
    let file = network.directory().join("users.json");
    if let Ok(text) = std::fs::read_to_string(&file) {
        return serde_json::from_str(&text)
            .context("users.json: remove the directory to start anew");
    }
    let mut users = Vec::new();
    for (index, node) in network.nodes.iter().enumerate() {
        for handle in USERS {
            let token = network.add_user(index, handle).await?;
            users.push(DemoUser {
                region: node.region.clone(),
                handle: handle.into(),
                token,
            });
        }
    }
    network.linked(Duration::from_secs(30)).await?;
    let first = &users[0];
    let client = network
        .client(0, &first.handle, &first.token, Transport::Auto)
        .connect()
        .await?;
    let others = users[1..]
        .iter()
        .map(|user| format!("{}@{}.localhost", user.handle, user.region));
    let lobby = client
        .create_group("lobby", others.collect::<Vec<String>>())
        .await?;
    lobby.open_door(Role::Member).await?.accepted().await?;
    lobby
        .send("Welcome to Comity. Everybody on this network is here.")
        .await?
        .accepted()
        .await?;
    client.close().await?;
    std::fs::write(&file, serde_json::to_string_pretty(&users)?)?;
    Ok(users)
}

fn sign_in(network: &Network, user: &DemoUser) -> Option<SignIn> {
    let node = network
        .nodes
        .iter()
        .find(|node| node.region == user.region)?;
    let (address, server) = (format!("{}@{}", user.handle, node.name), node.address());
    let ca = network.ca_path();
    // What a client keeps goes with the network: made anew, it has other servers and users.
    let store = network.directory().join("clients").join(&address);
    // A client has to be where the servers' addresses are.
    let inside = network.wires().map_or(String::new(), |wires| {
        format!("ip netns exec {} ", wires.spaces().name("people"))
    });
    let line = format!(
        "{inside}{} --server {server} --ca {} --store {} --token {} --open lobby {address}",
        chat_program(),
        ca.display(),
        store.display(),
        user.token
    );
    Some(SignIn {
        address,
        server,
        token: user.token.clone(),
        line,
    })
}

/// The chat client as it can be started from here: beside this program, or somewhere on the path.
fn chat_program() -> String {
    let beside = std::env::current_exe()
        .ok()
        .map(|program| program.with_file_name("comity-chat"));
    let Some(beside) = beside.filter(|program| program.exists()) else {
        return "comity-chat".to_owned();
    };
    let here = std::env::current_dir().unwrap_or_default();
    beside
        .strip_prefix(here)
        .unwrap_or(&beside)
        .display()
        .to_string()
}

fn tell(network: &Network, sign_ins: &[SignIn], ready_ms: u128, json: bool) -> anyhow::Result<()> {
    let mut servers = Vec::new();
    for node in &network.nodes {
        servers.push(ReadyServer {
            name: node.name.clone(),
            address: node.address(),
            http: format!("http://127.0.0.1:{}", node.ports.http),
            after_ms: node.ready()?.after_ms,
            namespace: network
                .wires()
                .map(|wires| wires.spaces().name(&node.region)),
        });
    }
    let mut out = std::io::stdout().lock();
    if json {
        let ca = network.ca_path();
        let all = serde_json::json!({
            "state": "ready", "ready_ms": ready_ms, "servers": servers, "users": sign_ins, "ca": ca,
        });
        writeln!(out, "{all}")?;
    } else {
        writeln!(
            out,
            "{} servers are ready after {ready_ms} ms:",
            servers.len()
        )?;
        for server in &servers {
            writeln!(
                out,
                "  {:14} {}  {}{}",
                server.name,
                server.address,
                server.http,
                match &server.namespace {
                    Some(space) => format!("  in the namespace {space}"),
                    None => String::new(),
                }
            )?;
        }
        writeln!(
            out,
            "\nTalk as one of these; each line works in a terminal of its own:"
        )?;
        for sign_in in sign_ins {
            writeln!(out, "  {}", sign_in.line)?;
        }
        writeln!(
            out,
            "\nAll of them are in the conversation \"lobby\". Ctrl-C stops the network.\n"
        )?;
    }
    out.flush()?;
    Ok(())
}

/// One line a server, rewritten in place.
async fn show(network: &Network) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for node in &network.nodes {
        let line = match node.status().await {
            Ok(status) => {
                let peers = status["peers"].as_array().cloned().unwrap_or_default();
                let up = peers
                    .iter()
                    .filter(|peer| peer["connected"] == true)
                    .count();
                let waiting: u64 = peers
                    .iter()
                    .filter_map(|peer| peer["waiting_commits"].as_u64())
                    .sum();
                let memory = node
                    .process
                    .usage()
                    .map_or(0, |usage| usage.rss_bytes >> 20);
                format!(
                    "{:14} storage {:8} sessions {:>4}  accepted {:>7}  links {up}/{}  waiting {waiting:>4}  {memory} MB",
                    node.name,
                    status["storage"].as_str().unwrap_or("?"),
                    status["sessions"],
                    status["accepted"],
                    peers.len(),
                )
            }
            Err(error) => format!("{:14} {error:#}", node.name),
        };
        lines.push(line);
    }
    let mut out = std::io::stdout().lock();
    for line in &lines {
        // Erase the line first: the one before may have been longer.
        writeln!(out, "\x1b[2K{line}")?;
    }
    write!(out, "\x1b[{}A", lines.len())?;
    out.flush()?;
    Ok(())
}
