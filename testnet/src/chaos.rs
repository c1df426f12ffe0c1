//! `comity-testnet chaos`: servers are killed, stopped and cut off while users talk through them.
//! Afterwards nothing that was accepted is missing, nothing is there twice, and every server shows
//! the same.

mod faults;
mod talk;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use comity_sdk::Transport;
use serde::Serialize;

use crate::{
    cli::{Place, regions},
    compare::Report,
    logs::script::Script,
    network::{Network, Options},
    replay::{self, Curtain, Pace, Played, Stage, player, read_back},
};

pub use comity_sim::Random;
pub use faults::Counts;
pub(crate) use talk::{made, said};

/// Time after the last fault in which the servers must be whole again (P4).
pub const WHOLE_MAX: Duration = Duration::from_secs(30);
/// Time after which it is no longer waited for.
const WHOLE_GIVEN_UP: Duration = Duration::from_secs(120);
/// Time from one line to the next.
const PER_LINE: Duration = Duration::from_millis(25);

/// What to do to a network, and what is said on it meanwhile.
#[derive(Debug, Args)]
pub struct Chaos {
    /// Rounds of faults, a few seconds each.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// What decides the faults and, without a log, what is said.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Servers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub servers: u8,
    /// Print only JSON; the last line is the result.
    #[arg(long)]
    pub json: bool,
    /// A chat log that is said again and again, instead of one made from the seed.
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// Keep the network's files here instead of in a temporary directory.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// The result of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Rounds.
    pub rounds: u32,
    /// Seed.
    pub seed: u64,
    /// Servers.
    pub servers: usize,
    /// Lines whose sender was told that they are accepted.
    pub acked: u64,
    /// Of these, lines that a server does not show, summed over the servers.
    pub acked_lost: u64,
    /// Lines shown twice.
    pub duplicate: u64,
    /// Whether every server shows exactly what was accepted, in one order.
    pub equal: bool,
    /// Faults.
    #[serde(flatten)]
    pub counts: Counts,
    /// Seconds from the end of the last fault until all servers were linked and had nothing left to
    /// push or fetch.
    pub whole_after_s: f64,
    /// Whether that came to pass at all.
    pub whole: bool,
    /// Seconds from the end of the last fault until every line under way was accepted.
    pub accepted_after_s: f64,
    /// Joins, leaves and changes of name accepted.
    pub acts: u64,
    /// Lines of a user in another order than he spoke them.
    pub out_of_order: u64,
    /// Seconds under faults.
    pub seconds: f64,
    /// Lines that could not be sent.
    pub failures: Vec<String>,
    /// The comparison.
    pub report: Report,
}

impl Summary {
    /// Whether everything is as promised, and every kind of fault was there.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let Counts { kills, stops, cuts } = self.counts;
        self.equal
            && self.whole
            && self.whole_after_s <= WHOLE_MAX.as_secs_f64()
            && [kills, stops, cuts].into_iter().all(|count| count > 0)
    }
}

/// One run on a network whose links go through forwarders.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Rounds of faults.
    pub rounds: u32,
    /// Seed of the faults.
    pub seed: u64,
    /// Half way, one server is cut off and gets back an older copy of its store: what it accepted
    /// since then is nowhere. For showing that this would be noticed.
    pub restore_old_store: bool,
    /// Show no progress.
    pub quiet: bool,
}

/// Runs the command.
pub(crate) async fn chaos(args: Chaos) -> anyhow::Result<ExitCode> {
    let script = match &args.file {
        Some(file) => talk::looped(file, lines(args.rounds))?,
        None => made(args.seed, usize::from(args.servers), lines(args.rounds))?,
    };
    let place = Place::new(args.dir)?;
    let mut network = start(&place.path, args.servers.into(), args.seed).await?;
    let run = Run {
        rounds: args.rounds,
        seed: args.seed,
        restore_old_store: false,
        quiet: args.json,
    };
    let summary = run.on(&mut network, script).await?;
    network.stop().await?;
    if !args.json {
        println!("{}", summary.report);
        for failure in &summary.failures {
            println!("  {failure}");
        }
    }
    println!("{}", serde_json::to_string(&summary)?);
    Ok(if summary.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Lines that last for so many rounds, however long each is.
fn lines(rounds: u32) -> usize {
    let longest = faults::ROUND_MAX + Duration::from_secs(5);
    let all = longest * rounds;
    usize::try_from(all.as_millis() / PER_LINE.as_millis()).unwrap_or(usize::MAX)
}

/// Starts a network that faults can be done to.
///
/// # Errors
///
/// What failed.
pub async fn start(
    directory: &std::path::Path,
    servers: usize,
    seed: u64,
) -> anyhow::Result<Network> {
    let options = Options {
        regions: regions(servers),
        proxied: true,
        seed,
        ..Options::new(directory, &[])
    };
    let network = Network::start(&options).await?;
    network.linked(Duration::from_secs(30)).await?;
    Ok(network)
}

/// A made script that lasts for so many rounds.
///
/// # Errors
///
/// None that a seed can cause.
pub fn script(seed: u64, servers: usize, rounds: u32) -> anyhow::Result<Script> {
    made(seed, servers, lines(rounds))
}

impl Run {
    /// Does it to `network` while `script` is said, and compares.
    ///
    /// # Errors
    ///
    /// What makes the run no run: a server that does not start again, a history that cannot be
    /// read. Whatever is wrong with the talk is in the summary.
    pub async fn on(self, network: &mut Network, script: Script) -> anyhow::Result<Summary> {
        let script = Arc::new(script);
        let transports = [Transport::Quic, Transport::WebSocket];
        let stage = Stage::set(network, "chaos", "chaos", Transport::Auto).await?;
        let clients = replay::cast(network, &stage, &script, "chaos", &transports).await?;
        let bar = replay::bar(self.rounds.into(), "rounds", self.quiet);
        let curtain = Curtain::default();
        let started = Instant::now();
        let said = indicatif::ProgressBar::hidden();
        let talk = async {
            let pace = Pace::Line(PER_LINE);
            let said =
                player::play(stage.conversation, &script, &clients, pace, &curtain, &said).await;
            (said, Instant::now())
        };
        let faults = async {
            let done = faults::rounds(network, self, &bar).await;
            let healed = Instant::now();
            // Nobody begins a line any more: the servers become whole by themselves or not at all.
            curtain.fall();
            let whole = network.settled(WHOLE_GIVEN_UP).await;
            done.map(|counts| (counts, healed, whole.map(|()| Instant::now())))
        };
        let ((played, accepted), faults) = tokio::join!(talk, faults);
        let (counts, healed, whole) = faults?;
        bar.finish_and_clear();
        // Lines that were under way then may have been accepted after the servers were whole.
        let settled = network.settled(WHOLE_GIVEN_UP).await;
        let (script, played) = talk::said(&script, played);
        let (report, out_of_order) =
            read_back::compare(network, &stage, &script, &clients, &played).await?;
        replay::close(&clients).await;
        for reader in &stage.readers {
            let _ = reader.client.close().await;
        }
        let Played { acts, failures, .. } = played;
        let whole_after = whole.as_ref().map_or(WHOLE_GIVEN_UP, |at| *at - healed);
        Ok(Summary {
            rounds: self.rounds,
            seed: self.seed,
            servers: network.nodes.len(),
            acked: report.sent,
            acked_lost: report.missing,
            duplicate: report.duplicate,
            equal: report.equal && failures.is_empty() && out_of_order == 0,
            counts,
            whole_after_s: whole_after.as_secs_f64(),
            whole: whole.is_ok() && settled.is_ok(),
            accepted_after_s: accepted.saturating_duration_since(healed).as_secs_f64(),
            acts,
            out_of_order,
            seconds: (healed - started).as_secs_f64(),
            failures,
            report,
        })
    }
}
