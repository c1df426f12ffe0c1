//! `sim`: many seeds of a simulated network, on all cores.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use comity_sim::{
    Kind, Options, Planted,
    report::{Range, Summary, names_promise, play},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time for making failing runs smaller.
const SHRINK: Duration = Duration::from_secs(60);

/// How `sim` is called.
#[derive(Args, Clone, Debug)]
pub struct Sim {
    /// The seeds, both ends included, or one of them.
    #[arg(long, default_value = "1..20", value_parser = seeds)]
    seeds: (u64, u64),
    /// Servers; of three or more the last one is hostile.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=16))]
    servers: u8,
    /// Users, spread over the servers.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..=500))]
    users: u16,
    /// Virtual hours of each seed.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=240))]
    hours: u16,
    /// Print one JSON line only.
    #[arg(long)]
    json: bool,
    /// Build a bug in, of those that --faults lists: the run has to fail and name the promise.
    #[arg(long, value_parser = planted)]
    fault: Option<Planted>,
    /// List the bugs that can be built in, and what goes wrong in every run.
    #[arg(long)]
    faults: bool,
    /// Only so many acts and faults from the beginning: what a run that shrank itself prints.
    #[arg(long)]
    steps: Option<usize>,
    /// Kinds of faults to leave out.
    #[arg(long, value_parser = kind, value_delimiter = ',')]
    without: Vec<Kind>,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("{text}: seeds are written like 1..200 or 17");
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (from, to) = (number(from)?, number(to)?);
    if from > to || to - from >= 1_000_000 {
        return Err(wrong());
    }
    Ok((from, to))
}

fn planted(text: &str) -> Result<Planted, String> {
    let named = Planted::ALL.iter().find(|planted| planted.name() == text);
    let unknown = || format!("{text}: not one of those that `sim --faults` lists");
    named.copied().ok_or_else(unknown)
}

fn kind(text: &str) -> Result<Kind, String> {
    let named = Kind::ALL.iter().find(|kind| kind.name() == text);
    named
        .copied()
        .ok_or_else(|| format!("{text}: no kind of fault"))
}

/// Plays the seeds. Succeeds if everything held; with a bug built in, if it was found and named.
///
/// # Errors
///
/// If standard output cannot be written.
pub fn sim(args: &Sim) -> anyhow::Result<ExitCode> {
    if args.faults {
        println!("bugs to build in, with the promise that each breaks");
        for planted in Planted::ALL {
            println!(
                "  {:20} {:10} {}",
                planted.name(),
                planted.promise(),
                planted.about()
            );
        }
        println!("faults of every run; of three or more servers the last one lies");
        for kind in Kind::ALL {
            println!("  {:20} {}", kind.name(), kind.about());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (from, to) = args.seeds;
    let mut options = Options::new(
        from,
        args.servers.into(),
        args.users.into(),
        args.hours.into(),
    );
    options.planted = args.fault;
    options.steps = args.steps;
    options.without = args.without.iter().copied().collect();
    let range = Range {
        from,
        to,
        options,
        threads: std::thread::available_parallelism().map_or(2, usize::from),
        shrink: if args.steps.is_some() {
            Duration::ZERO
        } else {
            SHRINK
        },
    };
    let bar = bar(to - from + 1)?;
    let summary = play(&range, &|done, failed| {
        bar.set_position(done);
        if failed > 0 {
            bar.set_message(format!("{failed} failed"));
        }
    });
    bar.finish_and_clear();
    if !args.json {
        print(&summary);
    }
    println!("{}", summary.to_json());
    let Some(planted) = args.fault else {
        let code = if summary.holds() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
        return Ok(code);
    };
    if !names_promise(&summary, planted) {
        bail!(
            "{} was built in and {} was not found broken",
            planted.name(),
            planted.promise()
        );
    }
    // It failed, as it has to.
    Ok(ExitCode::FAILURE)
}

fn bar(seeds: u64) -> anyhow::Result<ProgressBar> {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(seeds), target);
    let style = "{bar:30} {pos}/{len} seeds, {elapsed}, {eta} to go {msg}";
    let style = ProgressStyle::with_template(style).context("the progress line")?;
    bar.set_style(style);
    Ok(bar)
}

fn print(summary: &Summary) {
    println!("{} seeds", summary.seeds);
    println!("events");
    for (kind, count) in &summary.events {
        println!("  {kind:18} {count:>8}");
    }
    println!("root records");
    for (kind, count) in &summary.records {
        println!("  {kind:18} {count:>8}");
    }
    println!("texts expired        {:>8}", summary.expired);
    println!("faults");
    for (kind, count) in &summary.faults {
        println!("  {:18} {count:>8}", kind.name());
    }
    for (seed, why) in &summary.thin {
        println!("seed {seed} says too little: {why}");
    }
    for kind in summary.rare() {
        println!("{} happened too seldom", kind.name());
    }
    for kind in summary.lacking() {
        println!("no root record is a {kind}");
    }
    for failed in &summary.failed {
        let violation = &failed.violation;
        println!(
            "SEED={} breaks {}: {}",
            failed.outcome.seed, violation.promise, violation.what
        );
        println!("  again: {}", failed.again());
    }
}
