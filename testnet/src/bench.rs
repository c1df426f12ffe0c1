//! `comity-testnet bench`: how fast the network is, measured on real processes through the SDK.
//!
//! Every line says what else was going on: the disk's own syncs before and while the servers
//! served, the processor time of servers, clients and everybody else, the load and the build. The
//! clients run in this process and share the machine's cores with the servers.

pub mod disk;
pub mod group;
pub mod latency;
pub mod load;
pub mod meter;
pub mod outage;
pub mod probe;
pub mod start;
pub mod throughput;

use std::{path::Path, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};
use comity_sdk::Transport;
use serde::Serialize;
use serde_json::Value;

use crate::{
    claims::Build,
    cli::{Place, regions},
    machine::Fdatasync,
    network::{Network, Options},
    replay::transport_name,
};

use meter::Cost;
use probe::Probe;

/// Time for the links of a network to come up.
const LINKED: Duration = Duration::from_secs(30);
/// Syncs of the probe while the network rests.
const IDLE_SYNCS: u32 = 200;

/// What to measure.
#[derive(Debug, Args)]
pub struct Bench {
    /// One or more of these, or `all`.
    #[arg(value_enum, required = true)]
    scenarios: Vec<Scenario>,
    /// Transport of the clients.
    #[arg(long, value_enum, default_value_t = Carrier::Quic)]
    transport: Carrier,
    /// Print one JSON line for each.
    #[arg(long)]
    json: bool,
    /// Measure on this directory's disk instead of the temporary directory's.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Scenario {
    /// One pair on one server, 50 messages a second.
    Latency,
    /// 20 pairs on one server, as many messages as it takes.
    Throughput,
    /// 200 members of one conversation on one server, 20 messages a second.
    Group,
    /// A pair on two servers, 20 messages a second.
    Federation,
    /// The receiver's server is down for 10 s while messages are sent.
    Outage,
    /// From nothing, and from 20,000 messages, until a server serves.
    Coldstart,
    /// Bytes on the disk for 100,000 messages.
    Disk,
    /// One after the other.
    All,
}

impl Scenario {
    fn each(self) -> Vec<Self> {
        if self == Self::All {
            let all = Self::value_variants().iter().copied();
            all.filter(|one| *one != Self::All).collect()
        } else {
            vec![self]
        }
    }

    /// Who verifies signatures: each client, or all clients of this process together.
    const fn verifies(self) -> &'static str {
        match self {
            Self::Latency | Self::Federation | Self::Outage => "each",
            _ => "shared",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Group => "group",
            Self::Federation => "federation",
            Self::Outage => "outage",
            Self::Coldstart => "coldstart",
            Self::Disk => "disk",
            Self::All => "all",
        }
    }
}

/// How the clients connect.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Carrier {
    /// QUIC.
    Quic,
    /// WebSocket.
    Websocket,
}

impl From<Carrier> for Transport {
    fn from(carrier: Carrier) -> Self {
        match carrier {
            Carrier::Quic => Self::Quic,
            Carrier::Websocket => Self::WebSocket,
        }
    }
}

/// What one scenario measured, and under which circumstances.
#[derive(Clone, Debug, Serialize)]
pub struct Report<F> {
    /// What the scenario is about.
    #[serde(flatten)]
    pub figures: F,
    /// What it cost.
    #[serde(flatten)]
    pub cost: Cost,
    /// Syncs of the same disk.
    #[serde(flatten)]
    pub syncs: Syncs,
}

/// Times of 4 KiB appends and their `fdatasync` on the servers' disk, and of the servers' own.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Syncs {
    /// While the network rested, just before.
    pub fdatasync_idle: Fdatasync,
    /// At a low rate, while the servers served. None where nothing was sent.
    pub fdatasync_serving: Option<Fdatasync>,
    /// Median of the first server's own syncs, the last 1,024 of its log, in milliseconds.
    pub log_sync_p50_ms: f64,
    /// 99 of 100 of these.
    pub log_sync_p99_ms: f64,
}

/// Where and how a scenario runs.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// Its own directory, which it may fill.
    pub directory: &'a Path,
    /// Transport of the clients.
    pub transport: Transport,
    /// What the servers are told besides.
    pub server_args: &'a [String],
}

impl Setting<'_> {
    /// A network of so many servers, linked.
    pub(crate) async fn network(&self, servers: usize, proxied: bool) -> anyhow::Result<Network> {
        let options = Options {
            regions: regions(servers),
            proxied,
            server_args: self.server_args.to_vec(),
            ..Options::new(self.directory, &[])
        };
        let network = Network::start(&options).await?;
        network.linked(LINKED).await?;
        Ok(network)
    }
}

/// Both probes of the disk around what is measured.
pub(crate) struct Watch {
    idle: Fdatasync,
    probe: Probe,
}

impl Watch {
    /// Measures the disk at rest, then goes on at a low rate.
    pub(crate) async fn start(directory: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            idle: probe::idle(directory, IDLE_SYNCS).await?,
            probe: Probe::start(directory)?,
        })
    }

    pub(crate) async fn stop(self, network: &Network) -> anyhow::Result<Syncs> {
        Ok(Syncs {
            fdatasync_serving: Some(self.probe.stop().await?),
            ..own_syncs(self.idle, network).await?
        })
    }
}

/// The first server's view of its own syncs.
pub(crate) async fn own_syncs(idle: Fdatasync, network: &Network) -> anyhow::Result<Syncs> {
    let status = network.nodes[0].status().await?;
    let ms = |i: usize| status["sync_us"][i].as_f64().unwrap_or_default() / 1e3;
    Ok(Syncs {
        fdatasync_idle: idle,
        fdatasync_serving: None,
        log_sync_p50_ms: ms(0),
        log_sync_p99_ms: ms(1),
    })
}

/// Runs what was asked for, a line each.
///
/// # Errors
///
/// What failed; scenarios before it were printed.
pub async fn bench(args: Bench) -> anyhow::Result<ExitCode> {
    if build() == Build::Debug {
        eprintln!("comity-testnet: this is a debug build; its figures mean nothing");
    }
    let place = Place::new(args.dir)?;
    let mut all = Vec::new();
    for scenario in args.scenarios.into_iter().flat_map(Scenario::each) {
        if !all.contains(&scenario) {
            all.push(scenario);
        }
    }
    let mut good = true;
    for scenario in all {
        let directory = place.path.join(scenario.name());
        std::fs::create_dir_all(&directory)?;
        let setting = Setting {
            directory: &directory,
            transport: args.transport.into(),
            server_args: &[],
        };
        if !args.json {
            eprintln!("measuring {} ...", scenario.name());
        }
        good &= run(scenario, &setting, args.json).await?;
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs one scenario and tells it: whether everything sent arrived once and in order.
async fn run(scenario: Scenario, setting: &Setting<'_>, json: bool) -> anyhow::Result<bool> {
    let tell = Tell {
        scenario,
        transport: setting.transport,
        json,
    };
    Ok(match scenario {
        Scenario::Latency => {
            let report = latency::run(setting, latency::SAME_SERVER).await?;
            tell.report(&report, report.figures.counts.whole())?
        }
        Scenario::Federation => {
            let report = latency::run(setting, latency::TWO_SERVERS).await?;
            tell.report(&report, report.figures.counts.whole())?
        }
        Scenario::Throughput => {
            let report = throughput::run(setting).await?;
            tell.report(&report, report.figures.counts.whole())?
        }
        Scenario::Group => {
            let report = group::run(setting).await?;
            tell.report(&report, report.figures.whole())?
        }
        Scenario::Outage => {
            let report = outage::run(setting, false).await?;
            tell.report(&report, report.figures.counts.whole())?
        }
        Scenario::Coldstart => tell.report(&start::run(setting).await?, true)?,
        Scenario::Disk => tell.report(&disk::run(setting).await?, true)?,
        Scenario::All => anyhow::bail!("`all` is made of the others"),
    })
}

/// How this binary was built.
#[must_use]
pub const fn build() -> Build {
    if cfg!(debug_assertions) {
        Build::Debug
    } else {
        Build::Release
    }
}

/// How a report is told.
struct Tell {
    scenario: Scenario,
    transport: Transport,
    json: bool,
}

/// One line of output.
#[derive(Serialize)]
struct Line<'a, F> {
    scenario: &'static str,
    whole: bool,
    transport: &'static str,
    sdk_store: &'static str,
    sdk_verifies: &'static str,
    build: Build,
    #[serde(flatten)]
    report: &'a Report<F>,
}

impl Tell {
    fn report<F: Serialize>(&self, report: &Report<F>, whole: bool) -> anyhow::Result<bool> {
        let line = Line {
            scenario: self.scenario.name(),
            whole,
            transport: transport_name(self.transport),
            sdk_store: "memory",
            sdk_verifies: self.scenario.verifies(),
            build: build(),
            report,
        };
        if self.json {
            println!("{}", serde_json::to_string(&line)?);
            return Ok(whole);
        }
        println!("{}", line.scenario);
        if let Value::Object(figures) = serde_json::to_value(&line)? {
            for (name, value) in figures.iter().filter(|(name, _)| *name != "scenario") {
                println!("  {name:28} {value}");
            }
        }
        Ok(whole)
    }
}

/// Milliseconds, to the microsecond.
pub(crate) fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// To the tenth of a thousandth: what follows is noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
