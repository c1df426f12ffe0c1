//! `comity-testnet prove`: runs claims, says what it finds, ends with a code to match.

use std::io::{self, Write};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;

use super::{Build, Claim, Context, Outcome, Verdict, judge};

/// Time after which a claim is ended and does not hold.
pub const CLAIM_TIMEOUT: Duration = Duration::from_secs(8 * 60);
/// Every claim run holds; with `--self-test`, every one also fell when broken.
pub const EXIT_HOLDS: u8 = 0;
/// A claim does not hold, or did not fall when broken.
pub const EXIT_FALSE: u8 = 1;
/// Nothing was run: no such claim, or none chosen.
pub const EXIT_USAGE: u8 = 2;

/// What to prove.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Names of claims, or `all`; without any, all with --self-test or --quick
    pub names: Vec<String>,
    /// Take out the mechanism that makes the claim true: it must not hold then
    #[arg(long = "break", conflicts_with_all = ["self_test", "list"])]
    pub broken: bool,
    /// Check the claims themselves: each, run with --break, must be found false by its figures
    #[arg(long, conflicts_with = "list")]
    pub self_test: bool,
    /// Only the claims that take seconds, in short
    #[arg(long)]
    pub quick: bool,
    /// List the claims and run none
    #[arg(long)]
    pub list: bool,
    /// Print nothing but the JSON line of each claim
    #[arg(long)]
    pub json: bool,
}

/// Runs what `options` choose of `claims`. One line of JSON for each claim goes to `out`, the last
/// one to the last claim; words for people go to `told`. Returns the exit code.
///
/// # Errors
///
/// What `out` or `told` say; claims not yet run are not.
pub async fn prove(
    claims: &[&dyn Claim],
    options: &Options,
    context: &Context,
    out: &mut (dyn Write + Send),
    told: &mut (dyn Write + Send),
) -> io::Result<u8> {
    prove_within(CLAIM_TIMEOUT, claims, options, context, out, told).await
}

async fn prove_within(
    limit: Duration,
    claims: &[&dyn Claim],
    options: &Options,
    context: &Context,
    out: &mut (dyn Write + Send),
    told: &mut (dyn Write + Send),
) -> io::Result<u8> {
    if options.list {
        return list(claims, options, out);
    }
    let chosen = match choose(claims, options) {
        Ok(chosen) => chosen,
        Err(reason) => {
            writeln!(told, "{reason}")?;
            return Ok(EXIT_USAGE);
        }
    };
    let context = Context {
        quick: options.quick,
        ..context.clone()
    };
    let broken = options.broken || options.self_test;
    let mut silence = io::sink();
    let told: &mut (dyn Write + Send) = if options.json { &mut silence } else { told };
    let mut good = 0;
    for claim in &chosen {
        let start = Instant::now();
        let verdict = try_claim(*claim, &context, broken, limit).await;
        let as_wanted = if options.self_test {
            verdict.found_false
        } else {
            verdict.holds
        };
        good += usize::from(as_wanted);
        tell(told, &verdict, options.self_test, start.elapsed())?;
        serde_json::to_writer(&mut *out, &verdict)?;
        writeln!(out)?;
        out.flush()?;
    }
    let bad = chosen.len() - good;
    writeln!(told, "{good} passed, {bad} failed")?;
    Ok(if bad == 0 { EXIT_HOLDS } else { EXIT_FALSE })
}

fn list(claims: &[&dyn Claim], options: &Options, out: &mut dyn Write) -> io::Result<u8> {
    for claim in claims {
        if claim.quick() || !options.quick {
            let quick = if claim.quick() { "quick" } else { "" };
            let (name, promise) = (claim.name(), claim.promise());
            writeln!(out, "{name:24} {promise:?} {quick:5} {}", claim.says())?;
        }
    }
    Ok(EXIT_HOLDS)
}

fn choose<'a>(claims: &[&'a dyn Claim], options: &Options) -> Result<Vec<&'a dyn Claim>, String> {
    let known = || {
        let names: Vec<&str> = claims.iter().map(|claim| claim.name()).collect();
        format!("claims: {}, or all", names.join(", "))
    };
    for name in &options.names {
        if name != "all" && !claims.iter().any(|claim| claim.name() == name) {
            return Err(format!("there is no claim {name:?}; {}", known()));
        }
    }
    let all = options.names.iter().any(|name| name == "all")
        || (options.names.is_empty() && (options.self_test || options.quick));
    let chosen: Vec<&dyn Claim> = claims
        .iter()
        .copied()
        .filter(|claim| all || options.names.iter().any(|name| name == claim.name()))
        .filter(|claim| claim.quick() || !options.quick)
        .collect();
    if chosen.is_empty() {
        return Err(format!("no claim chosen; {}", known()));
    }
    Ok(chosen)
}

/// Runs one claim to a verdict. One that fails, panics or takes too long does not hold.
async fn try_claim(claim: &dyn Claim, context: &Context, broken: bool, limit: Duration) -> Verdict {
    // The verdict would be about the compiler's flags. Nothing is run, so nothing is found false.
    if claim.is_about_speed() && context.build == Build::Debug {
        let reason = "a debug build does not judge speed: build with --release";
        return verdict(claim, context, broken, Err(reason.to_owned()));
    }
    let run = AssertUnwindSafe(async { claim.run(context, broken).await }).catch_unwind();
    let outcome = match tokio::time::timeout(limit, run).await {
        Ok(Ok(Ok(outcome))) => Ok(outcome),
        Ok(Ok(Err(error))) => Err(format!("not finished: {error:#}")),
        Ok(Err(panic)) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or("without words")))
        }
        Err(_) => Err(format!("not finished within {limit:?}")),
    };
    verdict(claim, context, broken, outcome)
}

fn verdict(
    claim: &dyn Claim,
    context: &Context,
    broken: bool,
    outcome: Result<Outcome, String>,
) -> Verdict {
    let (outcome, reasons, found_false) = match outcome {
        Ok(outcome) => {
            let (reasons, found_false) = judge(&outcome);
            (outcome, reasons, found_false)
        }
        Err(reason) => (Outcome::default(), vec![reason], false),
    };
    Verdict {
        claim: claim.name().to_owned(),
        broken,
        holds: reasons.is_empty(),
        figures: outcome.figures,
        limits: outcome.limits,
        reasons,
        machine: context.machine,
        build: context.build,
        found_false,
    }
}

fn tell(
    told: &mut dyn Write,
    verdict: &Verdict,
    self_test: bool,
    took: Duration,
) -> io::Result<()> {
    let name = &verdict.claim;
    let broken = if verdict.broken { ", broken," } else { "" };
    let found = if verdict.holds {
        "holds"
    } else {
        "does not hold"
    };
    write!(told, "{name}{broken} {found} ({:.1} s)", took.as_secs_f64())?;
    if self_test && !verdict.found_false {
        write!(told, ": NOT FOUND FALSE BY ITS FIGURES")?;
    }
    writeln!(told)?;
    for reason in &verdict.reasons {
        writeln!(told, "  {reason}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
