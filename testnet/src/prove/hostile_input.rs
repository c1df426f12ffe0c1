//! The claim `hostile-input` (P7): bytes made to harm cost their reader nothing but themselves.
//!
//! Every decoder and machine of the core gets hostile inputs in a process of its own, whose
//! allocator counts; a process that dies is a figure like a panic. Broken, two faults are planted in
//! every target: one input in some makes it panic, and a length is believed before it is checked.

use std::{collections::BTreeMap, process::Stdio};

use anyhow::Context as _;
use comity_fuzz::{
    Form, TARGETS, Target, machines,
    run::{self, Report},
};
use futures::{StreamExt, stream};

use crate::{
    claims::{Claim, Context, Outcome, Promise, Run},
    hostile,
};

/// Inputs for each decoder.
const INPUTS: u64 = 1_000_000;
/// Inputs for each decoder when time is short, and when the claim is broken.
const INPUTS_QUICK: u64 = 20_000;
/// Digits shown of the input that failed first; the log has it whole.
const INPUT_SHOWN: usize = 256;
/// Processes at once.
const AT_ONCE: usize = 2;

/// The claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostileInput;

impl Claim for HostileInput {
    fn name(&self) -> &'static str {
        "hostile-input"
    }

    fn says(&self) -> &'static str {
        "a million hostile inputs for each decoder lead to no panic and to no large allocation, and \
         a hostile item keeps none of its neighbours from being judged"
    }

    fn promise(&self) -> Promise {
        Promise::P7
    }

    fn quick(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, context: &'a Context, broken: bool) -> Run<'a> {
        Box::pin(attack(context, broken))
    }
}

/// What became of one target.
enum Ran {
    Whole(Box<Report>),
    /// The process ended without a report: why.
    Died(String),
}

async fn attack(context: &Context, broken: bool) -> anyhow::Result<Outcome> {
    let inputs = if context.quick || broken {
        INPUTS_QUICK
    } else {
        INPUTS
    };
    let mut seed = [0; 8];
    getrandom::fill(&mut seed)?;
    // What the JSON line says is exact up to 2^53.
    let seed = u64::from_be_bytes(seed) >> 16;
    let mut all = BTreeMap::new();
    // Machines take longest and come last in the list.
    let mut runs = Vec::new();
    for target in TARGETS.iter().rev() {
        runs.push(one(target, seed, inputs, broken));
    }
    let mut runs = stream::iter(runs).buffer_unordered(AT_ONCE);
    while let Some(ran) = runs.next().await {
        let (target, ran) = ran?;
        if let Ran::Whole(report) = &ran {
            for failure in &report.failures {
                tracing::error!(
                    target = target.name,
                    input = failure.input,
                    "{}",
                    failure.what
                );
            }
        }
        all.insert(target.name, (target, ran));
    }
    Ok(outcome(seed, inputs, &all))
}

async fn one(
    target: &'static Target,
    seed: u64,
    inputs: u64,
    broken: bool,
) -> anyhow::Result<(&'static Target, Ran)> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command
        .args(["hostile", "--target", target.name])
        .args(["--seed", &seed.to_string(), "--inputs", &inputs.to_string()])
        .args(broken.then_some("--planted"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command
        .output()
        .await
        .with_context(|| format!("attacking {}", target.name))?;
    let report = output
        .status
        .success()
        .then(|| serde_json::from_slice::<hostile::Line>(&output.stdout).ok())
        .flatten();
    let ran = match report {
        Some(line) => {
            anyhow::ensure!(line.counting, "memory was not counted");
            Ran::Whole(Box::new(line.report))
        }
        None => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or("nothing").to_owned();
            Ran::Died(format!("{}, and said: {last}", output.status))
        }
    };
    Ok((target, ran))
}

fn outcome(seed: u64, inputs: u64, all: &BTreeMap<&str, (&Target, Ran)>) -> Outcome {
    let whole = || {
        all.values().filter_map(|(target, ran)| match ran {
            Ran::Whole(report) => Some((*target, report.as_ref())),
            Ran::Died(_) => None,
        })
    };
    let died: Vec<String> = all
        .iter()
        .filter_map(|(name, (_, ran))| match ran {
            Ran::Died(why) => Some(format!("{name}: {why}")),
            Ran::Whole(_) => None,
        })
        .collect();
    let sum = |of: fn(&Report) -> u64| whole().map(|(_, report)| of(report)).sum::<u64>();
    let decoders = || whole().filter(|(target, _)| target.form == Form::Decoder);
    let least = decoders()
        .map(|(_, report)| report.inputs)
        .min()
        .unwrap_or(0);
    let largest = whole().max_by_key(|(_, report)| report.largest_piece);
    let largest_decoder = decoders().max_by_key(|(_, report)| report.largest_piece);
    let slowest = whole().max_by_key(|(_, report)| report.slowest_us);
    let of = |name: &str| whole().find(|(target, _)| target.name == name);
    let batches = of("batch").map_or(0, |(_, report)| report.inputs);
    let blocked = of("batch").map_or(0, |(_, report)| report.panics);
    let seconds: f64 = whole().map(|(_, report)| report.seconds).sum();
    let total = sum(|report| report.inputs);
    let mut outcome = Outcome::of(total)
        .figure("seed", seed)
        .figure("decoders", decoders().count() as u64)
        .min("decoders", count(Form::Decoder) as f64)
        .figure("machines", (whole().count() - decoders().count()) as u64)
        .min("machines", count(Form::Machine) as f64)
        .figure("inputs_per_decoder", least)
        .min("inputs_per_decoder", inputs as f64)
        .figure("taken", sum(|report| report.taken))
        .figure(
            "targets_reached",
            whole().filter(|(_, r)| r.taken > 0).count() as u64,
        )
        .min("targets_reached", TARGETS.len() as f64)
        .figure("piece_bytes_flat", run::PIECE_BYTES_FLAT as u64)
        .figure("piece_bytes_per_byte", run::PIECE_BYTES_PER_BYTE as u64)
        .figure("oversize", sum(|report| report.oversize))
        .figure("processes_died", died.len() as u64)
        .equals("processes_died", 0_u64)
        .figure("panics", sum(|report| report.panics))
        .equals("panics", 0_u64)
        .figure("allocations_too_large", sum(|report| report.too_large))
        .equals("allocations_too_large", 0_u64)
        .figure("neighbours", batches * machines::SOUND as u64)
        .min("neighbours", machines::SOUND as f64)
        .figure("neighbours_blocked", blocked)
        .equals("neighbours_blocked", 0_u64)
        .figure(
            "inputs_per_cpu_s",
            if seconds > 0.0 {
                total as f64 / seconds
            } else {
                0.0
            },
        );
    if let Some((target, report)) = largest_decoder {
        outcome = outcome
            .figure("largest_piece_bytes", report.largest_piece as u64)
            .figure("largest_piece_for_bytes", report.largest_piece_for as u64)
            .figure("largest_piece_of", target.name);
    }
    if let Some((target, report)) = largest {
        outcome = outcome
            .figure("largest_piece_of_all_bytes", report.largest_piece as u64)
            .figure("largest_piece_of_all", target.name);
    }
    if let Some((target, report)) = slowest {
        outcome = outcome
            .figure("slowest_us", report.slowest_us)
            .figure("slowest_of", target.name);
    }
    let first_failure = whole().find_map(|(target, report)| {
        let first = report.failures.first()?;
        let input: String = first.input.chars().take(INPUT_SHOWN).collect();
        Some(format!("{}: {} ({input})", target.name, first.what))
    });
    match died.first().or(first_failure.as_ref()) {
        Some(first) => outcome.figure("first_failure", first.as_str()),
        None => outcome,
    }
}

fn count(form: Form) -> usize {
    TARGETS.iter().filter(|target| target.form == form).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::judge;

    fn all(
        change: impl Fn(&Target, &mut Report),
    ) -> BTreeMap<&'static str, (&'static Target, Ran)> {
        let ran = |target: &'static Target| {
            let mut report = Report {
                inputs: INPUTS,
                taken: 5,
                seconds: 1.0,
                ..Report::default()
            };
            change(target, &mut report);
            (target.name, (target, Ran::Whole(Box::new(report))))
        };
        TARGETS.iter().map(ran).collect()
    }

    fn holds(all: &BTreeMap<&str, (&Target, Ran)>) -> bool {
        judge(&outcome(1, INPUTS, all)).0.is_empty()
    }

    #[test]
    fn one_panic_or_large_piece_or_missing_input_anywhere_makes_it_false() {
        assert!(holds(&all(|_, _| ())));
        assert!(!holds(&all(|target, report| {
            report.panics = u64::from(target.name == "handle");
        })));
        assert!(!holds(&all(|target, report| {
            report.too_large = u64::from(target.name == "link");
        })));
        assert!(!holds(&all(|target, report| {
            report.inputs -= u64::from(target.name == "event");
        })));
        assert!(!holds(&all(|target, report| {
            report.panics = u64::from(target.name == "batch");
        })));
    }

    #[test]
    fn a_process_that_died_makes_it_false() {
        let mut died = all(|_, _| ());
        let (target, _) = died["bundle"];
        died.insert("bundle", (target, Ran::Died("signal: 11".to_owned())));
        let (reasons, found) = judge(&outcome(1, INPUTS, &died));
        assert!(found && reasons.len() >= 2, "{reasons:?}");
        died.remove("bundle");
        assert!(!holds(&died));
    }
}
